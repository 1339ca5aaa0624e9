"""Error bars from residuals on unseen shapes, and whether they hold what they state.

Locally weighted split conformal prediction (Lei et al., 2018, arXiv:1604.04173): the spread of residuals is fitted as a
sum of parts of the half-width, then scaled by a quantile of residuals over spreads.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from roofsim.calibrate.widths import Parts

__all__ = [
    "AIM",
    "AIMS_APART",
    "COVERAGE",
    "KIND_AIM",
    "Bar",
    "even_weights",
    "honest_bar",
    "honest_level",
    "measured_range",
    "quantile",
]

COVERAGE = 0.8
"""What bars state."""
AIM, KIND_AIM, TOO_MUCH = 0.84, 0.82, 0.88
"""What bars hold of folds that they were made without, and of each kind of shape there: half of the way to what
would be too much, because another run on another day and card lies further off than the folds of one run."""
AIMS_APART = {"grouped_gemm.bf16": (0.87, 0.86)}
"""The same of classes that another run repeats less well than the law predicts the folds of one: 5 to 7% off."""
LEVELS = np.arange(0.70, 0.961, 0.01)
"""Shares between which quantiles are taken: unseen groups lie further off than the others, or nearer."""
FEW = 100
"""Fewer points do not show what the spread depends on."""
MIN_KIND = 30
"""Kinds of shape with fewer points count with the others."""
LEAST_SIZE = 1e-3
"""Residuals below the clock's resolution count as this one."""
LEAST_SHARE, LEAST_PART = 1e-4, 1e-9
WIDEST_BELOW = 0.95
"""Shares of the time in a lower half may not add up to the whole."""


@dataclass(frozen=True)
class Half:
    """One half-width: coefficients of its parts."""

    coefficients: Mapping[str, float]

    def of(self, parts: Parts) -> NDArray[np.float64]:
        """Return the width at every point, as a share of the prediction."""
        return np.asarray(sum(value * parts[name] for name, value in self.coefficients.items()))

    def scaled(self, factor: float) -> Half:
        """Return the same dependence, so many times as wide."""
        return Half({name: value * factor for name, value in self.coefficients.items()})


@dataclass(frozen=True)
class Bar:
    """Both halves of a bar."""

    below: Half
    above: Half

    def holds(self, error: NDArray[np.float64], parts: tuple[Parts, Parts]) -> NDArray[np.bool_]:
        """Whether measured over predicted time minus 1 lies inside, point by point."""
        below, above = parts
        return np.asarray((error <= self.above.of(above)) & (-error <= self.below.of(below)))

    def width(self, parts: tuple[Parts, Parts]) -> NDArray[np.float64]:
        """Return the whole width at every point, as a share of the prediction."""
        below, above = parts
        return self.below.of(below) + self.above.of(above)

    def to_dict(self) -> dict[str, Any]:
        """Return `below` and `above` as a calibration file has them."""
        below = self.below.coefficients
        total = sum(value for name, value in below.items() if name != "fixed_s")
        return {
            "below": _written(self.below.scaled(min(1.0, WIDEST_BELOW / max(total, WIDEST_BELOW)))),
            "above": _written(self.above),
        }


def _written(half: Half) -> dict[str, float]:
    return {name: float(f"{value:.4g}") for name, value in half.coefficients.items() if value > 0.0}


def even_weights(kinds: NDArray[np.str_]) -> NDArray[np.float64]:
    """Return weights under which every kind of enough points counts alike; the points of the others count once."""
    names, counts = np.unique(kinds, return_counts=True)
    large = counts >= MIN_KIND
    weights = np.ones(len(kinds))
    for name, count in zip(names[large], counts[large], strict=True):
        weights[kinds == name] = counts[large].sum() / (count * large.sum())
    return weights


def quantile(values: NDArray[np.float64], weights: NDArray[np.float64], share: float) -> float:
    """Return the value that a share of the weight lies under."""
    order = np.argsort(values)
    sums = np.cumsum(weights[order])
    return float(np.interp(share * sums[-1], sums - 0.5 * weights[order], values[order]))


