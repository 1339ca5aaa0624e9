"""How the errors of a step's operations join: the correlation at which intervals of steps hold what they state."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from roofsim import Calibration
from roofsim.calibrate.bars import COVERAGE
from roofsim.calibrate.predict import costs

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from roofsim import Accelerator
    from roofsim.calibrate.observations import Observations

__all__ = ["join"]

CORRELATIONS = np.linspace(0.0, 1.0, 41)


def join(
    accelerator: Accelerator,
    tree: Mapping[str, Any],
    steps: Observations,
    unseen_s: NDArray[np.float64],
    folds: NDArray[np.int64],
) -> tuple[float, float]:
    """Return the correlation, and the coverage with correlations that a step's own fold had no part in.

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
        Fold of every step.
    """
    ratio = steps.measured_s / unseen_s
    held = np.array([_inside(accelerator, tree, steps, ratio, correlation) for correlation in CORRELATIONS])
    chosen = np.zeros(len(ratio), bool)
    for fold in np.unique(folds):
        own = folds == fold
        chosen[own] = held[_least(held[:, ~own] if not own.all() else held), own]
    return float(CORRELATIONS[_least(held)]), float(np.mean(chosen))


def _least(held: NDArray[np.bool_]) -> int:
    """Return the least correlation at which the stated share lies inside; the largest where none suffices."""
    enough = np.flatnonzero(held.mean(axis=1) >= COVERAGE)
    return int(enough[0]) if len(enough) else len(CORRELATIONS) - 1


def _inside(
    accelerator: Accelerator,
    tree: Mapping[str, Any],
    steps: Observations,
    ratio: NDArray[np.float64],
    correlation: float,
) -> NDArray[np.bool_]:
    """Whether measured over unseen time lies in the interval, as a share of the prediction, at a correlation."""
    both = {"decode_correlation": float(correlation), "prefill_correlation": float(correlation)}
    joined = {**tree, "intervals": {**tree["intervals"], **both}}
    calibration = Calibration.load({name: value for name, value in joined.items() if value is not None})
    cost = costs(accelerator.with_calibration(calibration), steps)
    return np.asarray((ratio >= cost["time_low_s"] / cost["time_s"]) & (ratio <= cost["time_high_s"] / cost["time_s"]))
