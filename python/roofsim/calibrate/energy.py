"""Powers of a device from the steady measurements of a file."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from roofsim import _core
from roofsim.calibrate.predict import costs

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from roofsim import Accelerator
    from roofsim.calibrate.steps import StepObservations

__all__ = ["steady_power"]


MIN_STEPS = 12
"""Fewer steps with their energy than this determine no power."""


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


def power_of_steps(accelerator: Accelerator, steps: Sequence[StepObservations]) -> dict[str, float] | None:
    """Return the powers that bring the energy of measured steps closest, in relative error, at the idle one.

    A steady read and a steady GEMM alone miss a step's kernels by 7 to 11%. None where too few steps were measured.

    Parameters
    ----------
    accelerator
        The device under its fitted calibration, power included.
    steps
        Measured steps, some with their energy under unbroken load.
    """
    held = [one for one in (each.under_load() for each in steps) if len(one)]
    if sum(map(len, held)) < MIN_STEPS:
        return None
    measured_j = np.concatenate([one.energy_j for one in held])
    limited = accelerator.calibration.sustained()
    tree = json.loads(limited.to_json())

    def joules(**watts: float) -> NDArray[np.float64]:
        power = {"idle_w": 0.0, "compute_w": 0.0, "memory_w": 0.0, **watts}
        under = accelerator.with_calibration({**tree, "power": power})
        return np.concatenate([costs(under, one)["energy_j"] for one in held])

    idle_w = float(tree["power"]["idle_w"])
    slopes = np.stack([joules(compute_w=1.0), joules(memory_w=1.0)], axis=1) / measured_j[:, None]
    watts = np.linalg.lstsq(slopes, 1.0 - joules(idle_w=idle_w) / measured_j, rcond=None)[0]
    if not (watts >= 0.0).all():
        return None
    return {"idle_w": idle_w, "compute_w": float(watts[0]), "memory_w": float(watts[1])}


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