def spread(parts: Parts, sizes: NDArray[np.float64], weights: NDArray[np.float64]) -> Half:
    """Fit the spread of residuals as a sum of parts: the most likely one of a Laplace distribution.

    The share stays positive, however small; no part is negative, and parts that no point has are left out.
    """
    from scipy.optimize import minimize

    names = [name for name, size in parts.items() if size.mean() > LEAST_PART]
    columns = np.stack([parts[name] for name in names], axis=1)
    scale = columns.mean(axis=0)
    columns = columns / scale
    sizes, weights = np.maximum(sizes, LEAST_SIZE), weights / weights.sum()

    def loss(x: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        width = columns @ x
        return float(weights @ (np.log(width) + sizes / width)), columns.T @ (weights * (1 - sizes / width) / width)

    start = np.full(len(names), float(weights @ sizes) / len(names))
    bounds = [(LEAST_SHARE if name == "share" else 0.0, None) for name in names]
    found = minimize(loss, start, jac=True, bounds=bounds, method="L-BFGS-B").x / scale
    return Half({name: float(value) for name, value in zip(names, found, strict=True)})


def bar(
    error: NDArray[np.float64],
    parts: tuple[Parts, Parts],
    weights: NDArray[np.float64],
    share: float = COVERAGE,
    form: Bar | None = None,
) -> Bar:
    """Return the bar that holds a share of residuals, half of the rest on either side.

    Parameters
    ----------
    error
        measured / predicted - 1 of points that the fit did not see.
    parts
        Parts of the lower and of the upper half-width at these points.
    weights
        How much each point counts.
    share
        What the bar holds.
    form
        A bar to scale; without one the spread is fitted.
    """
    below, above = parts
    if form is None:
        form = spreads(error, parts, weights)
    level = 0.5 + 0.5 * share
    return Bar(
        form.below.scaled(max(0.0, quantile(-error / form.below.of(below), weights, level))),
        form.above.scaled(max(0.0, quantile(error / form.above.of(above), weights, level))),
    )


def spreads(error: NDArray[np.float64], parts: tuple[Parts, Parts], weights: NDArray[np.float64]) -> Bar:
    """Return the form of a bar: how residuals spread with the shape; a share alone where points are few."""
    if len(error) < FEW:
        return Bar(Half({"share": 1.0}), Half({"share": 1.0}))
    below, above = (spread(each, np.abs(error), weights) for each in parts)
    return Bar(below, above)


def enough(held: NDArray[np.bool_], kinds: NDArray[np.str_], aim: float = AIM, kind_aim: float = KIND_AIM) -> bool:
    """Whether bars hold enough of all points and of every kind with enough of them."""
    names, counts = np.unique(kinds, return_counts=True)
    each = [held[kinds == name].mean() for name in names[counts >= MIN_KIND]]
    return bool(held.mean() >= aim and all(share >= kind_aim for share in each))


def honest_level(
    held: Callable[[float], NDArray[np.bool_]], kinds: NDArray[np.str_], aims: tuple[float, float] = (AIM, KIND_AIM)
) -> tuple[float, NDArray[np.bool_]]:
    """Return the least level of quantiles at which bars hold enough out of sample, and which points they hold there.

    Where a group as a whole comes inside at once, so that they would hold too much, the level before is enough if it
    holds what is stated.
    """
    before = float(LEVELS[0]), held(float(LEVELS[0]))
    for level in LEVELS:
        found = float(level), held(float(level))
        if enough(found[1], kinds, *aims):
            jumps = found[1].mean() > TOO_MUCH and enough(before[1], kinds, COVERAGE, COVERAGE)
            return before if jumps else found
        before = found
    return before


def honest_bar(
    error: NDArray[np.float64],
    folds: NDArray[np.int64],
    kinds: NDArray[np.str_],
    parts: tuple[Parts, Parts],
    form: Bar | None = None,
    aims: tuple[float, float] = (AIM, KIND_AIM),
) -> tuple[Bar, NDArray[np.bool_]]:
    """Return the narrowest bar that holds enough of folds it was made without, and which points it held there.

    Groups of shapes differ from each other, so that quantiles of some hold less of the next: the level is raised until
    enough is held out of sample, of every kind of shape.

    Parameters
    ----------
    error
        measured / predicted - 1 of points by a fit that did not see them.
    folds
        What was left out together.
    kinds
        Kinds of shape that count alike: random ones and those of models.
    parts
        Parts of the half-widths.
    form
        A bar whose form is taken over: of an operand type that was measured at more points.
    aims
        What the bar has to hold out of sample: of all points, and of each kind of shape.
    """
    weights = even_weights(kinds)

    def taken(chosen: NDArray[np.bool_]) -> tuple[Parts, Parts]:
        below, above = ({name: size[chosen] for name, size in half.items()} for half in parts)
        return below, above

    forms = {}
    for fold in np.unique(folds):
        own = folds == fold
        seen = np.ones_like(own) if own.all() else ~own
        made = form or spreads(error[seen], taken(seen), weights[seen])
        forms[int(fold)] = own, seen, made

    def held(level: float) -> NDArray[np.bool_]:
        inside = np.zeros(len(error), bool)
        for own, seen, made in forms.values():
            fitted = bar(error[seen], taken(seen), weights[seen], level, made)
            inside[own] = fitted.holds(error[own], taken(own))
        return inside

    level, inside = honest_level(held, kinds, aims)
    return bar(error, parts, weights, level, form), inside


def measured_range(flops: NDArray[np.float64], num_bytes: NDArray[np.float64]) -> dict[str, list[float]]:
    """Return the sizes between which a class was measured."""
    return {
        "flops": [float(flops.min()), float(flops.max())],
        "bytes": [float(num_bytes.min()), float(num_bytes.max())],
    }
