"""The rivals in NumPy: the same formulas, one thread, chunks that stay in the caches. Equal answers are asserted.

Both find the best row by tokens per second and device among those that fit and keep a latency limit.

`flat_best` evaluates every operation of the step for every configuration, as a script does that treats the model as a
function of arrays. It holds under the `ideal` calibration, whose law is the same for every operation.

`factored_best` is the best an expert would write: what depends on the batch alone is a table that it is given for
nothing (from `Deployment.decode`), what depends on the context alone is computed once, and only attention and the final
combination broadcast over both, in place.
"""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

import roofsim as rs

if TYPE_CHECKING:
    from collections.abc import Callable

LIMIT_S = 0.03
Array = NDArray[np.float64]


@dataclasses.dataclass
class Case:
    """One model on one device: what a rival is told about it."""

    model: str
    device: str
    tensor_parallel_size: int
    calibration: str | None
    batches: range
    contexts: range

    def __post_init__(self) -> None:
        arguments = {"tensor_parallel_size": self.tensor_parallel_size, "calibration": self.calibration}
        self.deployment = rs.Deployment(self.model, self.device, **arguments)
        capacity = self.deployment.capacity()
        self.most = np.asarray([capacity.max_sequences(s) for s in self.contexts], dtype=np.float64)
        self.space = rs.SweepSpace(
            self.model, self.device, batch_size=self.batches, context_tokens=self.contexts, **arguments
        )

    def ops(self, batch: int, context: int) -> list:
        return list(self.deployment.decode(batch_size=batch, context_tokens=context).ops)

    def rows_s(self) -> Array:
        """Time of everything but attention, batch by batch."""
        steps = (self.ops(b, self.contexts[0]) for b in self.batches)
        return np.asarray([sum(o.count * o.time_s for o in ops if not is_attention(o)) for ops in steps])

    def best(self) -> tuple[float, int]:
        """Ask the sweep."""
        found = self.space.top_k(
            1, by="tokens_per_s_per_gpu", where=["fits", f"time_s <= {LIMIT_S}"], num_threads=1, method="scan"
        )
        return (found.values[0], found.indices[0]) if found.values else (-np.inf, -1)


def is_attention(op: object) -> bool:
    return op.name in ("attention", "latent_attention")


def line(value: Callable[[int], float], x: int, y: int) -> tuple[float, float]:
    """Constant and slope of an affine quantity."""
    slope = (value(y) - value(x)) / (y - x)
    return value(x) - slope * x, slope


