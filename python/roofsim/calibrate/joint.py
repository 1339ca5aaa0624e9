"""How the errors of a step's operations join: correlation and scale at which intervals of steps hold what they state."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from roofsim import Calibration
from roofsim.calibrate.bars import LEAST_SIZE, LEVELS, enough, even_weights, quantile
from roofsim.calibrate.predict import costs

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from roofsim import Accelerator
    from roofsim.calibrate.observations import Observations

__all__ = ["Join", "join"]

CORRELATIONS = np.linspace(0.0, 1.0, 21)
MIN_KIND = 20
"""Steps of dense models and of mixtures count alike where there are as many of each."""


@dataclass(frozen=True)
class Join:
    """How the half-widths of operations make the one of a step.

    Attributes
    ----------
    correlation
        Of the errors of different operations.
    scale
        Share of the joint half-width that remains.
    held
        Which steps lay inside bars that their model had no part in.
    """

    correlation: float
    scale: float
    held: NDArray[np.bool_]


def join(
    accelerator: Accelerator,
    tree: Mapping[str, Any],
    steps: Observations,
    unseen_s: NDArray[np.float64],
    folds: NDArray[np.int64],
) -> Join:
    """Fit the correlation by likelihood, then the scale so that bars hold what they state of models left out.

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
    error = steps.measured_s / unseen_s - 1.0
    weights = even_weights(steps.labels, MIN_KIND)
    # Residuals over the half-width on their side, one row a correlation.
    widths = np.array([_half_widths(accelerator, tree, steps, error, rho) for rho in CORRELATIONS])
    ratios = np.abs(error) / widths

    def chosen(seen: NDArray[np.bool_], level: float) -> tuple[int, float]:
        """Return the likeliest correlation and its scale; a larger one where bars would have to grow."""
        likely = _likeliest(widths[:, seen], np.abs(error[seen]), weights[seen])
        for index in range(likely, len(CORRELATIONS)):
            scale = quantile(ratios[index, seen], weights[seen], level)
            if scale <= 1.0:
                return index, scale
        return len(CORRELATIONS) - 1, 1.0

    def held(level: float) -> NDArray[np.bool_]:
        inside = np.zeros(len(error), bool)
        for fold in np.unique(folds):
            own = folds == fold
            index, scale = chosen(np.ones_like(own) if own.all() else ~own, level)
            inside[own] = ratios[index, own] <= scale
        return inside

    for level in LEVELS:
        inside = held(float(level))
        if enough(inside, steps.labels, MIN_KIND):
            break
    index, scale = chosen(np.ones(len(error), bool), float(level))
    return Join(float(CORRELATIONS[index]), float(f"{scale:.4g}"), inside)


def _likeliest(widths: NDArray[np.float64], sizes: NDArray[np.float64], weights: NDArray[np.float64]) -> int:
    """Return the row of widths under which residuals of this size are likeliest, as Laplace's with one free scale."""
    sizes, weights = np.maximum(sizes, LEAST_SIZE), weights / weights.sum()
    losses = [weights @ np.log(width) + np.log(weights @ (sizes / width)) for width in widths]
    return int(np.argmin(losses))


def _half_widths(
    accelerator: Accelerator,
    tree: Mapping[str, Any],
    steps: Observations,
    error: NDArray[np.float64],
    correlation: float,
) -> NDArray[np.float64]:
    """Return the half-width at a correlation on the side where each step's error lies, as a share of the prediction."""
    fields = {"correlation": float(correlation), "scale": 1.0}
    both = {f"{kind}_{name}": value for kind in ("decode", "prefill") for name, value in fields.items()}
    joined = {**tree, "intervals": {**tree["intervals"], **both}}
    calibration = Calibration.load({name: value for name, value in joined.items() if value is not None})
    cost = costs(accelerator.with_calibration(calibration), steps)
    above, below = cost["time_high_s"] / cost["time_s"] - 1.0, 1.0 - cost["time_low_s"] / cost["time_s"]
    return np.asarray(np.maximum(np.where(error > 0.0, above, below), 1e-9))
