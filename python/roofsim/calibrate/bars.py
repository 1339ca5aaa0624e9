"""Error bars from residuals on unseen shapes, and whether they hold what they state."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["COVERAGE", "bar", "held_coverage", "measured_range"]

COVERAGE = 0.8
MARGIN = 0.02
"""Quantiles are taken for a little more than what is stated: the points of tomorrow are further off than those of today."""


def bar(residuals: NDArray[np.float64], coverage: float = COVERAGE) -> dict[str, Any]:
    """Return `below` and `above`, fractions of the prediction between which the stated share of residuals lies.

    Parameters
    ----------
    residuals
        ln(measured / predicted) of points that the fit did not see.
    coverage
        Stated share.
    """
    tail = 0.5 * (1.0 - min(coverage + MARGIN, 0.999))
    low, high = np.quantile(residuals, [tail, 1.0 - tail])
    return {"below": _rounded(max(0.0, -np.expm1(low))), "above": _rounded(max(0.0, np.expm1(high)))}


def _rounded(width: float) -> float:
    return float(f"{width:.4g}")


def inside(residuals: NDArray[np.float64], bars: dict[str, Any], ideal_ratio: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Whether measured times lie in their bars, the lower end cut at the ideal time (as a share of the prediction)."""
    ratio = np.exp(residuals)
    return (ratio >= np.maximum(1.0 - bars["below"], ideal_ratio)) & (ratio <= 1.0 + bars["above"])


def held_coverage(residuals: NDArray[np.float64], folds: NDArray[np.int64], ideal_ratio: NDArray[np.float64]) -> float:
    """Return the share of points inside bars that were made without their fold: coverage on data that neither the
    constants nor the bars have seen.
    """
    held = np.zeros(len(residuals), bool)
    for fold in np.unique(folds):
        own = folds == fold
        if own.all():
            return float("nan")
        held[own] = inside(residuals[own], bar(residuals[~own]), ideal_ratio[own])
    return float(np.mean(held))


def measured_range(flops: NDArray[np.float64], num_bytes: NDArray[np.float64]) -> dict[str, list[float]]:
    """Return the sizes between which a class was measured."""
    return {
        "flops": [float(flops.min()), float(flops.max())],
        "bytes": [float(num_bytes.min()), float(num_bytes.max())],
    }
