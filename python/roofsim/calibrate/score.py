"""Error figures of predictions against measured times."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Score", "score"]


@dataclass(frozen=True)
class Score:
    """Errors in percent of the measured time.

    Attributes
    ----------
    num_points
        Points scored.
    mean, median, p90
        Mean, median and 90th percentile of the absolute error.
    bias
        Mean error; positive where predictions are too long.
    """

    num_points: int
    mean: float
    median: float
    p90: float
    bias: float


def score(predicted_s: NDArray[np.float64], measured_s: NDArray[np.float64]) -> Score:
    """Score predictions; NaN where there are no points."""
    if not len(measured_s):
        nan = float("nan")
        return Score(0, nan, nan, nan, nan)
    error = 100.0 * (predicted_s / measured_s - 1.0)
    size = np.abs(error)
    return Score(
        len(error), float(size.mean()), float(np.median(size)), float(np.quantile(size, 0.9)), float(error.mean())
    )
