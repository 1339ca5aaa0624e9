"""Collective points: each operation over sizes from the latency floor to where the links are full."""

from __future__ import annotations

from .points import Point

__all__ = ["COLLECTIVE_OPS", "collective_points"]

COLLECTIVE_OPS = ("all_reduce", "all_gather", "reduce_scatter", "all_to_all")
SIZES = tuple(1 << power for power in range(14, 29))
"""16 KiB to 256 MiB."""


def collective_points(ranks: int) -> list[Point]:
    """Return the points of a group of `ranks` devices, small sizes first.

    `num_bytes` is the whole vector: what each rank holds before an all-reduce, a reduce-scatter or an all-to-all, and
    after an all-gather.
    """
    return [
        Point("collective", {"op": op, "dtype": "bf16", "num_bytes": size, "ranks": ranks}, {"shape_group": op})
        for size in SIZES
        for op in COLLECTIVE_OPS
    ]
