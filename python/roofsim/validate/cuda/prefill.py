"""Prefill attention: many query rows, causal, aligned to the last key (chunks sit behind a cached prefix)."""

from __future__ import annotations

import contextlib
import math
from typing import TYPE_CHECKING, Any

from .bench import Bench, Candidate
from .check import sampled_attention_error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from ..points import Point

__all__ = ["measure_prefill", "prefill_candidates"]


def _flash(bench: Bench) -> Callable[..., Any]:
    """Return torch's flash operator; called directly its causal mask is aligned to the last key."""
    torch = bench.torch

    def call(query: Any, key: Any, value: Any) -> Any:
        return torch.ops.aten._scaled_dot_product_flash_attention(query, key, value, 0.0, True, False)[0]

    return call


def _cudnn(bench: Bench, *, causal: bool, with_lse: bool) -> Callable[..., Any]:
    """Return cuDNN's attention; its causal mask is aligned to the first key, so it serves whole prompts."""
    operator = bench.torch.ops.aten._scaled_dot_product_cudnn_attention

    def call(query: Any, key: Any, value: Any) -> Any:
        result = operator(query, key, value, None, with_lse, 0.0, causal, False)
        return (result[0], result[1]) if with_lse else result[0]

    return call


def _cudnn_parts(bench: Bench) -> Callable[..., Any]:
    """Return cuDNN on the prefix without a mask and on the chunk with one, merged by their log-sum-exp."""
    from .triton_attention import merge_parts

    whole, diagonal = _cudnn(bench, causal=False, with_lse=True), _cudnn(bench, causal=True, with_lse=True)

    def call(query: Any, key: Any, value: Any) -> Any:
        batch, heads, rows, _ = query.shape
        prefix = key.shape[2] - rows
        first, first_lse = whole(query, key[:, :, :prefix], value[:, :, :prefix])
        second, second_lse = diagonal(query, key[:, :, prefix:], value[:, :, prefix:])
        shape = (batch, heads, rows)
        parts = (first, first_lse.reshape(shape), second, second_lse.reshape(shape))
        return merge_parts(*(part.contiguous() for part in parts))

    return call


def _efficient(bench: Bench) -> Callable[..., Any]:
    """Return the memory-efficient backend; it has no grouped heads, so it is offered where H = K."""
    torch = bench.torch
    from torch.nn.attention import SDPBackend, sdpa_kernel

    def call(query: Any, key: Any, value: Any) -> Any:
        # Torch's compiler comes with it, half a minute on a fresh disk: not for quick runs, which leave it out.
        from torch.nn.attention.bias import causal_lower_right

        mask = causal_lower_right(query.shape[2], key.shape[2])
        with sdpa_kernel(SDPBackend.EFFICIENT_ATTENTION):
            return torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)

    return call


def _triton(config: Any) -> Callable[..., Any]:
    from .triton_attention import prefill_causal

    return lambda query, key, value: prefill_causal(query, key, value, config)


def prefill_candidates(bench: Bench, point: Point, *, width: int | None = None) -> list[Candidate]:
    """Return every candidate for a prefill point; each takes query [B, H, T, h], key and value [B, K, S, h].

    With a `width` the heads are the expanded ones of latent attention, which torch's kernels alone compute.
    """
    rows, context = point.integer("query_tokens"), point.integer("context_tokens")
    found: list[Candidate] = []
    with contextlib.suppress(Exception):
        if rows == context:
            found.append(Candidate("sdpa_cudnn", _cudnn(bench, causal=True, with_lse=False), {}))
        else:
            found.append(Candidate("cudnn_parts", _cudnn_parts(bench), {}))
    with contextlib.suppress(Exception):
        found.append(Candidate("sdpa_flash", _flash(bench), {}))
    if width is not None:
        return found
    with contextlib.suppress(Exception):
        from .triton_attention import PREFILL_CONFIGS

        for config in PREFILL_CONFIGS[point.integer("head_dim")]:
            tile, block, warps, stages = config
            extra = {"tile": tile, "block": block, "warps": warps, "stages": stages}
            found.append(Candidate("triton_prefill", _triton(config), extra))
    if point.params["num_heads"] == point.params["num_kv_heads"]:
        with contextlib.suppress(Exception):
            found.append(Candidate("sdpa_efficient", _efficient(bench), {}))
    return bench.worth_timing("prefill_attention", found)


def _operands(bench: Bench, sizes: tuple[int, int, int, int, int, int], dtype: str) -> tuple[Any, Any, Any]:
    batch, heads, kv_heads, rows, context, width = sizes
    kind = bench.dtype(dtype)
    query = bench.pool.take(kind, batch, heads, rows, width)
    shape = (batch, kv_heads, context, width)
    return query, bench.pool.take(kind, *shape), bench.pool.take(kind, *shape)


def measure_prefill(bench: Bench, point: Point) -> Iterator[Mapping[str, Any]]:
    """Time every candidate on rotating operands; the best one counts, all are recorded."""
    batch, heads, kv_heads = (point.integer(f) for f in ("batch_size", "num_heads", "num_kv_heads"))
    rows, context, width = (point.integer(f) for f in ("query_tokens", "context_tokens", "head_dim"))
    dtype = point.text("dtype")
    sizes = (batch, heads, kv_heads, rows, context, width)
    flops = 4.0 * batch * heads * width * rows * (context - rows / 2)
    num_bytes = 2.0 * batch * width * (heads * rows + 2 * kv_heads * context)
    count = bench.stopwatch.launches(bench.estimate_s(1.6 * flops, num_bytes), num_bytes)
    sets = [_operands(bench, sizes, dtype) for _ in range(count)]
    best: float | None = None
    for candidate in prefill_candidates(bench, point):
        row = bench.time_candidate(candidate, sets, num_bytes, best)
        if row.get("error") is None:
            if row["repeats"] > 1:
                best = min(best or math.inf, row["median_s"])
            row.update(_verdict(bench, candidate, width, sets[0], dtype))
        yield row


def _verdict(
    bench: Bench, candidate: Candidate, width: int, operands: tuple[Any, Any, Any], dtype: str
) -> Mapping[str, Any]:
    """Check some rows of a candidate's result on the point's own operands.

    On a smaller instance cuDNN would plan once more, for half a second and longer.
    """
    key = f"prefill_attention:{dtype}:{candidate.backend}:{candidate.extra.get('block')}:{width}"

    def error() -> float:
        return sampled_attention_error(bench.torch, candidate.call(*operands), *operands)

    return bench.checks.verdict(key, dtype, None, error)
