"""Powers of a device from the steady measurements of a file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from roofsim import _core

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from roofsim import Accelerator

__all__ = ["steady_power"]


def steady_power(accelerator: Accelerator, rows: Iterable[Mapping[str, Any]]) -> dict[str, float] | None:
    """Return idle, compute and memory power in watts, or None where a file holds no steady measurements.

    Idle, a steady read and a steady GEMM of a second each, by the energy counter.
    """
    steady = {row["op"]: row for row in rows if row["family"] == "system" and row.get("error") is None}
    try:
        idle, read, gemm = (steady[op] for op in ("power_idle", "read_sustained", "gemm_sustained"))
        idle_w, read_w, gemm_w = (float(row["power_w"]) for row in (idle, read, gemm))
    except (KeyError, TypeError):
        return None
    cost = accelerator.gemm(m=gemm["m"], n=gemm["n"], k=gemm["k"], dtype=gemm["dtype"])
    return _core._steady_power(
        accelerator,
        idle_w,
        (read_w, read["bytes"] / read["median_s"]),
        (gemm_w, cost.flops / gemm["median_s"], cost.bytes / gemm["median_s"]),
        gemm["dtype"],
    )


def steady_rate(rows: Iterable[Mapping[str, Any]]) -> float | None:
    """Return sustained over burst rate of compute, both of the same GEMM: what holds where no steps were measured."""
    times = {
        row["op"]: float(row["median_s"])
        for row in rows
        if row["family"] == "system" and row.get("error") is None and row.get("median_s")
    }
    try:
        return min(1.0, times["gemm_burst"] / times["gemm_sustained"])
    except KeyError:
        return None
