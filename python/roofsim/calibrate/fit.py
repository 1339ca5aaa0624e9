"""The fit: constants of a law that bring the core's times closest to the measured ones, in relative error."""

from __future__ import annotations

import math
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np

from roofsim.calibrate.predict import costs
from roofsim.calibrate.prior import spread, weight
from roofsim.errors import SpecError, UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from roofsim import Accelerator, Calibration
    from roofsim.calibrate.observations import Observations

__all__ = ["Constant", "Fit", "fit", "require_scipy"]

SOFT_SCALE = 0.03
"""Log error at which the loss turns from square to linear: below it noise, above it the law's own misfit."""
TYPICAL_ERROR = 0.06
"""Log error of whole fits on unseen points: a point so far off and a constant one spread off its prior count alike."""
STARTS = 4
SPREAD = 0.25
"""Log spread of the further starts around the first."""
MAX_SECONDS = 1e-3
MOST = 1e6
"""Largest value of constants without a domain of their own, as the core reads them."""
LONGEST_SPLIT_S = {"split_t0_s": 8e-6, "split_c_s": 1e-7}
"""What splitting the KV axis may cost: decodes that never need it leave it free, and one more draft token would fall
off a cliff."""
LONGEST_TAIL = 0.2
"""Longer tails of waves make two merged batches cost over 2% more than the two apart, and gain 0.5 points at most."""
DIFFERENCE = 1e-4
HALF = 0.5
"""Share of what is known of a constant above which it counts as the prior's."""
AT_LIMIT = 1e-6
"""Share of a constant's range from its end at which the end holds it."""
MOST_RATE = 1e17
"""A tenth of the largest lawful rate; no longer than a second is any time."""
SLIGHT = 0.08
"""Upper end of the domain `slight`."""


@dataclass(frozen=True)
class Constant:
    """A constant after a fit.

    Attributes
    ----------
    path, value, unit, meaning
        Which one, and what it is now.
    error
        Standard error by the points alone, in its unit; infinite where they say nothing.
    basis
        `fitted` where the points determine it; `borrowed` where they say less than the prior, which it follows;
        `start` where they say nothing and it stays what the fit started from; `limit` where it ran to the end of its
        range; `loose` where its error is as large as what is plausible at all.
    """

    path: str
    value: float
    unit: str
    error: float
    meaning: str
    basis: str = "fitted"


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
            most = 1.0 if self.unit == "s" else MOST_RATE
            return start - 8.0, min(start + 8.0, math.log(most))
        if self.domain == "efficiency":
            return 0.01, 1.0
        if self.domain == "slight":
            return 0.0, SLIGHT
        if self.domain == "fraction":
            return 0.0, LONGEST_TAIL if self.path.endswith(".tail") else 1.0
        longest = LONGEST_SPLIT_S.get(self.path.rpartition(".")[2], MAX_SECONDS)
        return 0.0, (longest if self.unit == "s" else MOST) / self.scale

    def spread(self, value: float) -> float:
        """Return the plausible spread around a value, as the optimiser sees it."""
        own = spread(self.domain, self.unit, value)
        return own if self.domain == "positive" else own / self.scale


def _axis(constant: dict[str, Any]) -> _Axis:
    scale = 1.0
    if constant["domain"] == "non_negative":
        scale = 1e-6 if constant["unit"] == "s" else max(abs(constant["value"]), 1.0)
    return _Axis(constant["path"], constant["unit"], constant["domain"], constant["meaning"], scale)


def require_scipy() -> None:
    """See that scipy is there, before minutes of fitting are spent.

    Raises
    ------
    UnsupportedError
        It is not.
    """
    if find_spec("scipy") is None:
        rule = (
            "a fit needs it: install roofsim with its extra `calibrate` (in a checkout: pip install -e '.[calibrate]')"
        )
        raise UnsupportedError("scipy", "missing", rule)


def log_residuals(accelerator: Accelerator, observed: Sequence[Observations]) -> NDArray[np.float64]:
    """Return ln(measured / predicted) of every point, class after class."""
    parts = [np.log(one.measured_s / costs(accelerator, one)["time_s"]) for one in observed if len(one)]
    return np.concatenate(parts) if parts else np.empty(0)


