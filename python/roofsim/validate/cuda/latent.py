"""Latent attention: absorbed decodes with their projections, and the attention of expanded prompts.

Absorbed is what a step runs: queries through the up-projection into latent space, one pass over the cached latents, the
result through the up-projection of values. Expanded is the attention kernel alone, on keys and values as the
up-projection leaves them: keys are wider than values there, which of torch's kernels cuDNN takes as it is and flash
with padded values.
"""

from __future__ import annotations

import contextlib
import math
from typing import TYPE_CHECKING, Any

from .bench import Bench, Candidate
from .check import attention_reference, relative_error
from .decode import split_counts
from .prefill import prefill_candidates

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from ..points import Point

__all__ = ["measure_latent"]

SMALL_KEYS = 777
SMALL_QUERY = 0.05
"""Products with unit random matrices grow: scores spread by about one with it, and the softmax is not one-hot."""


def _sizes(point: Point) -> tuple[int, int, int, int]:
    """Return rank, width of queries and keys without position, rotary width, width of values."""
    names = ("kv_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim")
    rank, nope, rope, values = (point.integer(name) for name in names)
    return rank, nope, rope, values


def _absorbed(bench: Bench, config: tuple[int, int, int, int], splits: int, scale: float) -> Callable[..., Any]:
    """Return the three kernels of an absorbed decode.

    They take query [B, H, nope + rope], cache [B, S, rank + rope], key_up [H, nope, rank], value_up [H, rank, v], and a
    buffer [B, H, rank]; the result is [H, B, v], as the batched product leaves it.
    """
    from .triton_latent import latent_decode

    torch = bench.torch

    def call(query: Any, cache: Any, key_up: Any, value_up: Any, latent: Any) -> Any:
        torch.bmm(query[:, :, : key_up.shape[1]].transpose(0, 1), key_up, out=latent.transpose(0, 1))
        mixed = latent_decode(latent, query, cache, splits, config, scale)
        return torch.bmm(mixed.transpose(0, 1), value_up)

    return call


def _absorbed_operands(bench: Bench, point: Point, batch: int, context: int) -> tuple[Any, ...]:
    rank, nope, rope, values = _sizes(point)
    heads, kind = point.integer("num_heads"), bench.dtype("bf16")
    pool = bench.pool
    key_up, value_up = pool.take(kind, heads, nope, rank), pool.take(kind, heads, rank, values)
    return (
        pool.take(kind, batch, heads, nope + rope),
        pool.take(kind, batch, context, rank + rope),
        key_up,
        value_up,
        pool.scratch(kind, batch, heads, rank),
    )


def _absorbed_error(bench: Bench, call: Callable[..., Any], point: Point, batch: int, context: int) -> float:
    """Compare with float64 in the expanded form: each head's own keys and values from the latents."""
    torch = bench.torch
    rank = point.integer("kv_lora_rank")
    query, cache, key_up, value_up, latent = _absorbed_operands(bench, point, batch, context)
    query = query * SMALL_QUERY
    result = call(query, cache, key_up, value_up, latent).transpose(0, 1)
    wide = torch.float64
    latents, rotary = cache[..., :rank].to(wide), cache[..., rank:].to(wide)
    keys = torch.einsum("bsr,hnr->bhsn", latents, key_up.to(wide))
    keys = torch.cat([keys, rotary[:, None].expand(-1, keys.shape[1], -1, -1)], dim=-1)
    values = torch.einsum("bsr,hrv->bhsv", latents, value_up.to(wide))
    scores = torch.einsum("bhd,bhsd->bhs", query.to(wide), keys) / math.sqrt(query.shape[-1])
    reference = torch.einsum("bhs,bhsv->bhv", torch.softmax(scores, dim=-1), values)
    return relative_error(torch, result, reference)


