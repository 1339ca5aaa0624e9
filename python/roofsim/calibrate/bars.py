"""Error bars from residuals on unseen shapes, and whether they hold what they state."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["COVERAGE", "bar", "held_coverage", "honest_bar", "measured_range"]

COVERAGE = 0.8
LEVELS = np.arange(0.80, 0.961, 0.01)
"""Shares between which quantiles are taken: points of unseen shapes are further off than those of the others."""


def bar(residuals: NDArray[np.float64], share: float = COVERAGE) -> dict[str, Any]:
    """Return `below` and `above`, fractions of the prediction between which a share of residuals lies.

    Parameters
    ----------
    residuals
        ln(measured / predicted) of points that the fit did not see.
    share
        Half of the rest lies on either side.
    """
    tail = 0.5 * (1.0 - share)
    low, high = np.quantile(residuals, [tail, 1.0 - tail])
    return {"below": _rounded(max(0.0, -np.expm1(low))), "above": _rounded(max(0.0, np.expm1(high)))}


def _rounded(width: float) -> float:
    return float(f"{width:.4g}")


def inside(residuals: NDArray[np.float64], bars: dict[str, Any], ideal_ratio: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Whether measured times lie in their bars, the lower end cut at the ideal time (as a share of the prediction)."""
    ratio = np.exp(residuals)
    return np.asarray((ratio >= np.maximum(1.0 - bars["below"], ideal_ratio)) & (ratio <= 1.0 + bars["above"]))


def held_coverage(
    residuals: NDArray[np.float64], folds: NDArray[np.int64], ideal_ratio: NDArray[np.float64], share: float
) -> float:
    """Return the share of points inside bars that were made without their fold.

    That is coverage on data which neither the constants nor the bars have seen.
    """
    held = np.zeros(len(residuals), bool)
    for fold in np.unique(folds):
        own = folds == fold
        seen = residuals if own.all() else residuals[~own]
        held[own] = inside(residuals[own], bar(seen, share), ideal_ratio[own])
    return float(np.mean(held))


def honest_bar(
    residuals: NDArray[np.float64], folds: NDArray[np.int64], ideal_ratio: NDArray[np.float64]
) -> tuple[dict[str, Any], float]:
    """Return the narrowest bar that holds the stated share on folds it was made without, and the share it holds.

    Groups of shapes differ from each other, so that quantiles of some hold less of the next: the level is raised until
    the stated coverage is met out of sample.
    """
    shares = [held_coverage(residuals, folds, ideal_ratio, level) for level in LEVELS]
    enough = [index for index, share in enumerate(shares) if share >= COVERAGE]
    index = enough[0] if enough else len(LEVELS) - 1
    return bar(residuals, float(LEVELS[index])), shares[index]


def measured_range(flops: NDArray[np.float64], num_bytes: NDArray[np.float64]) -> dict[str, list[float]]:
    """Return the sizes between which a class was measured."""
    return {
        "flops": [float(flops.min()), float(flops.max())],
        "bytes": [float(num_bytes.min()), float(num_bytes.max())],
    }