def fit(
    accelerator: Accelerator,
    observed: Sequence[Observations],
    prefixes: Sequence[str],
    *,
    starts: int = STARTS,
    fixed: Sequence[str] = (),
    prior: Calibration | None = None,
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
    prior
        Constants to stay near where points are few; without it the points decide alone.

    Raises
    ------
    SpecError
        No constant stands under the prefixes, or there are fewer points than constants and no prior.
    """
    require_scipy()
    from scipy.optimize import least_squares

    calibration = accelerator.calibration
    chosen = [c for c in calibration.constants() if c["path"].startswith(tuple(prefixes)) and c["path"] not in fixed]
    points = sum(len(one) for one in observed)
    if not chosen:
        raise SpecError("prefixes", list(prefixes), "must begin the path of a constant of the calibration")
    expected = {c["path"]: float(c["value"]) for c in prior.constants()} if prior is not None else {}
    if points < (1 if expected else len(chosen)):
        raise SpecError("points", points, f"must be at least the {len(chosen)} constants of {', '.join(prefixes)}")
    axes = [_axis(constant) for constant in chosen]
    first = np.array([axis.inner(c["value"]) for axis, c in zip(axes, chosen, strict=True)])
    limits = np.array([axis.bounds(x) for axis, x in zip(axes, first, strict=True)])
    low, high = limits[:, 0], limits[:, 1]
    # Constants that the prior lacks (a format it never saw) stay near what the fit starts from.
    near = [expected.get(c["path"], float(c["value"])) for c in chosen]
    centre = np.array([axis.inner(value) for axis, value in zip(axes, near, strict=True)])
    spreads = np.array([axis.spread(value) for axis, value in zip(axes, near, strict=True)])
    pull = weight(points, len(chosen), TYPICAL_ERROR) if expected else 0.0

    def at(x: NDArray[np.float64]) -> Accelerator:
        values = {axis.path: axis.outer(float(v)) for axis, v in zip(axes, x, strict=True)}
        return accelerator.with_calibration(calibration.with_constants(values))

    def residuals(x: NDArray[np.float64]) -> NDArray[np.float64]:
        own = -log_residuals(at(np.clip(x, low, high)), observed)
        return np.concatenate([own, pull * (x - centre) / spreads]) if pull else own

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
    errors = _standard_errors(np.asarray(best.jac)[:points], best.cost)
    # A start of the optimiser moves constants that no point feels: they go back to where they were.
    unmoved = np.where(np.isinf(errors), centre if pull else first, x)
    unfelt = np.isinf(errors) & bool(np.allclose(residuals(unmoved)[:points], residuals(x)[:points], 0.0, 1e-9))
    x = np.where(unfelt, unmoved, x)
    shares = _prior_shares(np.asarray(best.jac), pull / spreads)
    # A unit change of the optimiser's variable is a change of the constant by its scale, or by its own value.
    slopes = [a.outer(float(v)) if a.domain == "positive" else a.scale for a, v in zip(axes, x, strict=True)]
    ends = (x - low < AT_LIMIT * (high - low)) | (high - x < AT_LIMIT * (high - low))
    constants = []
    for index, axis in enumerate(axes):
        value, error = axis.outer(float(x[index])), float(errors[index])
        basis = "start"
        if not unfelt[index]:
            basis = _basis(axis, value, error, bool(ends[index]), float(shares[index]))
        constants.append(Constant(axis.path, value, axis.unit, error * float(slopes[index]), axis.meaning, basis))
    fitted = at(x)
    return Fit(fitted, constants, log_residuals(fitted, observed))


def _basis(axis: _Axis, value: float, error: float, at_limit: bool, share: float) -> str:
    """Say what a constant rests on; `error` is the points' own, as the optimiser sees the constant."""
    if share > HALF:
        return "borrowed"
    if at_limit and axis.domain == "positive":
        return "limit"
    if error <= axis.spread(value):
        return "fitted"
    return "borrowed" if share > 0.0 else "loose"


def _prior_shares(jacobian: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the prior's share of what is known of each constant: 1 where the points add nothing, 0 without a prior.

    It is the prior's precision over the marginal one after the fit; the noise cancels.
    """
    return np.asarray(np.diag(np.linalg.pinv(jacobian.T @ jacobian)) * weights**2)


def _standard_errors(jacobian: NDArray[np.float64], cost: float) -> NDArray[np.float64]:
    """Return standard errors from the curvature; infinite where the data say nothing about a constant."""
    points = len(jacobian)
    errors = np.full(jacobian.shape[1], np.inf)
    active = np.linalg.norm(jacobian, axis=0) > 0
    j = jacobian[:, active]
    variance = 2.0 * cost / max(1, points - jacobian.shape[1])
    errors[active] = np.sqrt(np.diag(np.linalg.pinv(j.T @ j)) * variance)
    return errors