def _measure_absorbed(bench: Bench, point: Point) -> Iterator[Mapping[str, Any]]:
    from .triton_latent import LATENT_CONFIGS

    batch, context, heads = (point.integer(name) for name in ("batch_size", "context_tokens", "num_heads"))
    rank, nope, rope, values = _sizes(point)
    num_bytes = 2.0 * (batch * context * (rank + rope) + heads * rank * (nope + values))
    flops = 2.0 * batch * heads * (context * (2 * rank + rope) + rank * (nope + values))
    count = bench.stopwatch.launches(bench.estimate_s(2.0 * flops, num_bytes), num_bytes)
    sets = [_absorbed_operands(bench, point, batch, context) for _ in range(count)]
    scale = 1.0 / math.sqrt(nope + rope)
    best: float | None = None
    for config in LATENT_CONFIGS:
        if config[0] > max(16, heads):
            continue
        blocks = -(-heads // config[0])
        for splits in split_counts(bench.sms, batch * blocks, context):
            call = _absorbed(bench, config, splits, scale)
            extra = dict(zip(("block_heads", "block", "warps", "stages"), config, strict=True))
            row = bench.time_candidate(
                Candidate("triton_latent", call, {**extra, "splits": splits}), sets, num_bytes, best
            )
            if row.get("error") is None:
                if row["repeats"] > 1:
                    best = min(best or math.inf, row["median_s"])

                def small(call: Callable[..., Any] = call) -> float:
                    return _absorbed_error(bench, call, point, 3, SMALL_KEYS)

                key = f"latent_attention:absorbed:{heads}:{config}:{splits > 1}"
                row.update(bench.checks.verdict(key, "bf16", small, None))
            yield row


def _expanded_operands(
    bench: Bench, point: Point, batch: int, rows: int, context: int, *, padded: bool
) -> tuple[Any, ...]:
    """Return query and keys [B, H, T or S, nope + rope], values [B, H, S, v], or as wide as keys with zeros behind."""
    _, nope, rope, values = _sizes(point)
    heads, kind = point.integer("num_heads"), bench.dtype("bf16")
    query = bench.pool.take(kind, batch, heads, rows, nope + rope)
    key = bench.pool.take(kind, batch, heads, context, nope + rope)
    value = bench.pool.take(kind, batch, heads, context, values)
    if padded:
        value = bench.torch.nn.functional.pad(value, (0, nope + rope - values))
    return query, key, value


def _measure_expanded(bench: Bench, point: Point) -> Iterator[Mapping[str, Any]]:
    _, nope, rope, values = _sizes(point)
    batch, rows, context, heads = (
        point.integer(name) for name in ("batch_size", "query_tokens", "context_tokens", "num_heads")
    )
    width = nope + rope
    flops = 2.0 * batch * heads * (width + values) * rows * (context - rows / 2)
    num_bytes = 2.0 * batch * heads * (rows + context) * (width + values)
    count = min(bench.stopwatch.launches(bench.estimate_s(1.6 * flops, num_bytes), num_bytes), 8)
    best: float | None = None
    for candidate in prefill_candidates(bench, point, width=width):
        padded = candidate.backend == "sdpa_flash"
        sets = [_expanded_operands(bench, point, batch, rows, context, padded=padded) for _ in range(count)]
        row = bench.time_candidate(candidate, sets, num_bytes, best)
        if row.get("error") is None:
            if row["repeats"] > 1:
                best = min(best or math.inf, row["median_s"])

            def small(candidate: Candidate = candidate, padded: bool = padded) -> float:
                few = (2, 197, 197 if rows == context else 327)
                query, key, value = _expanded_operands(bench, point, *few, padded=padded)
                reference = attention_reference(bench.torch, query, key, value[..., :values], causal=True)
                return relative_error(bench.torch, candidate.call(query, key, value)[..., :values], reference)

            key = f"latent_attention:expanded:{candidate.backend}:{heads}"
            row.update(bench.checks.verdict(key, "bf16", small, None))
        yield row
        with contextlib.suppress(Exception):
            del sets


def measure_latent(bench: Bench, point: Point) -> Iterator[Mapping[str, Any]]:
    """Time latent attention in the form that the point names."""
    if point.text("form") == "absorbed":
        yield from _measure_absorbed(bench, point)
    else:
        yield from _measure_expanded(bench, point)
