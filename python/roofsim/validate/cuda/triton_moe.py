"""Triton kernels of a mixture-of-experts layer: route, sort rows by expert, grouped GEMM, combine.

The grouped GEMM takes rows sorted by expert and, for each tile of rows, the expert and the range of rows it covers.
It reads its left operand either in that order or gathered from the tokens, so that no permuted copy is needed.
"""
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, allow-untyped-calls
# ruff: noqa: N803 - tile sizes are upper case, as in Triton's own kernels

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl

__all__ = [
    "TileConfig",
    "Tiles",
    "combine",
    "gather_rows",
    "grouped_matmul",
    "max_tiles",
    "route",
    "sort_rows",
    "tile_configs",
]

SORT_BLOCK = 64


class TileConfig(NamedTuple):
    """Rows, columns and depth of a tile, warps and pipeline stages."""

    rows: int
    columns: int
    depth: int
    warps: int
    stages: int


class Tiles(NamedTuple):
    """Expert (or -1), first row and end row of each tile of rows."""

    expert: Any
    first: Any
    last: Any


NARROW = (TileConfig(16, 64, 256, 4, 3), TileConfig(16, 128, 128, 4, 4))
MIDDLE = (TileConfig(32, 128, 128, 4, 3), TileConfig(64, 128, 64, 4, 4))
WIDE = (TileConfig(64, 256, 64, 8, 3), TileConfig(128, 128, 64, 8, 3))


def tile_configs(rows_per_expert: float) -> tuple[TileConfig, ...]:
    """Return the configurations worth trying for a mean number of rows an expert."""
    if rows_per_expert <= 12:
        return NARROW
    if rows_per_expert <= 40:
        return (NARROW[1], *MIDDLE)
    if rows_per_expert <= 128:
        return (MIDDLE[1], *WIDE)
    return WIDE


def max_tiles(routed_rows: int, num_experts: int, tile_rows: int) -> int:
    """Return the most tiles that any routing of the rows can need."""
    return routed_rows // tile_rows + min(num_experts, routed_rows)


@triton.jit(do_not_specialize=["tiles"])
def _grouped_kernel(
    x, w, out, source, tile_expert, tile_first, tile_last, n, k, tiles,
    GATHER: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr, GROUP: tl.constexpr,
    EVEN: tl.constexpr,
):  # fmt: skip
    """Compute out[r] = x[r] w[expert of r]^T for one tile of rows and columns."""
    program = tl.program_id(0)
    column_tiles = tl.cdiv(n, COLUMNS)
    band = GROUP * column_tiles
    band_first = program // band * GROUP
    band_size = tl.minimum(tiles - band_first, GROUP)
    tile = band_first + (program % band) % band_size
    column = (program % band) // band_size
    expert = tl.load(tile_expert + tile).to(tl.int64)
    if expert < 0:
        return
    rows = tl.load(tile_first + tile) + tl.arange(0, ROWS)
    used = rows < tl.load(tile_last + tile)
    if GATHER:  # noqa: SIM108 - a branch of compilation
        origin = tl.load(source + rows, mask=used, other=0).to(tl.int64)
    else:
        origin = tl.where(used, rows, 0).to(tl.int64)
    columns = column * COLUMNS + tl.arange(0, COLUMNS)
    inside = columns < n
    wrapped = tl.where(inside, columns, 0)
    depth = tl.arange(0, DEPTH)
    x_at = x + origin[:, None] * k + depth[None, :]
    w_at = w + expert * n * k + wrapped[None, :] * k + depth[:, None]
    acc = tl.zeros([ROWS, COLUMNS], tl.float32)
    for start in range(0, k, DEPTH):
        if EVEN:
            a = tl.load(x_at)
            b = tl.load(w_at)
        else:
            a = tl.load(x_at, mask=depth[None, :] < k - start, other=0.0)
            b = tl.load(w_at, mask=depth[:, None] < k - start, other=0.0)
        acc = tl.dot(a, b, acc)
        x_at += DEPTH
        w_at += DEPTH
    place = rows.to(tl.int64)[:, None] * n + columns[None, :]
    tl.store(out + place, acc.to(out.dtype.element_ty), mask=used[:, None] & inside[None, :])