def flat_best(case: Case, chunk: int = 1 << 13) -> tuple[float, int]:
    """Every operation of every configuration, chunk by chunk; `ideal` only."""
    assert case.deployment.calibration.name == "ideal"
    few, many = (1, 2), (1 << 19, 1 << 20)
    lines = []
    for at, op in enumerate(case.ops(1, 2)):
        if is_attention(op):
            continue

        def part(name: str, batch: int, at: int = at) -> float:
            return getattr(case.ops(batch, 1 << 10)[at], name)

        compute = line(lambda b: part("compute_s", b), *few)
        small, large = (line(lambda b: part("network_s", b), *ends) for ends in (few, many))
        experts = grouped(case, op, lambda b: part("memory_s", b))
        memory = experts or line(lambda b: part("memory_s", b), *few)
        lines.append((op.count, compute, memory, small, large))
    attention = [(o.count, *bilinear(case, at)) for at, o in enumerate(case.ops(1, 2)) if is_attention(o)]
    batches, contexts = (np.asarray(axis, dtype=np.float64) for axis in (case.batches, case.contexts))
    best = (-np.inf, -1)
    total = len(batches) * len(contexts)
    for first in range(0, total, chunk):
        rows = np.arange(first, min(first + chunk, total))
        at = rows % len(contexts)
        b, s = batches[rows // len(contexts)], contexts[at]
        time_s = np.zeros(len(rows))
        for count, compute, memory, small, large in lines:
            memory_s = memory(b) if callable(memory) else memory[0] + memory[1] * b
            network_s = np.minimum(small[0] + small[1] * b, large[0] + large[1] * b)
            time_s += count * (np.maximum(compute[0] + compute[1] * b, memory_s) + network_s)
        for count, (f0, f1), (m0, m1), fixed in attention:
            time_s += count * np.maximum(b * (f0 + f1 * s), fixed + b * (m0 + m1 * s))
        value = np.where((time_s <= LIMIT_S) & (b <= case.most[at]), b / time_s / case.deployment.num_devices, -np.inf)
        top = int(np.argmax(value))
        if value[top] > best[0]:
            best = (float(value[top]), first + top)
    return best


def grouped(case: Case, op: object, memory_s: Callable[[int], float]) -> Callable[[Array], Array] | None:
    """Memory time of routed experts: those hit, `E (1 - (1 - k/E)^T)`, and the rows."""
    if not op.name.startswith("experts_") or op.name in ("experts_activation", "experts_combine"):
        return None
    experts, each = EXPERTS[case.model]

    def hit(tokens: Array | float) -> Array | float:
        return experts * (1 - (1 - each / experts) ** tokens)

    matrix = np.asarray([[hit(1), 1], [hit(64), 64]])
    weight, row = np.linalg.solve(matrix, np.asarray([memory_s(1), memory_s(64)]))
    return lambda tokens: weight * hit(tokens) + row * tokens


EXPERTS = {"mixtral-8x7b": (8, 2), "deepseek-v3.1": (256, 8)}
"""Routed experts and how many of them a token visits."""


def bilinear(case: Case, at: int) -> tuple[tuple[float, float], tuple[float, float], float]:
    """Compute and memory seconds of attention for one request, affine in the context, and memory that all share."""

    def memory_s(batch: int, context: int) -> float:
        return case.ops(batch, context)[at].memory_s

    fixed = 2 * memory_s(1, 1 << 10) - memory_s(2, 1 << 10)
    compute = line(lambda s: case.ops(1, s)[at].compute_s, 1 << 10, 1 << 11)
    return compute, line(lambda s: memory_s(1, s) - fixed, 1 << 10, 1 << 11), fixed


class UnknownLawError(Exception):
    """The calibration has constants that the rival does not know."""


KNOWN = {"law", "tile_t0_s", "tile_e_c", "tile_tau_s", "tile_tail", "split_t0_s", "split_e_c", "split_c_s", "e_m"}


def factored_best(case: Case, rows_s: Array, chunk: int = 1 << 14) -> tuple[float, int]:
    """Attention and the final combination over broadcast tables, in place."""
    attention_s, width = attention_of(case), len(case.contexts)
    batches = np.asarray(case.batches, dtype=np.float64)
    count = sum(o.count for o in case.ops(1, 2) if is_attention(o))
    devices = case.deployment.num_devices
    size = min(chunk, width)
    buffers = [np.empty(size) for _ in range(4)]
    masks = [np.empty(size, dtype=bool) for _ in range(2)]
    best = (-np.inf, -1)
    for first in range(0, width, size):
        part = slice(first, min(first + size, width))
        n = part.stop - part.start
        time_s, x, y, z = (buffer[:n] for buffer in buffers)
        keep, fits = (mask[:n] for mask in masks)
        evaluate = attention_s(part)
        for at, b in enumerate(batches):
            evaluate(b, time_s, x, y, z)
            time_s *= count
            time_s += rows_s[at]
            np.less_equal(time_s, LIMIT_S, out=keep)
            np.greater_equal(case.most[part], b, out=fits)
            keep &= fits
            if not keep.any():
                continue
            np.copyto(x, np.inf)
            np.copyto(x, time_s, where=keep)
            top = int(np.argmin(x))
            value = b / x[top] / devices
            row = at * width + first + top
            # Chunks of contexts come first, so that ties must look at the row.
            if (value, -row) > (best[0], -best[1]):
                best = (float(value), row)
    return best


def attention_of(case: Case) -> Callable[[slice], Callable[..., None]]:
    """For a part of the contexts, a function that writes the time of attention for a batch."""
    device = rs.Accelerator.load(case.device)
    (at,) = (at for at, o in enumerate(case.ops(1, 2)) if is_attention(o))
    contexts = np.asarray(case.contexts, dtype=np.float64)
    if case.calibration == "ideal":
        (f0, f1), (m0, m1), fixed = bilinear(case, at)
        compute, memory = f0 + f1 * contexts, m0 + m1 * contexts

        def ideal(part: slice) -> Callable[..., None]:
            def evaluate(b: float, out: Array, x: Array, *_: Array) -> None:
                np.multiply(compute[part], b, out=out)
                np.multiply(memory[part], b, out=x)
                if fixed:
                    x += fixed
                np.maximum(out, x, out=out)

            return evaluate

        return ideal
    law = json.loads(case.deployment.calibration.to_json())
    constants = law["attention"]
    if set(constants) != KNOWN:
        raise UnknownLawError(f"attention has the constants {sorted(constants)}")
    peak, units = device.peak_flops_per_s["bf16"], device.num_compute_units

    def quantity(name: str, batch: int, context: int) -> float:
        return getattr(case.ops(batch, context)[at], name)

    seconds = 1 / (device.memory_bandwidth_bytes_per_s * constants["e_m"] * law["step"]["memory_rate"])
    fixed = (2 * quantity("bytes", 1, 1 << 10) - quantity("bytes", 2, 1 << 10)) * seconds
    m0, m1 = line(lambda s: quantity("bytes", 1, s) * seconds - fixed, 1 << 10, 1 << 11)
    memory = m0 + m1 * contexts
    f0, f1 = line(lambda s: quantity("flops", 1, s), 1 << 10, 1 << 11)
    flops = f0 + f1 * contexts
    split_flop_s = 1 / (peak * constants["split_e_c"] * law["step"]["compute_rate"])
    split_fixed = constants["split_t0_s"] + constants["split_c_s"] * np.sqrt(contexts)
    latent = case.ops(1, 2)[at].name == "latent_attention"
    heads, kv_heads, width = 0, 0, 0
    if not latent:
        heads, kv_heads, width = HEADS[case.model]
        heads, kv_heads = heads // case.tensor_parallel_size, kv_heads // case.tensor_parallel_size
        # Query heads that share a KV head are packed into tiles of 64 rows.
        flops = 2 * 2 * width * kv_heads * 64 * np.ceil(heads / kv_heads / 64) * contexts
    split = flops * split_flop_s
    tile_s = 1 / (peak * constants["tile_e_c"] * law["step"]["compute_rate"])
    block = 2 * 2 * width * 128 * 128 * tile_s * units
    longest = np.ceil(contexts / 128) * block + constants["tile_tau_s"]
    queued = heads * longest / units
    filled, tail = heads / units, constants["tile_tail"] * longest

    def calibrated(part: slice) -> Callable[..., None]:
        def evaluate(b: float, out: Array, x: Array, y: Array, z: Array) -> None:
            np.multiply(memory[part], b, out=x)
            if fixed:
                x += fixed
            np.multiply(split[part], b, out=out)
            np.maximum(out, x, out=out)
            out += split_fixed[part]
            if latent:
                return
            np.multiply(queued[part], b, out=y)
            np.multiply(tail[part], min(b * filled, 1.0), out=z)
            y += z
            np.maximum(y, longest[part], out=y)
            np.maximum(y, x, out=y)
            y += constants["tile_t0_s"]
            np.minimum(out, y, out=out)

        return evaluate

    return calibrated


HEADS = {"llama-3.1-70b": (64, 8, 128), "mixtral-8x7b": (32, 8, 128)}
"""Query heads, KV heads and head width."""
