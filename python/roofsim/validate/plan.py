"""Which points a run measures, in which order."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from .plan_attention import decode_points, prefill_points
from .plan_collective import visible_collective_points
from .plan_gemm import gemm_points
from .plan_latent import latent_points
from .plan_moe import grouped_gemm_points, small_grouped_gemm_points
from .plan_quick import quick_points
from .plan_small import elementwise_points, system_points
from .plan_step import step_points
from .points import Point, interleave, rounds, thin, unique

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["CPU_FAMILIES", "CUDA_FAMILIES", "build_plan"]

CUDA_FAMILIES = (
    "system",
    "gemm",
    "decode_attention",
    "prefill_attention",
    "latent_attention",
    "elementwise",
    "grouped_gemm",
    "step",
    "collective",
)
CPU_FAMILIES = ("system", "gemm", "decode_attention", "prefill_attention", "elementwise", "grouped_gemm", "step")
CPU_QUICK_SCALE = 0.12
MOST_CPU_WORK = 5e8
"""Product of a point's sizes: a tenth of a second on a slow core."""
HEAD_DIM = 128
ROOFLINE_BYTES = 64 << 20
FIRST_GEMMS = 24
"""As many points of a class as a fit needs."""


def _cuda_family(family: str, rng: random.Random, memory_bytes: float, num_devices: int) -> list[Point]:
    kv_bytes = min(16e9, 0.12 * memory_bytes)
    makers: dict[str, Callable[[], list[Point]]] = {
        "system": lambda: system_points(cuda=True),
        "gemm": lambda: gemm_points(rng),
        "decode_attention": lambda: decode_points(rng, count=400, max_kv_bytes=kv_bytes),
        "prefill_attention": lambda: prefill_points(rng, count=300, max_kv_bytes=kv_bytes),
        "latent_attention": lambda: latent_points(kv_bytes / 4),
        "elementwise": lambda: elementwise_points(rng, count=240),
        "grouped_gemm": lambda: grouped_gemm_points(rng),
        "step": lambda: step_points(memory_bytes),
        "collective": lambda: visible_collective_points(num_devices),
    }
    return makers[family]()


def _small(points: Sequence[Point], limit: float) -> list[Point]:
    """Keep points that a CPU computes in milliseconds."""

    def work(point: Point) -> float:
        size = 1.0
        for name in ("m", "n", "k", "batch_size", "query_tokens", "context_tokens", "num_heads", "head_dim"):
            value = point.params.get(name)
            size *= float(value) if isinstance(value, int) else 1.0
        width = float(str(point.params.get("width", 1))) * (HEAD_DIM if point.params.get("op") == "rotary" else 1)
        return size * float(str(point.params.get("rows", 1))) * width

    bound = {"elementwise": 4e6, "prefill_attention": limit / 8}
    return [point for point in points if work(point) <= bound.get(point.family, limit)]


def _as_fp32(points: Sequence[Point]) -> list[Point]:
    return unique(Point(point.family, {**point.params, "dtype": "fp32"}, point.labels) for point in points)


def _cpu_family(family: str, rng: random.Random, scale: float) -> list[Point]:
    if family == "system":
        return system_points(cuda=False)
    if family == "step":
        sizes = ((1, 1, 64), (4, 1, 64), (8, 1, 256), (16, 1, 512), (1, 32, 32), (1, 128, 128), (1, 64, 256))
        names = ("batch_size", "query_tokens", "context_tokens")
        label = {"shape_group": "tiny"}
        return [
            Point("step", {"model": "tiny", "dtype": "fp32", **dict(zip(names, size, strict=True))}, label)
            for size in sizes
        ]
    pools: dict[str, Callable[[], list[Point]]] = {
        "gemm": lambda: gemm_points(rng, dtypes=("bf16",)),
        "decode_attention": lambda: decode_points(rng, count=2000, max_kv_bytes=1e8),
        "prefill_attention": lambda: prefill_points(rng, count=2000, max_kv_bytes=1e8),
        "elementwise": lambda: elementwise_points(rng, count=2000),
        "grouped_gemm": small_grouped_gemm_points,
    }
    count = max(4, round(60 * scale))
    return thin(_as_fp32(_small(pools[family](), MOST_CPU_WORK)), count, rng)


def _first_needed(points: Sequence[Point]) -> list[Point]:
    """Put first what a CPU's roofline and a first fit need, so that a run cut short by its budget gives both.

    That is a read and a copy of one size, and as many GEMMs as a fit needs, small ones first.
    """
    gemms = [point for point in points if point.family == "gemm"][:FIRST_GEMMS]
    gemms.sort(key=lambda point: point.integer("m") * point.integer("n") * point.integer("k"))
    memory = [point for point in points if point.params.get("num_bytes") == ROOFLINE_BYTES]
    first = [*memory, *gemms]
    early = {point.point_id for point in first}
    return [*first, *(point for point in points if point.point_id not in early)]


def build_plan(
    backend: str,
    families: Sequence[str] | None = None,
    *,
    seed: int = 0,
    quick: bool = False,
    memory_bytes: float = 80e9,
    num_devices: int = 1,
) -> list[Point]:
    """Return the points of a run in measuring order.

    Parameters
    ----------
    backend
        "cuda" or "cpu".
    families
        Names of families; all of the backend's when absent.
    seed
        Fixes both the choice and the order of the points. Each family draws from its own stream, so that choosing
        families changes no point.
    quick
        A fifth of the points, those of a whole run of the same seed and memory: a run of about a minute. Without
        collectives, unless they are asked for; in an order that a budget may cut anywhere (`rounds`).
    memory_bytes
        Device memory: bounds the KV caches.
    num_devices
        Devices that the process sees: collectives need two.

    Raises
    ------
    ValueError
        A family the backend does not measure.
    """
    known = CUDA_FAMILIES if backend == "cuda" else CPU_FAMILIES
    chosen = list(families) if families else list(known)
    unknown = sorted(set(chosen) - set(known))
    if unknown:
        raise ValueError(f"families = {unknown}: must be among {list(known)}")
    scale = CPU_QUICK_SCALE if quick else 1.0
    plan: dict[str, list[Point]] = {}
    for family in chosen:
        rng = random.Random(f"{seed}:{family}")  # noqa: S311 - sampling shapes, not secrets
        if backend == "cuda":
            plan[family] = _cuda_family(family, rng, memory_bytes, num_devices)
            if quick and family == "collective" and not families:
                plan[family] = []
            elif quick and family != "collective":
                plan[family] = quick_points(family, plan[family], random.Random(f"{seed}:{family}:quick"))  # noqa: S311
        else:
            plan[family] = _cpu_family(family, rng, scale)
    if quick and backend == "cuda":
        return rounds(plan)
    points = interleave(plan, random.Random(f"{seed}:order"))  # noqa: S311
    return points if backend == "cuda" else _first_needed(points)
