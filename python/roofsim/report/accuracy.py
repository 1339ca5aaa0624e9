"""Figures of the accuracy report.

Per class, operand type and device: against the bare roofline, on unseen shapes, moved from one device to another, and
fitted to a quick run.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from roofsim.calibrate.predict import costs
from roofsim.calibrate.prior import relative
from roofsim.calibrate.profile import (
    MIN_POINTS_WITH_PRIOR,
    Profile,
    Source,
    calibrate,
    fit_laws,
    readable,
    readable_steps,
)
from roofsim.calibrate.score import Score, score
from roofsim.calibrate.steps import STEP_CLASSES
from roofsim.report.load import UnderLoad, under_load
from roofsim.validate.plan_quick import quick_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from roofsim import Accelerator
    from roofsim.calibrate.observations import LeftOut, Observations
    from roofsim.validate import Point

__all__ = ["ClassAccuracy", "DeviceAccuracy", "Part", "accuracy", "fitted_scores", "quick_scores"]

WORST = 3


@dataclass(frozen=True)
class Part:
    """A part of a class: model shapes, random shapes, one head width.

    Attributes
    ----------
    coverage
        Share of its points inside bars that were made without them.
    """

    name: str
    unseen: Score
    roofline: Score
    coverage: float
    transfer: Score | None = None


@dataclass(frozen=True)
class Worst:
    """A point that the law misses most, predicted without its shape."""

    shape: str
    measured_s: float
    predicted_s: float
    kernel: str


@dataclass(frozen=True)
class ClassAccuracy:
    """Errors of one class and operand type on one device.

    Attributes
    ----------
    roofline, fitted, unseen
        Of the bare roofline; of the calibration in the box on all points; of fits that did not see the point's shape.
    coverage
        Share of unseen points inside bars that were made without them, 0.8 stated.
    transfer
        Of another device's constants on this device's datasheet; None where there is no such device.
    quick
        Of a fit to the points and kernels of a quick run, leaning on another device's calibration, on the other points;
        None where the rows are not those of a built-in plan.
    full
        Of the whole fit on those same others.
    """

    name: str
    roofline: Score
    fitted: Score
    unseen: Score
    coverage: float
    transfer: Score | None
    quick: Score | None
    full: Score | None
    parts: list[Part]
    worst: list[Worst]


@dataclass(frozen=True)
class DeviceAccuracy:
    """Everything about one device.

    Attributes
    ----------
    transfer_from, quick_prior
        Devices whose calibrations were tried on this one's datasheet, and leant on by the quick fit.
    points
        Per class: intensity (FLOP/byte), measured and predicted seconds, FLOPs and bytes, for pictures.
    """

    device: str
    name: str
    software: str
    date: str
    classes: list[ClassAccuracy]
    left_out: list[LeftOut]
    profile: Profile
    transfer_from: str | None = None
    quick_prior: str | None = None
    power: Mapping[str, float] | None = None
    under_load: list[UnderLoad] = field(default_factory=list)
    points: dict[str, dict[str, NDArray[np.float64]]] = field(default_factory=dict)


def _parts(observed: Observations) -> dict[str, NDArray[np.bool_]]:
    if observed.family in ("gemm", "grouped_gemm"):
        labels = observed.labels
        return {
            "model shapes": np.char.startswith(labels, "model:"),
            "random shapes": np.char.startswith(labels, "random:"),
        }
    if observed.family.endswith("attention"):
        widths = observed.columns["head_dim"]
        return {f"head width {width}": widths == width for width in np.unique(widths)}
    if observed.family in STEP_CLASSES:
        kinds = {f"{kind} models": observed.labels == kind for kind in np.unique(observed.labels)}
        return {**kinds, **{str(group): observed.groups == group for group in np.unique(observed.groups)}}
    return {str(group): observed.groups == group for group in np.unique(observed.groups)}


def _shape(observed: Observations, index: int) -> str:
    sizes = " ".join(f"{name}={int(column[index])}" for name, column in observed.columns.items() if name != "model")
    return f"{observed.groups[index]} {sizes}" if observed.family in STEP_CLASSES else sizes


def quick_scores(
    accelerator: Accelerator, rows: Sequence[Mapping[str, Any]], points: Sequence[Point], prior: Accelerator | None
) -> dict[str, tuple[Score, Score]]:
    """Fit what a quick run would have measured; score it and the accelerator's own calibration on all other points.

    Parameters
    ----------
    accelerator
        The device, under the calibration that a whole run gave.
    rows
        Rows of the whole run.
    points
        The points of a quick run.
    prior
        Device whose calibration the quick fit leans on; its own would be known already.

    Returns
    -------
    dict
        Class to (quick, whole).
    """
    chosen = {point.point_id for point in points}
    return fitted_scores(
        accelerator, quick_rows(rows, points), [row for row in rows if row["point_id"] not in chosen], prior
    )


def fitted_scores(
    accelerator: Accelerator,
    few: Sequence[Mapping[str, Any]],
    rest: Sequence[Mapping[str, Any]],
    prior: Accelerator | None,
) -> dict[str, tuple[Score, Score]]:
    """Fit a few rows and score the fit, and the accelerator's own calibration, on the rest, class by class."""
    known = None if prior is None else prior.calibration
    seen = _observed(accelerator, few)
    if not seen:
        return {}
    quick, _ = fit_laws(accelerator, seen, prior=known)
    names = {one.name for one in seen}
    return {
        one.name: (
            score(costs(quick, one)["time_s"], one.measured_s),
            score(costs(accelerator, one)["time_s"], one.measured_s),
        )
        for one in _observed(accelerator, rest)
        if one.name in names
    }


