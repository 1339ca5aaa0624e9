"""Triton kernel of absorbed latent attention: all heads attend one cached latent and rotary key, its KV axis split.

Source of the algorithm: DeepSeek-V2 (arXiv:2405.04434), with the split-KV form of FlashAttention-2 for decoding.
"""
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, allow-untyped-calls
# ruff: noqa: N803 - tile sizes are upper case, as in Triton's own kernels

from typing import Any

import torch
import triton
import triton.language as tl

from .triton_attention import LOG2_E, _reduce_kernel

__all__ = ["LATENT_CONFIGS", "latent_decode"]

# (heads of a block, keys of a block, warps, stages)
LATENT_CONFIGS = ((16, 32, 4, 2), (64, 32, 8, 2), (64, 64, 8, 2))


@triton.jit(do_not_specialize=["context", "splits", "heads", "per_split"])
def _latent_kernel(
    latent_query, query, cache, out, part, part_lse, scale_log2, context, splits, heads, per_split,
    ROWS: tl.constexpr, RANK: tl.constexpr, NOPE: tl.constexpr, ROPE: tl.constexpr,
    BLOCK: tl.constexpr, SINGLE: tl.constexpr,
):  # fmt: skip
    """Attend a block of heads of one request to one range of its latents; scores are in units of log2."""
    blocks = tl.cdiv(heads, ROWS)
    group = tl.program_id(0).to(tl.int64)
    request = group // blocks
    split = tl.program_id(1)
    first = split * per_split
    last = tl.minimum(first + per_split, context)
    rows = tl.arange(0, ROWS)
    head = group % blocks * ROWS + rows
    used = (head < heads)[:, None]
    latent = tl.arange(0, RANK)
    rope = RANK + tl.arange(0, ROPE)
    width: tl.constexpr = RANK + ROPE
    row = (request * heads + head)[:, None]
    q = tl.load(latent_query + row * RANK + latent[None, :], mask=used, other=0.0)
    q_rope = tl.load(query + row * (NOPE + ROPE) + NOPE + tl.arange(0, ROPE)[None, :], mask=used, other=0.0)
    base = cache + request * context * width
    top = tl.full([ROWS], -float("inf"), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    acc = tl.zeros([ROWS, RANK], tl.float32)
    for start in range(first, last, BLOCK):
        keys = start + tl.arange(0, BLOCK)
        inside = keys < last
        k = tl.load(base + keys[:, None] * width + latent[None, :], mask=inside[:, None], other=0.0)
        k_rope = tl.load(base + keys[None, :] * width + rope[:, None], mask=inside[None, :], other=0.0)
        scores = tl.dot(q, tl.trans(k))
        scores = tl.dot(q_rope, k_rope, scores) * scale_log2
        scores = tl.where(inside[None, :], scores, -float("inf"))
        new_top = tl.maximum(top, tl.max(scores, 1))
        weights = tl.math.exp2(scores - new_top[:, None])
        shrink = tl.math.exp2(top - new_top)
        total = total * shrink + tl.sum(weights, 1)
        acc = acc * shrink[:, None] + tl.dot(weights.to(k.dtype), k)
        top = new_top
    if SINGLE:
        place = out + row * RANK + latent[None, :]
        tl.store(place, (acc / total[:, None]).to(out.dtype.element_ty), mask=used)
    else:
        empty = total == 0.0
        safe = tl.where(empty, 1.0, total)
        lse = tl.where(empty, -float("inf"), top + tl.math.log2(safe))
        slot = group * splits + split
        tl.store(part + slot * ROWS * RANK + rows[:, None] * RANK + latent[None, :], acc / safe[:, None], mask=used)
        tl.store(part_lse + slot * ROWS + rows, lse, mask=head < heads)


def latent_decode(
    latent_query: Any, query: Any, cache: Any, splits: int, config: tuple[int, int, int, int], scale: float
) -> Any:
    """Attend one new token a request in latent space; returns [B, H, rank].

    Parameters
    ----------
    latent_query
        [B, H, rank], contiguous: queries projected into latent space.
    query
        [B, H, nope + rope], contiguous: the queries themselves, of which the rotary part is read.
    cache
        [B, S, rank + rope], contiguous: latents, which are keys and values, then rotary keys.
    splits
        Ranges into which the keys are split.
    config
        (heads of a block, keys of a block, warps, stages); heads fill whole blocks or fit one.
    scale
        Of the scores.
    """
    batch, heads, rank = latent_query.shape
    context, width = cache.shape[1], cache.shape[2]
    nope = query.shape[2] - (width - rank)
    rows, block, warps, stages = config
    blocks = triton.cdiv(heads, rows)
    per_split = triton.cdiv(triton.cdiv(context, block), splits) * block
    splits = triton.cdiv(context, per_split)
    out = torch.empty((batch, heads, rank), dtype=query.dtype, device=query.device)
    single, groups = splits == 1, batch * blocks
    part = out if single else torch.empty((groups, splits, rows, rank), dtype=torch.float32, device=query.device)
    part_lse = out if single else torch.empty((groups, splits, rows), dtype=torch.float32, device=query.device)
    _latent_kernel[(groups, splits)](
        latent_query, query, cache, out, part, part_lse, scale * LOG2_E, context, splits, heads, per_split,
        ROWS=rows, RANK=rank, NOPE=nope, ROPE=width - rank, BLOCK=block, SINGLE=single,
        num_warps=warps, num_stages=stages,
    )  # fmt: skip
    if not single:
        _reduce_kernel[(groups, min(rows, heads))](
            part, part_lse, out, splits, min(rows, heads),
            ROWS=rows, WIDTH=rank, SPLITS=triton.next_power_of_2(splits), num_warps=4,
        )  # fmt: skip
    return out
