"""How the errors of a step's operations join: what bars of steps need to hold what they state of unseen models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from roofsim import Calibration
from roofsim.calibrate.bars import LEAST_SIZE, Half, honest_level, quantile, spread
from roofsim.calibrate.predict import costs

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from roofsim import Accelerator
    from roofsim.calibrate.observations import Observations

__all__ = ["join"]

CORRELATIONS = np.linspace(0.0, 1.0, 11)
MOST_SCALE = 0.9


def join(
    accelerator: Accelerator,
    tree: Mapping[str, Any],
    steps: Observations,
    unseen_s: NDArray[np.float64],
    folds: NDArray[np.int64],
) -> tuple[dict[str, dict[str, float]], NDArray[np.bool_]]:
    """Return how half-widths join, by name in a calibration file, and which steps lie in bars made without their model.

    Correlation, scale and share are the likeliest ones under Laplace's distribution, then scaled until enough is held
    of models left out; steps of dense models and of mixtures apart.

    Parameters
    ----------
    accelerator
        The device.
    tree
        Its calibration as plain values, bars of single operations included.
    steps
        Measured steps of one class.
    unseen_s
        Times predicted without the step's model, seconds.
    folds
        Fold of every step: its model.
    """
    error = steps.measured_s / unseen_s - 1.0
    # One row a correlation.
    widths = np.array([_half_widths(accelerator, tree, steps, error, rho) for rho in CORRELATIONS])
    joints, held = {}, np.zeros(len(error), bool)
    for kind in np.unique(steps.labels):
        own = steps.labels == kind
        joint, held[own] = _honest_joint(np.abs(error[own]), widths[:, own], folds[own])
        joints[f"moe_{steps.family}" if kind == "moe" else steps.family] = joint
    if steps.family not in joints:
        joints[steps.family] = joints[f"moe_{steps.family}"]
    return joints, held


def _honest_joint(
    sizes: NDArray[np.float64], widths: NDArray[np.float64], folds: NDArray[np.int64]
) -> tuple[dict[str, float], NDArray[np.bool_]]:
    everything = np.ones(len(sizes), bool)
    seen = {int(fold): everything if (folds == fold).all() else folds != fold for fold in np.unique(folds)}
    forms = {fold: _likeliest(sizes[chosen], widths[:, chosen]) for fold, chosen in seen.items()}

    def scaled(form: tuple[int, Half], chosen: NDArray[np.bool_], level: float) -> Half:
        row, half = form
        width, size, even = widths[row, chosen], sizes[chosen], np.ones(int(chosen.sum()))
        half = half.scaled(quantile(size / half.of(_parts(width)), even, level))
        if sum(half.coefficients.values()) <= 1.0:
            return half
        # Scale and share make at most 1: what the operations' bars lack, the share makes up for.
        scale = min(half.coefficients.get("scale", 0.0), MOST_SCALE)
        share = quantile(size - scale * width, even, level)
        return Half({"scale": scale, "share": min(max(share, 0.0), 1.0 - scale)})

    def holds(level: float) -> NDArray[np.bool_]:
        held = np.zeros(len(sizes), bool)
        for fold, form in forms.items():
            own = folds == fold
            held[own] = sizes[own] <= scaled(form, seen[fold], level).of(_parts(widths[form[0], own]))
        return held

    level, held = honest_level(holds, np.full(len(sizes), ""))
    form = _likeliest(sizes, widths)
    values = scaled(form, everything, level).coefficients
    scale, share = (float(f"{values.get(name, 0.0):.4g}") for name in ("scale", "share"))
    return {"correlation": float(CORRELATIONS[form[0]]), "scale": scale, "share": share}, held


def _parts(width: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    return {"scale": width, "share": np.ones(len(width))}


def _likeliest(sizes: NDArray[np.float64], widths: NDArray[np.float64]) -> tuple[int, Half]:
    """Return the row of widths, with a share of the time, under which residuals are likeliest, and that spread."""
    sizes, even = np.maximum(sizes, LEAST_SIZE), np.ones(len(sizes))
    halves = [spread(_parts(width), sizes, even) for width in widths]
    spreads = [half.of(_parts(width)) for half, width in zip(halves, widths, strict=True)]
    row = int(np.argmin([np.mean(np.log(each) + sizes / each) for each in spreads]))
    return row, halves[row]


def _half_widths(
    accelerator: Accelerator,
    tree: Mapping[str, Any],
    steps: Observations,
    error: NDArray[np.float64],
    correlation: float,
) -> NDArray[np.float64]:
    """Return the half-width at a correlation on the side where each step's error lies, as a share of the prediction."""
    alone = dict.fromkeys(("decode_step", "prefill_step"), float(correlation))
    joined = {**tree, "intervals": {**tree["intervals"], **alone}}
    for name in ("moe_decode_step", "moe_prefill_step"):
        joined["intervals"].pop(name, None)
    calibration = Calibration.load({name: value for name, value in joined.items() if value is not None})
    cost = costs(accelerator.with_calibration(calibration), steps)
    above, below = cost["time_high_s"] / cost["time_s"] - 1.0, 1.0 - cost["time_low_s"] / cost["time_s"]
    return np.asarray(np.maximum(np.where(error > 0.0, above, below), 1e-6))
