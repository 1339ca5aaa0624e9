"""Decode attention: one query row a sequence against its whole KV cache, by every kernel at hand."""

from __future__ import annotations

import contextlib
import math
from typing import TYPE_CHECKING, Any

from ..plan_quick import QUICK_WAVES
from .bench import Bench, Candidate
from .check import attention_reference, relative_error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from ..points import Point

__all__ = ["decode_candidates", "measure_decode"]

MATH_MAX_KEYS = 1 << 20  # the unfused kernel is only of interest where everything is small
MAX_ACTUAL_ELEMENTS = 1 << 23
WAVES = (1.0, 2.0, 4.0)
MAX_SPLITS = 128
MIN_KEYS_PER_SPLIT = 128
SMALL = (2, 2, 777)  # batch, KV heads, keys: an odd count, so that ragged ends are seen


def _sdpa(bench: Bench, backend: str) -> Callable[..., Any]:
    """Return SDPA pinned to one backend; the packed group attends without a mask."""
    torch = bench.torch
    from torch.nn.attention import SDPBackend, sdpa_kernel

    chosen = getattr(SDPBackend, backend)

    def call(query: Any, key: Any, value: Any) -> Any:
        with sdpa_kernel(chosen):
            return torch.nn.functional.scaled_dot_product_attention(query, key, value)

    return call


def _flash_split(bench: Bench) -> Callable[..., Any]:
    """Return torch's flash operator called directly: its split-KV heuristic applies to the packed rows."""
    torch = bench.torch

    def call(query: Any, key: Any, value: Any) -> Any:
        return torch.ops.aten._scaled_dot_product_flash_attention(query, key, value, 0.0, False, False)[0]

    return call


def split_counts(sms: int, heads: int, context: int) -> list[int]:
    """Return split counts that fill the multiprocessors once, twice and four times."""
    most = max(1, min(MAX_SPLITS, context // MIN_KEYS_PER_SPLIT))
    return sorted({max(1, min(most, math.ceil(waves * sms / heads))) for waves in WAVES})


def decode_candidates(bench: Bench, point: Point) -> list[Candidate]:
    """Return every candidate for a decode point; each takes query [B, K, G, h], key and value [B, K, S, h]."""
    batch, kv_heads = point.integer("batch_size"), point.integer("num_kv_heads")
    context, width = point.integer("context_tokens"), point.integer("head_dim")
    found: list[Candidate] = []
    with contextlib.suppress(Exception):
        from . import triton_attention as kernels

        for config in kernels.DECODE_CONFIGS[width]:
            for splits in split_counts(bench.sms, batch * kv_heads, context)[: QUICK_WAVES if bench.quick else None]:

                def call(q: Any, k: Any, v: Any, splits: int = splits, config: Any = config) -> Any:
                    return kernels.decode_split(q, k, v, splits, config)

                extra = {"splits": splits, "block": config[0], "warps": config[1], "stages": config[2]}
                found.append(Candidate("triton_split", call, extra))
    with contextlib.suppress(Exception):
        found.append(Candidate("sdpa_flash", _flash_split(bench), {}))
    names = ["CUDNN_ATTENTION", "EFFICIENT_ATTENTION"]
    names += ["MATH"] if batch * kv_heads * context <= MATH_MAX_KEYS else []
    for name in names:
        with contextlib.suppress(Exception):
            found.append(Candidate(f"sdpa_{name.lower().removesuffix('_attention')}", _sdpa(bench, name), {}))
    return bench.worth_timing("decode_attention", found)


def _error(bench: Bench, call: Callable[..., Any], sizes: tuple[int, int, int, int, int], dtype: str) -> float:
    """Return the relative error on fresh operands of (batch, KV heads, group, keys, head width)."""
    batch, kv_heads, group, context, width = sizes
    kind = bench.dtype(dtype)
    query = bench.pool.take(kind, batch, kv_heads, group, width)
    key = bench.pool.take(kind, batch, kv_heads, context, width)
    value = bench.pool.take(kind, batch, kv_heads, context, width)
    result = call(query, key, value)
    reference = attention_reference(bench.torch, query, key, value, causal=False)
    return relative_error(bench.torch, result, reference)


def measure_decode(bench: Bench, point: Point) -> Iterator[Mapping[str, Any]]:
    """Time every candidate on rotating caches; the best one counts, all are recorded."""
    batch, heads, kv_heads = (point.integer(f) for f in ("batch_size", "num_heads", "num_kv_heads"))
    context, width, dtype = point.integer("context_tokens"), point.integer("head_dim"), point.text("dtype")
    group = heads // kv_heads
    kind = bench.dtype(dtype)
    cache_bytes = 4.0 * batch * kv_heads * context * width
    count = bench.stopwatch.launches(bench.estimate_s(0.0, cache_bytes), cache_bytes)
    sets = [
        (
            bench.pool.take(kind, batch, kv_heads, group, width),
            bench.pool.take(kind, batch, kv_heads, context, width),
            bench.pool.take(kind, batch, kv_heads, context, width),
        )
        for _ in range(count)
    ]
    best: float | None = None
    for candidate in decode_candidates(bench, point):
        row = bench.time_candidate(candidate, sets, cache_bytes, best)
        if row.get("error") is None:
            if row["repeats"] > 1:
                best = min(best or math.inf, row["median_s"])
            row.update(_verdict(bench, candidate, (batch, kv_heads, group, context, width), dtype))
        yield row


def _verdict(
    bench: Bench, candidate: Candidate, sizes: tuple[int, int, int, int, int], dtype: str
) -> Mapping[str, Any]:
    """Check a candidate once a head width and group, and on actual shapes where they are small."""
    batch, kv_heads, group, context, width = sizes
    key = f"decode_attention:{dtype}:{candidate.backend}:{candidate.extra.get('block')}:{width}"
    small = batch * kv_heads * context * width <= MAX_ACTUAL_ELEMENTS
    actual = (lambda: _error(bench, candidate.call, sizes, dtype)) if small else None
    few = (SMALL[0], SMALL[1], group, SMALL[2], width)
    return bench.checks.verdict(key, dtype, lambda: _error(bench, candidate.call, few, dtype), actual)
