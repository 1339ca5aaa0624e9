"""Timing of the NumPy kernels: rotating operands, warm-up, medians, one check against float64 an operation."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from .kernels import attention, attention_reference, elementwise, grouped_matmul, relative_error
from .machine import describe_machine, last_level_cache_bytes
from .model import TINY, TinyModel

if TYPE_CHECKING:
    from ..points import Point

__all__ = ["CpuBackend"]

Array = npt.NDArray[np.floating]
Call = Callable[[], object]
TOLERANCE = 1e-4
MAX_COPIES = 64
SAMPLE_SECONDS = 1e-3
POINT_SECONDS = 30e-3


class CpuBackend:
    """Measures NumPy kernels on the CPU.

    Parameters
    ----------
    seed
        Seeds the operand data.
    """

    name = "cpu"

    def __init__(self, *, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self.cache_bytes = last_level_cache_bytes()
        self.pool = np.asarray(self.rng.standard_normal(1 << 22), dtype=np.float32)
        self.checked: dict[str, float] = {}
        self.tiny: TinyModel | None = None

    def describe(self) -> Mapping[str, Any]:
        """Return the header of a CPU run."""
        return describe_machine()

    def recover(self) -> bool:
        """Nothing to recover: an exception leaves the CPU as it was."""
        return True

    def measure(self, point: Point) -> Iterator[Mapping[str, Any]]:
        """Measure one point with NumPy."""
        makers: dict[str, Callable[[Point], Mapping[str, Any]]] = {
            "gemm": self._gemm,
            "decode_attention": self._attention,
            "prefill_attention": self._attention,
            "elementwise": self._elementwise,
            "grouped_gemm": self._grouped_gemm,
            "system": self._system,
            "step": self._step,
        }
        if point.family not in makers:
            raise ValueError(f"family = {point.family!r}: the CPU backend measures {sorted(makers)}")
        yield makers[point.family](point)

    def _random(self, *shape: int) -> Array:
        """Return random data: a repeated random block, whose phase differs from call to call."""
        start = int(self.rng.integers(0, self.pool.size // 2))
        return np.resize(self.pool[start : start + self.pool.size // 2], shape)

    def _copies(self, bytes_per_copy: float) -> int:
        """Return how many operand sets exceed twice the last-level cache, at most 64."""
        return max(2, min(MAX_COPIES, math.ceil(2.2 * self.cache_bytes / max(bytes_per_copy, 1.0))))

    def _time(self, calls: list[Call]) -> dict[str, Any]:
        """Time rotating calls; a sample is enough calls to dwarf the clock."""
        start = time.perf_counter()
        calls[0]()
        once = max(time.perf_counter() - start, 1e-7)
        calls[-1]()
        loops = max(1, min(len(calls), round(SAMPLE_SECONDS / once)))
        repeats = max(5, min(25, round(POINT_SECONDS / (loops * once))))
        samples, index = [], 0
        for _ in range(repeats):
            start = time.perf_counter()
            for _ in range(loops):
                calls[index % len(calls)]()
                index += 1
            samples.append((time.perf_counter() - start) / loops)
        p10, median, p90 = (float(np.percentile(samples, q)) for q in (10, 50, 90))
        spread = {"median_s": median, "p10_s": p10, "p90_s": p90, "repeats": repeats}
        return {"backend": "numpy", **spread, "rotations": len(calls), "sm_clock_mhz": None, "power_w": None}

    def _verdict(self, key: str, error: Callable[[], float]) -> dict[str, Any]:
        """Check an operation once; a wrong result makes its rows errors."""
        if key not in self.checked:
            self.checked[key] = error()
        wrong = not self.checked[key] <= TOLERANCE
        return {
            "relative_error": self.checked[key],
            "error": f"incorrect: relative error {self.checked[key]:.3g}" if wrong else None,
        }

    def _gemm(self, point: Point) -> Mapping[str, Any]:
        m, n, k = (point.integer(name) for name in "mnk")
        copies = self._copies(4.0 * (m * k + n * k))
        sets = [(self._random(m, k), self._random(n, k), np.empty((m, n), np.float32)) for _ in range(copies)]
        calls: list[Call] = [partial(np.matmul, a, b.T, out=c) for a, b, c in sets]

        def error() -> float:
            a, b = self._random(24, 96), self._random(40, 96)
            return relative_error(a @ b.T, a.astype(np.float64) @ b.T.astype(np.float64))

        return {**self._time(calls), **self._verdict("gemm", error)}

    def _grouped_gemm(self, point: Point) -> Mapping[str, Any]:
        names = ("num_tokens", "num_experts", "experts_per_token", "expert_ranks", "n", "k")
        tokens, experts, per_token, ranks, n, k = (point.integer(name) for name in names)
        chosen = self.rng.random((tokens, experts)).argpartition(per_token - 1, axis=1)[:, :per_token]
        counts = np.bincount(chosen.ravel(), minlength=experts)[: experts // ranks]
        drawn = {"routed_rows": int(counts.sum()), "active_experts": int((counts > 0).sum())}
        drawn["max_expert_rows"] = int(counts.max())
        if not drawn["routed_rows"]:
            return {"backend": None, **drawn, "error": "no token was routed to this rank"}
        copies = min(4, self._copies(4.0 * k * (drawn["active_experts"] * n + drawn["routed_rows"])))
        sets = [(self._random(drawn["routed_rows"], k), self._random(len(counts), n, k)) for _ in range(copies)]
        calls: list[Call] = [partial(grouped_matmul, x, w, counts) for x, w in sets]

        def error() -> float:
            few = np.array([3, 0, 5])
            x, w = self._random(8, 48), self._random(3, 40, 48)
            owner = np.repeat(np.arange(3), few)
            return relative_error(grouped_matmul(x, w, few), np.einsum("rk,rnk->rn", x, w[owner], dtype=np.float64))

        return {**drawn, **self._time(calls), **self._verdict("grouped_gemm", error)}

    def _operands(self, batch: int, heads: int, kv_heads: int, rows: int, context: int, h: int) -> tuple[Array, ...]:
        query = self._random(batch, kv_heads, heads // kv_heads, rows, h)
        return query, self._random(batch, kv_heads, context, h), self._random(batch, kv_heads, context, h)

    def _attention(self, point: Point) -> Mapping[str, Any]:
        names = ("batch_size", "num_heads", "num_kv_heads", "query_tokens", "context_tokens", "head_dim")
        batch, heads, kv_heads, rows, context, h = (point.integer(name) for name in names)
        copies = min(8, self._copies(8.0 * batch * kv_heads * context * h))
        sets = [self._operands(batch, heads, kv_heads, rows, context, h) for _ in range(copies)]
        calls: list[Call] = [partial(attention, *operands) for operands in sets]

        def error() -> float:
            small = self._operands(2, 4, 2, min(rows, 5), 37, h)
            return relative_error(attention(*small), attention_reference(*small))

        return {**self._time(calls), **self._verdict(f"{point.family}:{h}", error)}

    def _elementwise(self, point: Point) -> Mapping[str, Any]:
        op, rows, width = point.text("op"), point.integer("rows"), point.integer("width")
        columns = {"silu_mul": 2 * width, "rotary": 128 * width}.get(op, width)
        vocabulary = max(rows, 4096) if op == "embedding" else max(rows, 1)
        table = self._random(vocabulary, columns if op != "rotary" else 64)
        ids = self.rng.integers(0, vocabulary, rows)
        copies = self._copies(8.0 * rows * columns)
        sets = [(self._random(rows, columns), self._random(rows, columns)) for _ in range(copies)]
        calls: list[Call] = [partial(elementwise, op, x, y, table, ids) for x, y in sets]

        def error() -> float:
            x, y = (part[: min(rows, 64)] for part in sets[0])
            value = elementwise(op, x, y, table, ids[: len(x)])
            wide = [part.astype(np.float64) for part in (x, y, table)]
            return relative_error(value, elementwise(op, wide[0], wide[1], wide[2], ids[: len(x)]))

        moved = {"rms_norm": 2, "add_rms_norm": 3, "silu_mul": 1.5, "rotary": 2, "residual_add": 3, "embedding": 2}[op]
        num_bytes = 4.0 * moved * rows * columns
        return {**self._time(calls), "bytes": num_bytes, **self._verdict(f"elementwise:{op}", error)}

    def _system(self, point: Point) -> Mapping[str, Any]:
        op = point.text("op")
        if op == "launch_eager":
            tiny = np.zeros(1, np.float32)
            return {**self._time([lambda: np.add(tiny, tiny, out=tiny)] * MAX_COPIES), "bytes": 0}
        size = point.integer("num_bytes")
        elements = size // 4
        copies = min(self._copies(size), max(2, (1 << 30) // size))
        if op == "copy":
            pairs = [(self._random(elements), np.empty(elements, np.float32)) for _ in range(copies)]
            calls: list[Call] = [partial(np.copyto, y, x) for x, y in pairs]
            return {**self._time(calls), "bytes": 2 * size}
        if op == "read":
            arrays = [self._random(elements) for _ in range(copies)]
            return {**self._time([x.sum for x in arrays]), "bytes": size}
        raise ValueError(f"op = {op!r}: the CPU backend measures launch_eager, copy and read")

    def _step(self, point: Point) -> Mapping[str, Any]:
        if self.tiny is None:
            self.tiny = TinyModel(TINY, self.rng)
        model = self.tiny
        batch, rows, context = (point.integer(f) for f in ("batch_size", "query_tokens", "context_tokens"))
        ids = self.rng.integers(0, TINY.vocab_size, (batch, rows))
        caches = [model.caches(batch, context, self.rng) for _ in range(2)]
        calls: list[Call] = [partial(model.step, ids, cache) for cache in caches]

        def error() -> float:
            wide = TinyModel(TINY, np.random.default_rng(5), np.float64)
            narrow = TinyModel(TINY, np.random.default_rng(5), np.float32)
            few = ids[:1, : min(rows, 4)]
            value = narrow.step(few, narrow.caches(1, 16, np.random.default_rng(6)))
            return relative_error(value, np.asarray(wide.step(few, wide.caches(1, 16, np.random.default_rng(6)))))

        return {**self._time(calls), **self._verdict("step", error)}