def grouped_matmul(x: Any, w: Any, out: Any, source: Any, tiles: Tiles, config: TileConfig) -> Any:
    """Multiply each row by its expert's weights: out[r] = x[r] w[expert of r]^T.

    Parameters
    ----------
    x
        [rows, k] sorted by expert, or [tokens, k] where `source` is given.
    w
        [experts, n, k].
    out
        [rows, n], rows sorted by expert.
    source
        int32 [rows]: row of x of each sorted row; None where x is sorted already.
    tiles
        Each an int32 tensor of one length; made for `config.rows`.
    config
        Tile sizes.
    """
    _, n, k = w.shape
    count = tiles.expert.shape[0]
    _grouped_kernel[(count * triton.cdiv(n, config.columns),)](
        x, w, out, tiles.expert if source is None else source, tiles.expert, tiles.first, tiles.last, n, k, count,
        GATHER=source is not None, ROWS=config.rows, COLUMNS=config.columns, DEPTH=config.depth, GROUP=16,
        EVEN=k % config.depth == 0, num_warps=config.warps, num_stages=config.stages,
    )  # fmt: skip
    return out


@triton.jit
def _route_kernel(
    scores, ids, weights, ranks, counts, num_experts, TOP: tl.constexpr, EXPERTS: tl.constexpr,
):  # fmt: skip
    """Softmax and top-k of one row; each choice takes the next free place among its expert's rows."""
    row = tl.program_id(0).to(tl.int64)
    experts = tl.arange(0, EXPERTS)
    values = tl.load(scores + row * num_experts + experts, mask=experts < num_experts, other=-float("inf"))
    values = values.to(tl.float32)
    powers = tl.exp(values - tl.max(values, 0))
    shares = powers / tl.sum(powers, 0)
    for place in tl.static_range(TOP):
        best = tl.argmax(shares, 0)
        share = tl.max(shares, 0)
        rank = tl.atomic_add(counts + best, 1)
        tl.store(ids + row * TOP + place, best)
        tl.store(weights + row * TOP + place, share)
        tl.store(ranks + row * TOP + place, rank)
        shares = tl.where(experts == best, -1.0, shares)


def route(scores: Any, ids: Any, weights: Any, ranks: Any, counts: Any) -> None:
    """Choose experts of each row.

    Parameters
    ----------
    scores
        [rows, experts].
    ids, ranks
        int32 [rows, top]: expert of each choice, and its place among that expert's rows.
    weights
        float32 [rows, top]: the softmax shares.
    counts
        int32 [experts], zero beforehand: rows of each expert.
    """
    rows, num_experts = scores.shape
    _route_kernel[(rows,)](
        scores, ids, weights, ranks, counts, num_experts,
        TOP=ids.shape[1], EXPERTS=triton.next_power_of_2(num_experts), num_warps=1 if num_experts <= 128 else 4,
    )  # fmt: skip