def _observed(accelerator: Accelerator, rows: Sequence[Mapping[str, Any]]) -> list[Observations]:
    singles, _ = readable(accelerator, rows, MIN_POINTS_WITH_PRIOR)
    steps, _ = readable_steps(accelerator, rows)
    return [*singles, *steps]


def accuracy(
    accelerator: Accelerator,
    source: Source,
    *,
    transfer: Accelerator | None = None,
    quick_points: Sequence[Point] = (),
    progress: Callable[[str], object] | None = None,
) -> DeviceAccuracy:
    """Compare predictions with measurements of one device.

    Parameters
    ----------
    accelerator
        The device that was measured, under the calibration that is judged as `fitted`.
    source
        Measured rows.
    transfer
        A device whose calibration is tried on this one's datasheet.
    quick_points
        What a quick run measures of these rows.
    progress
        Called with a line of text now and then.

    Returns
    -------
    DeviceAccuracy
        Recomputed from the rows: fits with shapes left out included.
    """
    # The files are of one device: collectives are the calibration's own.
    linked = any(name.startswith("collective.") for name in accelerator.calibration.provenance["errors"])
    links = accelerator.calibration if linked else None
    profile = calibrate(accelerator, source, progress=progress, collectives=links)
    observed = [result.observed for result in profile.results]
    if progress is not None:
        progress("fitting the points of a quick run")
    prior = relative(accelerator, source.kernel_library)
    quick = quick_scores(accelerator, source.rows, quick_points, prior)
    moved = None if transfer is None else accelerator.with_calibration(transfer.calibration)
    classes, points = [], {}
    for result in profile.results:
        one = result.observed
        few, whole = quick.get(one.name, (None, None))
        cost = costs(accelerator, one)
        moved_s = None
        if moved is not None and (one.family != "gemm" or f"gemm.{one.dtype}" in _law_names(moved)):
            moved_s = costs(moved, one)["time_s"]
        order = np.argsort(-np.abs(np.log(result.unseen_s / one.measured_s)))[:WORST]
        classes.append(
            ClassAccuracy(
                result.name,
                result.roofline,
                score(cost["time_s"], one.measured_s),
                result.unseen,
                result.coverage,
                None if moved_s is None else score(moved_s, one.measured_s),
                few,
                whole,
                [
                    Part(
                        name,
                        score(result.unseen_s[own], one.measured_s[own]),
                        score(cost["ideal_s"][own], one.measured_s[own]),
                        float(result.held[own].mean()),
                        None if moved_s is None else score(moved_s[own], one.measured_s[own]),
                    )
                    for name, own in _parts(one).items()
                    if own.any()
                ],
                [
                    Worst(_shape(one, int(i)), float(one.measured_s[i]), float(result.unseen_s[i]), str(one.kernels[i]))
                    for i in order
                ],
            )
        )
        points[result.name] = {
            "measured_s": one.measured_s,
            "unseen_s": result.unseen_s,
            "ideal_s": cost["ideal_s"],
            "flops": cost["flops"],
            "bytes": cost["bytes"],
        }
    return DeviceAccuracy(
        accelerator.name,
        profile.calibration.name,
        source.software,
        source.date,
        classes,
        profile.left_out,
        profile,
        None if transfer is None else transfer.name,
        None if prior is None or not quick else prior.name,
        profile.calibration.power,
        under_load(accelerator, observed),
        points,
    )


def _law_names(accelerator: Accelerator) -> set[str]:
    paths: list[dict[str, Any]] = accelerator.calibration.constants()
    return {".".join(constant["path"].split(".")[:2]) for constant in paths}


def worst_first(classes: Sequence[ClassAccuracy]) -> list[ClassAccuracy]:
    """Order classes by their error on unseen shapes."""
    return sorted(classes, key=lambda each: -each.unseen.mean)
