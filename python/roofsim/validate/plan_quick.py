"""Which points and kernels of a whole run a quick one measures.

A minute is enough for some 790 points: the device needs milliseconds for most of them, and what costs is compiling and
planning kernels for shapes seen the first time; cuDNN plans each prompt for half a second. A quick run therefore takes
many GEMMs, fewer attention and expert points, the steps of two models, and leaves out kernels that hardly ever win:
without them the best time is longer by 0.5% on average (prefill attention 1.4%), measured on the whole runs of an H100
and an H200.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .points import Point, thin

if TYPE_CHECKING:
    import random
    from collections.abc import Mapping, Sequence

__all__ = ["QUICK_COUNTS", "QUICK_TILE_ROWS", "QUICK_WAVES", "keeps_kernel", "quick_points", "quick_rows"]

QUICK_COUNTS = {
    ("gemm", "bf16"): 300,
    ("gemm", "fp8"): 150,
    ("gemm", "fp16"): 30,
    ("gemm", "int8"): 40,
    ("decode_attention", "bf16"): 64,
    ("prefill_attention", "bf16"): 24,
    ("elementwise", "bf16"): 36,
    ("grouped_gemm", "bf16"): 90,
    ("grouped_gemm", "fp8"): 32,
    ("latent_attention", "bf16"): 0,
}
"""Points of each class and operand type."""
QUICK_STEPS = {
    ("llama-3.2-3b", "bf16", 1, 1, 2048), ("llama-3.2-3b", "bf16", 32, 1, 2048), ("llama-3.2-3b", "bf16", 64, 1, 1024),
    ("llama-3.2-3b", "bf16", 1, 512, 512), ("llama-3.2-3b", "bf16", 1, 2048, 2048),
    ("llama-3.2-3b", "fp8", 32, 1, 2048), ("llama-3.2-3b", "fp8", 1, 2048, 2048),
    ("olmoe-1b-7b", "bf16", 1, 1, 2048), ("olmoe-1b-7b", "bf16", 32, 1, 2048),
    ("olmoe-1b-7b", "bf16", 1, 512, 512), ("olmoe-1b-7b", "bf16", 1, 2048, 2048),
}  # fmt: skip
"""(model, operand type, requests, new tokens of each, context tokens of each)."""
QUICK_LOADED = {("llama-3.2-3b", "bf16", 1, 2048, 2048)}
"""Steps that are also measured under unbroken load, a second each."""
QUICK_SYSTEM = {
    "power_idle": None, "launch_eager": None, "launch_graph": None, "host_copy_ids": 64, "copy": 512 << 20,
    "read": 512 << 20, "gemm_burst": None, "read_burst": None, "read_sustained": None, "gemm_sustained": None,
}  # fmt: skip
"""Constants of the device, and the one size at which they are read."""
QUICK_MILLISECONDS = 400

QUICK_WAVES = 2
"""Decode attention: as many counts of KV splits are tried."""
QUICK_TILE_ROWS = 32
"""Grouped GEMM: Triton tiles of at most so many rows; torch's own kernel serves more rows an expert."""
BACKENDS = {
    "decode_attention": ("triton_split",),
    "prefill_attention": ("sdpa_cudnn", "cudnn_parts", "sdpa_flash"),
}


def _step_key(values: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(values.get(name) for name in ("model", "dtype", "batch_size", "query_tokens", "context_tokens"))


def quick_points(family: str, points: Sequence[Point], rng: random.Random) -> list[Point]:
    """Return the points of one family that a quick run takes from those of a whole one.

    Parameters
    ----------
    family
        Family of all points.
    points
        The whole run's.
    rng
        Fixes the choice.
    """
    if family == "system":
        kept = []
        for point in points:
            size = point.params.get("num_bytes", point.params.get("batch_size"))
            op = point.text("op")
            if op in QUICK_SYSTEM and QUICK_SYSTEM[op] in (None, size):
                shorter = {"milliseconds": QUICK_MILLISECONDS} if "milliseconds" in point.params else {}
                kept.append(Point("system", {**point.params, **shorter}, point.labels))
        return kept
    if family == "step":
        return [
            Point("step", point.params, {**point.labels, "sustained": _step_key(point.params) in QUICK_LOADED})
            for point in points
            if _step_key(point.params) in QUICK_STEPS
        ]
    chosen: list[Point] = []
    for dtype in dict.fromkeys(str(point.params["dtype"]) for point in points):
        own = [point for point in points if point.params["dtype"] == dtype]
        chosen += thin(own, QUICK_COUNTS.get((family, dtype), len(own)), rng)
    return chosen


def keeps_kernel(family: str, backend: str | None, tile: object = None) -> bool:
    """Whether a quick run times a kernel, by its name and tile in the record: (rows, ...) of a grouped GEMM."""
    if family == "grouped_gemm":
        return not isinstance(tile, list) or int(tile[0]) <= QUICK_TILE_ROWS
    return family not in BACKENDS or backend in BACKENDS[family]


def quick_rows(rows: Sequence[Mapping[str, Any]], points: Sequence[Point]) -> list[Mapping[str, Any]]:
    """Return the rows of a whole run that a quick run of these points would have written.

    Counts of KV splits are the least ones of each point; the rest follows `keeps_kernel`.
    """
    chosen = {point.point_id for point in points}
    kept = [
        row
        for row in rows
        if row["point_id"] in chosen and keeps_kernel(str(row["family"]), row.get("backend"), row.get("tile"))
    ]
    splits: dict[str, set[int]] = {}
    for row in kept:
        if row.get("splits") is not None and row["family"] == "decode_attention":
            splits.setdefault(str(row["point_id"]), set()).add(int(row["splits"]))
    fewest = {key: sorted(counts)[:QUICK_WAVES] for key, counts in splits.items()}
    return [
        row
        for row in kept
        if row["family"] != "decode_attention" or row.get("splits") in fewest.get(str(row["point_id"]), ())
    ]
