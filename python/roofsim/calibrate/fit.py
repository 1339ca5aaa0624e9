"""The fit: constants of a law that bring the core's times closest to the measured ones, in relative error."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from roofsim.calibrate.predict import costs
from roofsim.errors import SpecError, UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from roofsim import Accelerator
    from roofsim.calibrate.observations import Observations

__all__ = ["Constant", "Fit", "fit"]

SOFT_SCALE = 0.03
"""Log error at which the loss turns from square to linear: below it noise, above it the law's own misfit."""
STARTS = 4
SPREAD = 0.25
"""Log spread of the further starts around the first."""
MAX_SECONDS = 1e-3
LONGEST_TAIL = 0.2
"""Longer tails of waves make two merged batches cost over 2% more than the two apart, and gain 0.5 points at most."""
DIFFERENCE = 1e-4
SLIGHT = 0.08
"""Upper end of the domain `slight`."""


@dataclass(frozen=True)
class Constant:
    """A fitted constant: path, value with its unit, standard error, meaning."""

    path: str
    value: float
    unit: str
    error: float
    meaning: str


@dataclass(frozen=True)
class Fit:
    """Result of one fit.

    Attributes
    ----------
    accelerator
        The device under the fitted calibration.
    constants
        What was fitted.
    residuals
        ln(measured / predicted) of every point, class after class.
    """

    accelerator: Accelerator
    constants: list[Constant]
    residuals: NDArray[np.float64]


@dataclass(frozen=True)
class _Axis:
    """One constant as the optimiser sees it: of order 1, bounded."""

    path: str
    unit: str
    domain: str
    meaning: str
    scale: float

    def inner(self, value: float) -> float:
        return math.log(value) if self.domain == "positive" else value / self.scale

    def outer(self, x: float) -> float:
        return math.exp(x) if self.domain == "positive" else x * self.scale

    def bounds(self, start: float) -> tuple[float, float]:
        if self.domain == "positive":
            return start - 8.0, start + 8.0
        if self.domain == "efficiency":
            return 0.01, 1.0
        if self.domain == "slight":
            return 0.0, SLIGHT
        if self.domain == "fraction":
            return 0.0, LONGEST_TAIL if self.path.endswith(".tail") else 1.0
        return 0.0, (MAX_SECONDS / self.scale if self.unit == "s" else max(100.0 * start, 1e6 / self.scale))


def _axis(constant: dict[str, Any]) -> _Axis:
    scale = 1.0
    if constant["domain"] == "non_negative":
        scale = 1e-6 if constant["unit"] == "s" else max(abs(constant["value"]), 1.0)
    return _Axis(constant["path"], constant["unit"], constant["domain"], constant["meaning"], scale)


def log_residuals(accelerator: Accelerator, observed: Sequence[Observations]) -> NDArray[np.float64]:
    """Return ln(measured / predicted) of every point, class after class."""
    parts = [np.log(one.measured_s / costs(accelerator, one)["time_s"]) for one in observed]
    return np.concatenate(parts) if parts else np.empty(0)


def fit(
    accelerator: Accelerator,
    observed: Sequence[Observations],
    prefixes: Sequence[str],
    *,
    starts: int = STARTS,
    fixed: Sequence[str] = (),
) -> Fit:
    """Fit every constant under some paths to measured points.

    The loss is soft L1 of ln(predicted / measured), so that a few points which no law describes do not pull the rest.
    Bounded, from several starts drawn with a fixed seed; equal inputs give equal constants.

    Parameters
    ----------
    accelerator
        The device under the calibration to start from.
    observed
        Classes that share these constants.
    prefixes
        Paths or beginnings of paths: `gemm.bf16.`, `attention.`.
    starts
        Starts of the optimiser; the best end counts.
    fixed
        Paths that stay as they are.

    Raises
    ------
    SpecError
        No constant stands under the prefixes, or there are fewer points than constants.
    """
    try:
        from scipy.optimize import least_squares
    except ImportError:
        raise UnsupportedError("scipy", "missing", "a fit needs it: pip install 'roofsim[calibrate]'") from None

    calibration = accelerator.calibration
    chosen = [c for c in calibration.constants() if c["path"].startswith(tuple(prefixes)) and c["path"] not in fixed]
    points = sum(len(one) for one in observed)
    if not chosen:
        raise SpecError("prefixes", list(prefixes), "must begin the path of a constant of the calibration")
    if points < len(chosen):
        raise SpecError("points", points, f"must be at least the {len(chosen)} constants of {', '.join(prefixes)}")
    axes = [_axis(constant) for constant in chosen]
    first = np.array([axis.inner(c["value"]) for axis, c in zip(axes, chosen, strict=True)])
    limits = np.array([axis.bounds(x) for axis, x in zip(axes, first, strict=True)])
    low, high = limits[:, 0], limits[:, 1]

    def at(x: NDArray[np.float64]) -> Accelerator:
        values = {axis.path: axis.outer(float(v)) for axis, v in zip(axes, x, strict=True)}
        return accelerator.with_calibration(calibration.with_constants(values))

    def residuals(x: NDArray[np.float64]) -> NDArray[np.float64]:
        return -log_residuals(at(np.clip(x, low, high)), observed)

    rng = np.random.default_rng(len(chosen))
    best: Any = None
    for index in range(starts):
        x = first.copy()
        if index:
            shift = SPREAD * rng.standard_normal(len(x))
            logs = np.array([axis.domain == "positive" for axis in axes])
            x = np.where(logs, x + shift, x * np.exp(shift))
        x = np.clip(x, low + 1e-9, high - 1e-9)
        end = least_squares(
            residuals, x, bounds=(low, high), loss="soft_l1", f_scale=SOFT_SCALE, diff_step=DIFFERENCE, max_nfev=60
        )
        if best is None or end.cost < best.cost:
            best = end
    x = np.clip(best.x, low, high)
    errors = _standard_errors(best, points)
    x = _undetermined_as_they_began(x, first, errors, residuals)
    # A unit change of the optimiser's variable is a change of the constant by its scale, or by its own value.
    slopes = [a.outer(float(v)) if a.domain == "positive" else a.scale for a, v in zip(axes, x, strict=True)]
    constants = [
        Constant(a.path, a.outer(float(v)), a.unit, float(e * s), a.meaning)
        for a, v, e, s in zip(axes, x, errors, slopes, strict=True)
    ]
    fitted = at(x)
    return Fit(fitted, constants, log_residuals(fitted, observed))


def _undetermined_as_they_began(
    x: NDArray[np.float64],
    first: NDArray[np.float64],
    errors: NDArray[np.float64],
    residuals: Callable[[NDArray[np.float64]], NDArray[np.float64]],
) -> NDArray[np.float64]:
    """Put constants that no point depends on back to where they began: further starts only shook them."""
    there = residuals(x)
    for index in np.flatnonzero(~np.isfinite(errors)):
        back = x.copy()
        back[index] = first[index]
        if np.allclose(residuals(back), there, rtol=0.0, atol=1e-9):
            x = back
    return x


def _standard_errors(end: Any, points: int) -> NDArray[np.float64]:
    """Return standard errors from the curvature; infinite where the data say nothing about a constant."""
    jacobian = np.asarray(end.jac)
    errors = np.full(jacobian.shape[1], np.inf)
    active = np.linalg.norm(jacobian, axis=0) > 0
    j = jacobian[:, active]
    variance = 2.0 * end.cost / max(1, points - jacobian.shape[1])
    errors[active] = np.sqrt(np.diag(np.linalg.pinv(j.T @ j)) * variance)
    return errors
