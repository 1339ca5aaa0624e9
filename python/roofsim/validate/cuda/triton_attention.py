"""Triton attention kernels: decode with a split KV axis, causal prefill aligned to the last key, merge of two parts.

Source of the algorithms: FlashAttention-2 (arXiv:2307.08691) and its split-KV form for decoding.
"""
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, allow-untyped-calls
# ruff: noqa: N803 - tile sizes are upper case, as in Triton's own kernels

import math
from typing import Any

import torch
import triton
import triton.language as tl

__all__ = ["DECODE_CONFIGS", "PREFILL_CONFIGS", "decode_split", "merge_parts", "prefill_causal"]

LOG2_E = 1.4426950408889634

# head width -> (keys of a block, warps, stages)
DECODE_CONFIGS = {64: ((128, 4, 4), (64, 4, 3)), 128: ((128, 4, 3), (64, 4, 3)), 256: ((64, 4, 3), (32, 4, 3))}
# head width -> (query rows, keys, warps, stages)
PREFILL_CONFIGS = {64: ((128, 128, 8, 3),), 128: ((128, 64, 8, 3), (128, 128, 8, 2)), 256: ((128, 64, 8, 2),)}


@triton.jit(do_not_specialize=["context", "splits", "group", "per_split"])
def _decode_kernel(
    query, key, value, out, part, part_lse, scale_log2, context, splits, group, per_split,
    ROWS: tl.constexpr, WIDTH: tl.constexpr, BLOCK: tl.constexpr, SINGLE: tl.constexpr,
):  # fmt: skip
    """Attend one KV head's packed query rows to one range of keys; scores are in units of log2."""
    head = tl.program_id(0).to(tl.int64)
    split = tl.program_id(1)
    first = split * per_split
    last = tl.minimum(first + per_split, context)
    rows = tl.arange(0, ROWS)
    columns = tl.arange(0, WIDTH)
    offsets = rows[:, None] * WIDTH + columns[None, :]
    used = rows[:, None] < group
    q = tl.load(query + head * group * WIDTH + offsets, mask=used, other=0.0)
    key_base = key + head * context * WIDTH
    value_base = value + head * context * WIDTH
    top = tl.full([ROWS], -float("inf"), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    acc = tl.zeros([ROWS, WIDTH], tl.float32)
    for start in range(first, last, BLOCK):
        keys = start + tl.arange(0, BLOCK)
        inside = keys < last
        k = tl.load(key_base + keys[None, :] * WIDTH + columns[:, None], mask=inside[None, :], other=0.0)
        v = tl.load(value_base + keys[:, None] * WIDTH + columns[None, :], mask=inside[:, None], other=0.0)
        scores = tl.dot(q, k) * scale_log2
        scores = tl.where(inside[None, :], scores, -float("inf"))
        new_top = tl.maximum(top, tl.max(scores, 1))
        weights = tl.math.exp2(scores - new_top[:, None])
        shrink = tl.math.exp2(top - new_top)
        total = total * shrink + tl.sum(weights, 1)
        acc = acc * shrink[:, None] + tl.dot(weights.to(v.dtype), v)
        top = new_top
    if SINGLE:
        result = acc / total[:, None]
        tl.store(out + head * group * WIDTH + offsets, result.to(out.dtype.element_ty), mask=used)
    else:
        empty = total == 0.0
        safe = tl.where(empty, 1.0, total)
        lse = tl.where(empty, -float("inf"), top + tl.math.log2(safe))
        slot = head * splits + split
        tl.store(part + slot * ROWS * WIDTH + offsets, acc / safe[:, None], mask=used)
        tl.store(part_lse + slot * ROWS + rows, lse, mask=rows < group)


@triton.jit(do_not_specialize=["splits", "group"])
def _reduce_kernel(
    part, part_lse, out, splits, group,
    ROWS: tl.constexpr, WIDTH: tl.constexpr, SPLITS: tl.constexpr,
):  # fmt: skip
    """Combine the ranges of one query row, weighted by their sums of exponentials."""
    head = tl.program_id(0).to(tl.int64)
    row = tl.program_id(1)
    ranges = tl.arange(0, SPLITS)
    columns = tl.arange(0, WIDTH)
    inside = ranges < splits
    slots = (head * splits + ranges) * ROWS + row
    lse = tl.load(part_lse + slots, mask=inside, other=-float("inf"))
    weights = tl.math.exp2(lse - tl.max(lse, 0))
    values = tl.load(part + slots[:, None] * WIDTH + columns[None, :], mask=inside[:, None], other=0.0)
    result = tl.sum(values * weights[:, None], 0) / tl.sum(weights, 0)
    tl.store(out + (head * group + row) * WIDTH + columns, result.to(out.dtype.element_ty))


def decode_split(query: Any, key: Any, value: Any, splits: int, config: tuple[int, int, int]) -> Any:
    """Decode attention: query [B, K, G, h], key and value [B, K, S, h], all contiguous; returns [B, K, G, h].

    Parameters
    ----------
    query, key, value
        Contiguous; the query group of each KV head is packed as rows.
    splits
        Ranges into which the keys are split.
    config
        (keys of a block, warps, stages).
    """
    batch, kv_heads, group, width = query.shape
    context = key.shape[2]
    block, warps, stages = config
    rows = max(16, triton.next_power_of_2(group))
    per_split = triton.cdiv(triton.cdiv(context, block), splits) * block
    splits = triton.cdiv(context, per_split)
    out = torch.empty_like(query)
    heads = batch * kv_heads
    single = splits == 1
    part = out if single else torch.empty((heads, splits, rows, width), dtype=torch.float32, device=query.device)
    lse = out if single else torch.empty((heads, splits, rows), dtype=torch.float32, device=query.device)
    _decode_kernel[(heads, splits)](
        query, key, value, out, part, lse, LOG2_E / math.sqrt(width), context, splits, group, per_split,
        ROWS=rows, WIDTH=width, BLOCK=block, SINGLE=single, num_warps=warps, num_stages=stages,
    )  # fmt: skip
    if not single:
        _reduce_kernel[(heads, group)](
            part, lse, out, splits, group,
            ROWS=rows, WIDTH=width, SPLITS=triton.next_power_of_2(splits), num_warps=4,
        )  # fmt: skip
    return out


@triton.jit
def _prefill_blocks(
    acc, total, top, q, key_base, value_base, first, last, limit, scale_log2, context,
    WIDTH: tl.constexpr, BLOCK: tl.constexpr, MASKED: tl.constexpr,
):  # fmt: skip
    """Fold the key blocks first..last into the running softmax; limit is each row's last visible key."""
    columns = tl.arange(0, WIDTH)
    for start in range(first, last, BLOCK):
        keys = start + tl.arange(0, BLOCK)
        if MASKED:
            k = tl.load(key_base + keys[None, :] * WIDTH + columns[:, None], mask=keys[None, :] < context, other=0.0)
            v = tl.load(value_base + keys[:, None] * WIDTH + columns[None, :], mask=keys[:, None] < context, other=0.0)
        else:
            k = tl.load(key_base + keys[None, :] * WIDTH + columns[:, None])
            v = tl.load(value_base + keys[:, None] * WIDTH + columns[None, :])
        scores = tl.dot(q, k) * scale_log2
        if MASKED:
            scores = tl.where(keys[None, :] <= limit[:, None], scores, -float("inf"))
        new_top = tl.maximum(top, tl.max(scores, 1))
        weights = tl.math.exp2(scores - new_top[:, None])
        shrink = tl.math.exp2(top - new_top)
        total = total * shrink + tl.sum(weights, 1)
        acc = acc * shrink[:, None]
        acc = tl.dot(weights.to(v.dtype), v, acc)
        top = new_top
    return acc, total, top


@triton.jit(do_not_specialize=["rows", "context", "heads", "group"])
def _prefill_kernel(
    query, key, value, out, scale_log2, rows, context, heads, group,
    WIDTH: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Causal attention of one tile of query rows, the longest tiles first."""
    tile = tl.num_programs(0) - 1 - tl.program_id(0)
    head = tl.program_id(1).to(tl.int64)
    kv_head = (head // heads) * (heads // group) + (head % heads) // group
    places = tile * ROWS + tl.arange(0, ROWS)
    columns = tl.arange(0, WIDTH)
    offsets = head * rows * WIDTH + places[:, None] * WIDTH + columns[None, :]
    used = places[:, None] < rows
    q = tl.load(query + offsets, mask=used, other=0.0)
    prefix = context - rows
    limit = places + prefix
    whole = (tile * ROWS + prefix + 1) // BLOCK * BLOCK
    last = tl.minimum((tile + 1) * ROWS + prefix, context)
    top = tl.full([ROWS], -float("inf"), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    acc = tl.zeros([ROWS, WIDTH], tl.float32)
    key_base = key + kv_head * context * WIDTH
    value_base = value + kv_head * context * WIDTH
    acc, total, top = _prefill_blocks(
        acc, total, top, q, key_base, value_base, 0, whole, limit, scale_log2, context, WIDTH, BLOCK, False
    )
    acc, total, top = _prefill_blocks(
        acc, total, top, q, key_base, value_base, whole, last, limit, scale_log2, context, WIDTH, BLOCK, True
    )
    tl.store(out + offsets, (acc / total[:, None]).to(out.dtype.element_ty), mask=used)


def prefill_causal(query: Any, key: Any, value: Any, config: tuple[int, int, int, int]) -> Any:
    """Causal attention aligned to the last key: query [B, H, T, h], key and value [B, K, S, h], contiguous."""
    batch, heads, rows, width = query.shape
    kv_heads, context = key.shape[1], key.shape[2]
    tile, block, warps, stages = config
    out = torch.empty_like(query)
    _prefill_kernel[(triton.cdiv(rows, tile), batch * heads)](
        query, key, value, out, LOG2_E / math.sqrt(width), rows, context, heads, heads // kv_heads,
        WIDTH=width, ROWS=tile, BLOCK=block, num_warps=warps, num_stages=stages,
    )  # fmt: skip
    return out


@triton.jit
def _merge_kernel(first, first_lse, second, second_lse, out, WIDTH: tl.constexpr, ROWS: tl.constexpr, count):
    """Weigh two partial attentions of the same rows by their natural log-sum-exp."""
    rows = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    columns = tl.arange(0, WIDTH)
    used = rows < count
    a = tl.load(first_lse + rows, mask=used, other=0.0)
    b = tl.load(second_lse + rows, mask=used, other=0.0)
    top = tl.maximum(a, b)
    weight_a, weight_b = tl.exp(a - top), tl.exp(b - top)
    offsets = rows[:, None] * WIDTH + columns[None, :]
    x = tl.load(first + offsets, mask=used[:, None], other=0.0).to(tl.float32)
    y = tl.load(second + offsets, mask=used[:, None], other=0.0).to(tl.float32)
    mixed = (x * weight_a[:, None] + y * weight_b[:, None]) / (weight_a + weight_b)[:, None]
    tl.store(out + offsets, mixed.to(out.dtype.element_ty), mask=used[:, None])


def merge_parts(first: Any, first_lse: Any, second: Any, second_lse: Any) -> Any:
    """Merge two partial attentions [B, H, T, h] with their log-sum-exps [B, H, T]; all contiguous."""
    width = first.shape[-1]
    count = first.numel() // width
    tile = 2048 // width
    out = torch.empty_like(first)
    _merge_kernel[(triton.cdiv(count, tile),)](
        first, first_lse, second, second_lse, out, WIDTH=width, ROWS=tile, count=count, num_warps=4
    )
    return out