@triton.jit(do_not_specialize=["slots", "tiles", "num_experts"])
def _sort_kernel(
    ids, ranks, counts, source, place, ends, tile_expert, tile_first, tile_last, slots, tiles, num_experts,
    TOP: tl.constexpr, EXPERTS: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Give each choice its sorted row, and each tile its expert and rows; every program sums the counts anew."""
    experts = tl.arange(0, EXPERTS)
    count = tl.load(counts + experts, mask=experts < num_experts, other=0)
    after = tl.cumsum(count, 0)
    needed = (count + ROWS - 1) // ROWS
    tiles_after = tl.cumsum(needed, 0)
    here = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = here < slots
    expert = tl.load(ids + here, mask=inside, other=0)
    rank = tl.load(ranks + here, mask=inside, other=0)
    first = tl.sum(tl.where(expert[:, None] == experts[None, :], (after - count)[None, :], 0), 1)
    tl.store(source + first + rank, here // TOP, mask=inside)
    tl.store(place + here, first + rank, mask=inside)
    # tiles: the expert of a tile is the number of experts whose tiles end at or before it
    owner = tl.sum(tl.where(tiles_after[None, :] <= here[:, None], 1, 0), 1)
    mine = owner[:, None] == experts[None, :]
    row_first = tl.sum(tl.where(mine, (after - count)[None, :], 0), 1)
    row_last = tl.sum(tl.where(mine, after[None, :], 0), 1)
    tile_start = tl.sum(tl.where(mine, (tiles_after - needed)[None, :], 0), 1)
    exists = owner < num_experts
    listed = here < tiles
    tl.store(tile_expert + here, tl.where(exists, owner, -1), mask=listed)
    tl.store(tile_first + here, row_first + (here - tile_start) * ROWS, mask=listed)
    tl.store(tile_last + here, row_last, mask=listed)
    if tl.program_id(0) == 0:
        tl.store(ends + experts, after, mask=experts < num_experts)


def sort_rows(ids: Any, ranks: Any, counts: Any, source: Any, place: Any, ends: Any, tiles: Tiles, rows: int) -> None:
    """Turn choices into sorted rows.

    Parameters
    ----------
    ids, ranks, counts
        From `route`.
    source
        int32 [tokens x top]: token of each sorted row.
    place
        int32 [tokens, top]: sorted row of each choice.
    ends
        int32 [experts]: end row of each expert.
    tiles
        Filled for tiles of `rows` rows.
    """
    slots, count, num_experts = ids.numel(), tiles.expert.shape[0], counts.shape[0]
    grid = (triton.cdiv(max(slots, count), SORT_BLOCK),)
    _sort_kernel[grid](
        ids, ranks, counts, source, place, ends, tiles.expert, tiles.first, tiles.last, slots, count, num_experts,
        TOP=ids.shape[1], EXPERTS=triton.next_power_of_2(num_experts), ROWS=rows, BLOCK=SORT_BLOCK, num_warps=4,
    )  # fmt: skip


@triton.jit
def _combine_kernel(y, place, weights, out, width, TOP: tl.constexpr, BLOCK: tl.constexpr):
    """Sum one token's expert outputs, weighted."""
    row = tl.program_id(0).to(tl.int64)
    columns = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = columns < width
    total = tl.zeros([BLOCK], tl.float32)
    for choice in tl.static_range(TOP):
        where = tl.load(place + row * TOP + choice).to(tl.int64)
        share = tl.load(weights + row * TOP + choice)
        total += share * tl.load(y + where * width + columns, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + row * width + columns, total.to(out.dtype.element_ty), mask=inside)


def combine(y: Any, place: Any, weights: Any, out: Any) -> Any:
    """Weighted sum over a token's experts: y [rows, width] sorted by expert -> out [tokens, width]."""
    tokens, width = out.shape
    block = 1024 if tokens >= 64 else 256
    _combine_kernel[(tokens, triton.cdiv(width, block))](
        y, place, weights, out, width, TOP=place.shape[1], BLOCK=block, num_warps=4
    )
    return out


@triton.jit
def _gather_kernel(x, source, out, width, BLOCK: tl.constexpr):
    """Copy one gathered row."""
    row = tl.program_id(0).to(tl.int64)
    columns = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = columns < width
    origin = tl.load(source + row).to(tl.int64)
    tl.store(out + row * width + columns, tl.load(x + origin * width + columns, mask=inside), mask=inside)


def gather_rows(x: Any, source: Any, out: Any) -> Any:
    """Permute: out[r] = x[source[r]]."""
    rows, width = out.shape
    _gather_kernel[(rows, triton.cdiv(width, 1024))](x, source, out, width, BLOCK=1024, num_warps=4)
    return out


def empty_tiles(routed_rows: int, num_experts: int, tile_rows: int, device: Any) -> Tiles:
    """Return tensors for the most tiles that a routing can need."""
    count = max_tiles(routed_rows, num_experts, tile_rows)
    return Tiles(*(torch.empty(count, dtype=torch.int32, device=device) for _ in Tiles._fields))
