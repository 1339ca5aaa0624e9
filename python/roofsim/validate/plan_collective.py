"""Collective points: each operation over sizes from the latency floor to where the links are full."""

from __future__ import annotations

from .points import Point

__all__ = ["COLLECTIVE_OPS", "collective_points", "visible_collective_points"]

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


def visible_collective_points(num_devices: int) -> list[Point]:
    """Return the points of groups of 2, 4, 8 ... of the visible devices; of one device a single point, to be skipped.

    Its row says why there are no others.
    """
    if num_devices < 2:
        return collective_points(2)[:1]
    sizes = [1 << power for power in range(1, num_devices.bit_length())]
    return [point for ranks in sizes if ranks <= num_devices for point in collective_points(ranks)]
