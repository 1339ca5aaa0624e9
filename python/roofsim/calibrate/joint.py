"""How the errors of a step's operations join: the correlation at which intervals of whole steps hold what they state."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from roofsim import Calibration
from roofsim.calibrate.bars import COVERAGE
from roofsim.calibrate.predict import costs

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from roofsim import Accelerator
    from roofsim.calibrate.observations import Observations

__all__ = ["join"]

CORRELATIONS = np.linspace(0.0, 1.0, 41)


def join(
    accelerator: Accelerator,
    tree: Mapping[str, Any],
    steps: Sequence[Observations],
    unseen_s: Sequence[NDArray[np.float64]],
    folds: Sequence[NDArray[np.int64]],
) -> tuple[float, list[float]]:
    """Return the correlation, and the coverage of each class with a correlation that its own fold had no part in.

    Parameters
    ----------
    accelerator
        The device.
    tree
        Its calibration as plain values, bars of single operations included.
    steps
        Measured steps by class.
    unseen_s
        Times predicted without the step's model, seconds.
    folds
        Fold of every step.
    """
    measured = np.concatenate([one.measured_s for one in steps])
    number = np.concatenate(list(folds))
    ratio = measured / np.concatenate(list(unseen_s))
    held = np.array([_inside(accelerator, tree, steps, ratio, correlation) for correlation in CORRELATIONS])
    chosen = np.zeros(len(measured), bool)
    for fold in np.unique(number):
        own = number == fold
        index = _least(held[:, ~own] if not own.all() else held)
        chosen[own] = held[index, own]
    ends = np.cumsum([len(one) for one in steps])[:-1]
    return float(CORRELATIONS[_least(held)]), [float(np.mean(part)) for part in np.split(chosen, ends)]


def _least(held: NDArray[np.bool_]) -> int:
    """Return the least correlation at which the stated share lies inside; the largest where none suffices."""
    enough = np.flatnonzero(held.mean(axis=1) >= COVERAGE)
    return int(enough[0]) if len(enough) else len(CORRELATIONS) - 1


def _inside(
    accelerator: Accelerator,
    tree: Mapping[str, Any],
    steps: Sequence[Observations],
    ratio: NDArray[np.float64],
    correlation: float,
) -> NDArray[np.bool_]:
    """Whether measured over unseen time lies in the interval, as a share of the prediction, at a correlation."""
    intervals = {**tree["intervals"], "correlation": float(correlation)}
    calibration = Calibration.load({k: v for k, v in {**tree, "intervals": intervals}.items() if v is not None})
    joined = [costs(accelerator.with_calibration(calibration), one) for one in steps]
    low = np.concatenate([cost["time_low_s"] / cost["time_s"] for cost in joined])
    high = np.concatenate([cost["time_high_s"] / cost["time_s"] for cost in joined])
    return np.asarray((ratio >= low) & (ratio <= high))
