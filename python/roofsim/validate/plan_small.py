"""Element-wise points and the device's constants (bandwidth, launches, transfers, power)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .points import Point, thin, unique

if TYPE_CHECKING:
    import random

__all__ = ["ELEMENTWISE_OPS", "elementwise_points", "system_points"]

STEADY_MILLISECONDS = 1000
ELEMENTWISE_OPS = ("rms_norm", "add_rms_norm", "silu_mul", "rotary", "residual_add", "embedding")
ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384)
WIDTHS = {
    "rms_norm": (2048, 3072, 4096, 5120, 8192),
    "add_rms_norm": (2048, 3072, 4096, 5120, 8192),
    "residual_add": (2048, 4096, 8192),
    "embedding": (2048, 4096, 8192),
    "silu_mul": (1792, 3072, 8192, 14336, 28672),
    "rotary": (10, 24, 40, 48, 72),  # rotated heads of a row (query and KV) times 128
}


def elementwise_points(rng: random.Random, *, count: int = 240) -> list[Point]:
    """Return fused element-wise kernels over rows x width, as an engine runs them between the matmuls."""
    points = [
        Point("elementwise", {"op": op, "dtype": "bf16", "rows": rows, "width": width}, {"shape_group": op})
        for op in ELEMENTWISE_OPS
        for rows in ROWS
        for width in WIDTHS[op]
    ]
    return thin(unique(points), count, rng)


def _system(op: str, **params: int | str) -> Point:
    return Point("system", {"op": op, **params}, {"shape_group": op})


def system_points(*, cuda: bool) -> list[Point]:
    """Return the constants in a fixed order: idle power first, while the device is still idle."""
    mebibytes = (1, 8, 64, 512, 2048) if cuda else (1, 8, 64, 256)
    copies = [_system("copy", num_bytes=size << 20) for size in mebibytes]
    reads = [_system("read", num_bytes=size << 20) for size in mebibytes]
    if not cuda:
        return [_system("launch_eager"), *copies, *reads]
    host = [_system("host_copy_ids", batch_size=batch) for batch in (1, 16, 64, 256, 1024)]
    burst = [_system("gemm_burst", dtype="bf16", m=8192, n=8192, k=8192), _system("read_burst")]
    steady = [
        _system("read_sustained", milliseconds=STEADY_MILLISECONDS),
        _system("gemm_sustained", dtype="bf16", m=8192, n=8192, k=8192, milliseconds=STEADY_MILLISECONDS),
    ]
    launches = [_system("launch_eager"), _system("launch_graph")]
    return [_system("power_idle", milliseconds=STEADY_MILLISECONDS), *launches, *host, *copies, *reads, *burst, *steady]
