"""Triton kernel of a step: rotate queries and keys (normalised first where the model does) and write the KV cache."""
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, allow-untyped-calls
# ruff: noqa: N803 - tile sizes are upper case, as in Triton's own kernels

from typing import Any

import triton
import triton.language as tl

__all__ = ["rotary_cache"]

EPSILON = 1e-6
NORMS = {"none": 0, "head": 1, "row": 2}


@triton.jit(do_not_specialize=["rows", "context"])
def _rotary_cache_kernel(
    qkv, norm, cosine, sine, query, key, value, rows, context, heads, kv_heads, epsilon,
    NORM: tl.constexpr, HALF: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """One row and a block of its heads: queries first, then keys, then values."""
    row = tl.program_id(0).to(tl.int64)
    request = row // rows
    position = context - rows + row % rows
    head = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    columns = tl.arange(0, HALF)
    total = heads + 2 * kv_heads
    is_query = head < heads
    is_key = (head >= heads) & (head < heads + kv_heads)
    is_value = (head >= heads + kv_heads) & (head < total)
    at = qkv + (row * total + head[:, None]) * 2 * HALF + columns[None, :]
    inside = (head < total)[:, None]
    first = tl.load(at, mask=inside, other=0.0).to(tl.float32)
    second = tl.load(at + HALF, mask=inside, other=0.0).to(tl.float32)
    turned = is_query | is_key
    if NORM > 0:
        squares = tl.sum(first * first + second * second, 1)
        if NORM == 1:
            scale = tl.rsqrt(squares / (2 * HALF) + epsilon)
            # one weight of a head for the queries, one for the keys
            which = tl.where(is_query, 0, 1)[:, None] * 2 * HALF + columns[None, :]
        else:
            query_scale = tl.rsqrt(tl.sum(tl.where(is_query, squares, 0.0), 0) / (heads * 2 * HALF) + epsilon)
            key_scale = tl.rsqrt(tl.sum(tl.where(is_key, squares, 0.0), 0) / (kv_heads * 2 * HALF) + epsilon)
            scale = tl.where(is_query, query_scale, key_scale)
            which = head[:, None] * 2 * HALF + columns[None, :]
        gain_first = tl.load(norm + which, mask=turned[:, None], other=1.0).to(tl.float32)
        gain_second = tl.load(norm + which + HALF, mask=turned[:, None], other=1.0).to(tl.float32)
        scale = tl.where(turned, scale, 1.0)[:, None]
        first = first * scale * gain_first
        second = second * scale * gain_second
    c = tl.load(cosine + position * HALF + columns)[None, :]
    s = tl.load(sine + position * HALF + columns)[None, :]
    new_first = tl.where(turned[:, None], first * c - second * s, first).to(query.dtype.element_ty)
    new_second = tl.where(turned[:, None], second * c + first * s, second).to(query.dtype.element_ty)
    to_query = query + (row * heads + head[:, None]) * 2 * HALF + columns[None, :]
    tl.store(to_query, new_first, mask=is_query[:, None])
    tl.store(to_query + HALF, new_second, mask=is_query[:, None])
    slot = request * kv_heads + (head - heads)
    to_key = key + (slot[:, None] * context + position) * 2 * HALF + columns[None, :]
    tl.store(to_key, new_first, mask=is_key[:, None])
    tl.store(to_key + HALF, new_second, mask=is_key[:, None])
    value_slot = slot - kv_heads
    to_value = value + (value_slot[:, None] * context + position) * 2 * HALF + columns[None, :]
    tl.store(to_value, new_first, mask=is_value[:, None])
    tl.store(to_value + HALF, new_second, mask=is_value[:, None])


def rotary_cache(
    qkv: Any, norm: Any, cosine: Any, sine: Any, query: Any, key: Any, value: Any, *, norm_kind: str
) -> None:
    """Rotate queries and keys of new tokens and write keys and values to the end of the cache.

    Parameters
    ----------
    qkv
        [B T, (H + 2 K) h], contiguous.
    norm
        Weights of the query and key norms: [2, h] by head, [H + K, h] by row; any tensor without norms.
    cosine, sine
        float32 [positions, h/2].
    query
        Receives [B T, H h].
    key, value
        Caches [B, K, S, h], contiguous; the last T places are written.
    norm_kind
        "none", "head" (each head apart) or "row" (over all heads of a row).
    """
    batch, kv_heads, context, width = key.shape
    flat = qkv.shape[0]
    total = qkv.shape[1] // width
    heads = total - 2 * kv_heads
    block = triton.next_power_of_2(total) if norm_kind == "row" else 8
    _rotary_cache_kernel[(flat, triton.cdiv(total, block))](
        qkv, norm, cosine, sine, query, key, value, flat // batch, context, heads, kv_heads, EPSILON,
        NORM=NORMS[norm_kind], HALF=width // 2, BLOCK=block, num_warps=8 if block > 16 else 4,
    )  # fmt: skip
