"""From measurements to a calibration: fit every class, leave shapes out, draw error bars, say where it comes from."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from roofsim import Accelerator, Calibration
from roofsim.calibrate.bars import (
    AIM,
    AIMS_APART,
    COVERAGE,
    FEW,
    KIND_AIM,
    Bar,
    even_weights,
    honest_bar,
    measured_range,
    spreads,
)
from roofsim.calibrate.energy import power_of_steps, steady_power, steady_rate
from roofsim.calibrate.fit import STARTS, Constant, fit, require_scipy
from roofsim.calibrate.folds import unseen_residuals
from roofsim.calibrate.graphs import GRAPH_S, graph_seconds
from roofsim.calibrate.joint import join
from roofsim.calibrate.laws import BY_DTYPE, COLLECTIVES, assume_chunks, held_constants, laws, starting, with_own_law
from roofsim.calibrate.observations import (
    CLASSES,
    LeftOut,
    Observations,
    drop_below_ideal,
    drop_off_link,
    drop_suspect,
    drop_warm,
    observe,
)
from roofsim.calibrate.predict import costs
from roofsim.calibrate.score import Score, score
from roofsim.calibrate.steps import StepObservations, joined, observe_steps
from roofsim.calibrate.widths import parts
from roofsim.errors import SpecError, UnsupportedError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "MIN_POINTS_WITH_PRIOR",
    "ClassResult",
    "Profile",
    "Source",
    "calibrate",
    "fit_laws",
    "readable",
    "readable_steps",
]

Progress = Callable[[str], object]

STEP_PREFIXES = ("step.",)
"""What whole steps determine: what operations do inside a step that they do not do alone."""
SUSTAINED, DISPATCH = "step.sustained_compute", "step.dispatch_s"
POOLED = {
    "decode_attention": ("decode_attention",),
    "prefill_attention": ("prefill_attention",),
    "latent_decode_attention": ("latent_decode_attention",),
    "latent_prefill_attention": ("latent_prefill_attention",),
    "elementwise": ("elementwise",),
    "collective": ("collective", "direct_all_reduce"),
}
"""Bars of all operand types together."""
WIDEST_BELOW = 0.95
"""Share of the time that a lower half reaches at most."""
MIN_POINTS = 24
"""Fewer points of a class than this are too few to fit and to leave out from."""
EXAMPLES = 4
"""Points that are named where many are left out."""
MIN_POINTS_WITH_PRIOR = 8
"""The same where a calibration of the family says what to expect."""


@dataclass(frozen=True)
class Source:
    """Where measured rows come from: what a calibration's provenance says."""

    rows: Sequence[Mapping[str, Any]]
    software: str
    date: str
    kernel_library: str = "torch"
    note: str = ""
    cold: bool = True
    """Whether operands were kept out of the caches, as this tool's own harness does; published tables do not say."""
    basis: str = "measured"
    """``measured`` by this tool, or ``published`` by others."""


@dataclass(frozen=True)
class ClassResult:
    """One class and operand type after the fit.

    Attributes
    ----------
    observed
        The points, without those left out; `observed.left_out` lists these.
    in_sample, unseen, roofline
        Errors of the fit on its own points, on shapes left out, and of the bare roofline.
    unseen_s
        Times predicted without the point's shape, seconds.
    interval
        Error bar of the class.
    held
        Whether each point lies inside a bar that neither it nor its shape took part in.
    """

    observed: Observations
    in_sample: Score
    unseen: Score
    roofline: Score
    unseen_s: NDArray[np.float64]
    interval: Mapping[str, Any]
    held: NDArray[np.bool_]

    @property
    def coverage(self) -> float:
        """Share of points inside bars that neither they nor their shape took part in."""
        return float(np.mean(self.held))

    @property
    def name(self) -> str:
        """Class and operand type."""
        return self.observed.name


@dataclass(frozen=True)
class Profile:
    """A calibration with everything that was learnt while making it."""

    calibration: Calibration
    accelerator: Accelerator
    results: list[ClassResult]
    constants: list[Constant]
    left_out: list[LeftOut] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Judged:
    """Points of a class, ln(measured / predicted) by fits that did not see them, and what was left out together."""

    observed: Observations
    residuals: NDArray[np.float64]
    folds: NDArray[np.int64]

    @property
    def error(self) -> NDArray[np.float64]:
        return np.asarray(np.expm1(self.residuals))

    @property
    def kinds(self) -> NDArray[np.str_]:
        """Kinds of shape: random ones, those of models, or all one kind."""
        return np.char.partition(self.observed.labels, ":")[:, 0]


def readable(
    accelerator: Accelerator, rows: Iterable[Mapping[str, Any]], least: int = MIN_POINTS, *, cold: bool = True
) -> tuple[list[Observations], list[str]]:
    """Return the classes that the device has a peak for and that hold enough points, and why others were skipped."""
    kept, skipped = [], []
    bound = accelerator.with_calibration("ideal")
    for one in observe(rows):
        if len(one) < least:
            skipped.append(f"{one.name}: {len(one)} points, fewer than the {least} that a fit needs")
            continue
        try:
            cost = costs(bound, one)
            ideal_s = cost["ideal_s"]
        except UnsupportedError as error:
            skipped.append(f"{one.name}: {error}")
            continue
        if one.family in COLLECTIVES:
            one, ideal_s = drop_off_link(one, ideal_s)
        elif not cold:
            one, ideal_s = drop_warm(one, ideal_s, cost["bytes"], accelerator)
            one, ideal_s = drop_suspect(one, ideal_s)
        left = drop_below_ideal(one, ideal_s)
        if len(left) < least:
            skipped.append(_too_few_left(left, least))
            continue
        kept.append(left)
    return kept, skipped


def _too_few_left(one: Observations, least: int) -> str:
    """Say which points a class lost, and why, where too few of them are left for a fit."""
    lost = [each for each in one.left_out if each.ideal_s is not None]
    reasons = dict.fromkeys(each.reason for each in lost)
    examples = "; ".join(str(each) for each in lost[:EXAMPLES])
    more = f"; and {len(lost) - EXAMPLES} more" if len(lost) > EXAMPLES else ""
    return (
        f"{one.name}: {len(one)} of {len(one) + len(lost)} points left, fewer than the {least} that a fit needs. "
        f"Left out as {' or '.join(reasons)}: {examples}{more}"
    )


def fit_laws(
    accelerator: Accelerator,
    observed: Sequence[Observations],
    *,
    prior: Calibration | None = None,
    kernel_library: str = "torch",
) -> tuple[Accelerator, list[Constant]]:
    """Fit every class in turn, whole steps last; return the device under all fitted constants."""
    fitted = starting(accelerator, observed, prior, kernel_library)
    constants: list[Constant] = []
    held = held_constants(accelerator, kernel_library, observed)
    for members, prefixes in laws(observed):
        result = fit(with_own_law(fitted, members), members, prefixes, fixed=held, prior=prior)
        fitted, constants = result.accelerator, [*constants, *result.constants]
    steps = [one for one in observed if isinstance(one, StepObservations)]
    if steps:
        held = _held_steps(fitted, steps)
        known = _known_of_steps(fitted, steps, held, prior)
        result = fit(fitted, steps, STEP_PREFIXES, fixed=held, prior=known)
        fitted, constants = result.accelerator, [*constants, *result.constants]
    return fitted, constants


def calibrate(
    accelerator: Accelerator,
    source: Source,
    *,
    prior: Calibration | None = None,
    progress: Progress | None = None,
    cross_validate: bool = True,
    collectives: Calibration | None = None,
    replayed: Sequence[Mapping[str, Any]] = (),
    starts: int = STARTS,
) -> Profile:
    """Fit a device's laws to measurements.

    Parameters
    ----------
    accelerator
        The device that was measured; its own calibration plays no part.
    source
        Measured rows and where they come from.
    prior
        A calibration of the same device or of its family: where points are few, constants stay near it. Without it the
        fit starts from assumed constants and the points decide alone.
    progress
        Called with a line of text before each class.
    cross_validate
        Leave shapes out to learn errors and bars; without it bars come from the fit's own residuals.
    collectives
        Calibration whose collective library is taken over, for rows of one device, which say nothing of links.
    replayed
        Rows of that library's collectives as graphs replay them, between devices of this family: they determine what a
        call costs beyond the library's own loop.
    starts
        Starts of the optimiser for each class of operations.

    Returns
    -------
    Profile
        The calibration, constants with their units and fit errors, errors by class, and what was left out.

    Raises
    ------
    SpecError
        The files hold no class that can be fitted.
    UnsupportedError
        scipy is missing.
    """
    require_scipy()
    tell = progress or (lambda _text: None)
    least = MIN_POINTS_WITH_PRIOR if prior else MIN_POINTS
    observed, skipped = readable(accelerator, source.rows, least, cold=source.cold)
    if not observed:
        rule = f"must hold enough points of one of {', '.join(CLASSES)}: `roofsim validate --resume` measures more"
        raise SpecError("measurements", "; ".join(skipped) or "no operation was measured", rule)
    fitted = starting(accelerator, observed, prior, source.kernel_library)
    constants: list[Constant] = []
    held = held_constants(accelerator, source.kernel_library, observed)
    judged: list[_Judged] = []
    for members, prefixes in laws(observed):
        tell(f"fitting {', '.join(one.name for one in members)}: {sum(map(len, members))} points")
        own = with_own_law(fitted, members)
        law = fit(own, members, prefixes, fixed=held, starts=starts, prior=prior)
        fitted, constants = law.accelerator, [*constants, *law.constants]
        if cross_validate:
            residuals, folds = unseen_residuals(fitted, members, prefixes, fixed=held, prior=prior)
        else:
            split = np.cumsum([len(one) for one in members])[:-1]
            residuals = np.split(law.residuals, split)
            folds = [np.arange(len(one)) % 5 for one in members]
        judged += [_Judged(*each) for each in zip(members, residuals, folds, strict=True)]
    fitted = assume_chunks(fitted, source.kernel_library, observed)
    results = _results(fitted, judged)
    tree = _tree(accelerator, fitted, source, results)
    borrowed = _take_collectives(tree, collectives) if collectives is not None else {}
    if replayed:
        _set(tree, GRAPH_S, graph_seconds(_load(accelerator, tree), replayed))
    steps, lost_steps = readable_steps(accelerator, source.rows)
    if steps:
        tell(f"fitting steps: {sum(map(len, steps))} points")
        held = _held_steps(fitted, steps)
        known = _known_of_steps(fitted, steps, held, prior)
        if known is not prior:
            tell("few whole steps: their constants stay near assumed ones")
        law = fit(_load(accelerator, tree), steps, STEP_PREFIXES, fixed=held, prior=known)
        constants += law.constants
        for constant in law.constants:
            _set(tree, constant.path, constant.value)
        sustained = fit_sustained(law.accelerator, steps, prior)
        if sustained is not None:
            constants.append(sustained)
            _set(tree, sustained.path, sustained.value)
        if tree.get("power") is not None:
            tree["power"] = power_of_steps(_load(accelerator, tree), steps) or tree["power"]
        models = len(np.unique(np.concatenate([one.groups for one in steps])))
        residuals, folds = unseen_residuals(
            law.accelerator, steps, STEP_PREFIXES, fixed=held, folds=models, prior=known
        )
        unseen = [one.measured_s / np.exp(residual) for one, residual in zip(steps, residuals, strict=True)]
        inside = _join_families(accelerator, tree, steps, unseen, folds)
        stepped = _load(accelerator, tree)
        for one, unseen_s, held_steps in zip(steps, unseen, inside, strict=True):
            results.append(_scored(one, costs(stepped, one), unseen_s, {}, held_steps))
    calibration = _finish(accelerator, tree, source, results, borrowed, prior)
    return Profile(
        calibration,
        accelerator.with_calibration(calibration),
        results,
        constants,
        [lost for one in [*observed, *steps] for lost in one.left_out],
        [*skipped, *lost_steps],
    )


def _join_families(
    accelerator: Accelerator,
    tree: dict[str, Any],
    steps: Sequence[StepObservations],
    unseen: Sequence[NDArray[np.float64]],
    folds: Sequence[NDArray[np.int64]],
) -> list[NDArray[np.bool_]]:
    """Put how bars of steps join into the tree, all operand types together; return which steps lie inside theirs."""
    inside: list[NDArray[np.bool_]] = [np.empty(0, bool)] * len(steps)
    for family in dict.fromkeys(one.family for one in steps):
        own = [index for index, one in enumerate(steps) if one.family == family]
        made, held = join(
            accelerator,
            tree,
            joined([steps[index] for index in own]),
            np.concatenate([unseen[index] for index in own]),
            np.concatenate([folds[index] for index in own]),
        )
        tree["intervals"] |= made
        ends = np.cumsum([len(steps[index]) for index in own])[:-1]
        for index, part in zip(own, np.split(held, ends), strict=True):
            inside[index] = part
    return inside


def _held_steps(accelerator: Accelerator, steps: Sequence[StepObservations]) -> list[str]:
    """Return the constants that these steps say nothing about: of unbroken load, of mixtures where there are none."""
    mixtures = any(bool(np.any(one.labels == "moe")) for one in steps)
    paths = [str(constant["path"]) for constant in accelerator.calibration.constants()]
    return [path for path in paths if path == SUSTAINED or (path == DISPATCH and not mixtures)]


def _known_of_steps(
    accelerator: Accelerator, steps: Sequence[StepObservations], held: Sequence[str], prior: Calibration | None
) -> Calibration | None:
    """Return what the constants of steps stay near: assumed ones where one model's absence leaves fewer points."""
    if prior is not None:
        return prior
    paths = [str(constant["path"]) for constant in accelerator.calibration.constants()]
    free = [path for path in paths if path.startswith(STEP_PREFIXES) and path not in held]
    _, counts = np.unique(np.concatenate([one.groups for one in steps]), return_counts=True)
    return Calibration.assumed() if counts.sum() - counts.max() < len(free) else None


def fit_sustained(
    accelerator: Accelerator, steps: Sequence[StepObservations], prior: Calibration | None = None
) -> Constant | None:
    """Fit the compute rate of unbroken load, all else as in short runs; None where no such load determines it."""
    loaded = [held for held in (one.under_load() for one in steps) if len(held)]
    if not loaded:
        return None
    at_limit = accelerator.with_calibration(accelerator.calibration.sustained())
    known = None if prior is None else prior.sustained()
    (rate,) = fit(at_limit, loaded, ["step.compute_rate"], prior=known).constants
    if rate.basis in ("loose", "start"):
        return None
    most = next(c["value"] for c in accelerator.calibration.constants() if c["path"] == "step.compute_rate")
    return replace(rate, path=SUSTAINED, value=min(rate.value, most), meaning="compute rate of unbroken load")


def readable_steps(
    accelerator: Accelerator, rows: Iterable[Mapping[str, Any]]
) -> tuple[list[StepObservations], list[str]]:
    """Return the whole steps worth fitting: at least two models, of formats that the device has."""
    bound = accelerator.with_calibration("ideal")
    kept: list[StepObservations] = []
    skipped = []
    found = observe_steps(rows)
    if len({str(group) for one in found for group in one.groups}) < 2:
        return [], [f"{one.name}: one model, of which none can be left out" for one in found]
    for one in found:
        try:
            left = cast("StepObservations", drop_below_ideal(one, costs(bound, one)["ideal_s"]))
        except (UnsupportedError, SpecError) as error:
            skipped.append(f"{one.name}: {error}")
            continue
        if len(left):
            kept.append(left)
        else:
            skipped.append(_too_few_left(left, 1))
    return kept, skipped


def _set(tree: dict[str, Any], path: str, value: float) -> None:
    """Put a value at a dotted path."""
    *parents, name = path.split(".")
    node = tree
    for parent in parents:
        node = node[parent]
    node[name] = value


def _load(accelerator: Accelerator, tree: Mapping[str, Any]) -> Accelerator:
    return accelerator.with_calibration(Calibration.load(_rounded(tree)))


def _scored(
    one: Observations,
    cost: Mapping[str, NDArray[np.float64]],
    unseen_s: NDArray[np.float64],
    interval: dict[str, Any],
    held: NDArray[np.bool_],
) -> ClassResult:
    """Score a class: fitted, unseen and the bare roofline."""
    fitted, unseen, roofline = (score(t, one.measured_s) for t in (cost["time_s"], unseen_s, cost["ideal_s"]))
    return ClassResult(one, fitted, unseen, roofline, unseen_s, interval, held)


def _results(fitted: Accelerator, judged: Sequence[_Judged]) -> list[ClassResult]:
    """Score the classes of single operations and draw their bars.

    An operand type with few points takes over how widths depend on the shape from the type of its class with most,
    where that makes a narrower bar than a plain share of the time.
    """
    library = _without_direct(fitted)
    priced = [library if each.observed.family == "collective" else fitted for each in judged]
    made = [parts(device, each.observed) for device, each in zip(priced, judged, strict=True)]
    forms: dict[str, Bar] = {}
    for each, own in sorted(zip(judged, made, strict=True), key=lambda pair: -len(pair[0].observed)):
        if len(each.observed) >= FEW:
            forms.setdefault(each.observed.family, spreads(each.error, own, even_weights(each.kinds)))
    results = []
    for device, each, own in zip(priced, judged, made, strict=True):
        one, cost = each.observed, costs(device, each.observed)
        lent = [forms[one.family]] if len(one) < FEW and one.family in forms else []
        aims = AIMS_APART.get(one.name, (AIM, KIND_AIM))
        made_with = [honest_bar(each.error, each.folds, each.kinds, own, form, aims) for form in (None, *lent)]
        bar, held = min(made_with, key=lambda made: float(made[0].width(own).mean()))
        # Collectives move bytes over links, which the range of a class does not count.
        measured = {} if one.family in COLLECTIVES else {"range": measured_range(cost["flops"], cost["bytes"])}
        interval = {**bar.to_dict(), **measured}
        results.append(_scored(one, cost, one.measured_s / np.exp(each.residuals), interval, held))
    return results


def _without_direct(accelerator: Accelerator) -> Accelerator:
    """Return the device with the collective library's all-reduce alone, as the library was measured."""
    tree = json.loads(accelerator.calibration.to_json())
    if tree.pop("direct_all_reduce", None) is None:
        return accelerator
    return accelerator.with_calibration(tree)


def _pooled(intervals: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Return one bar for several: the wider one of each part, the joint range."""
    if not intervals:
        return None

    def widest(half: str) -> dict[str, float]:
        names = dict.fromkeys(name for one in intervals for name in one[half])
        parts = {name: max(one[half].get(name, 0.0) for one in intervals) for name in names}
        # Parts that are each the widest may add up to more than a whole time, which no lower half can be.
        shares = sum(size for name, size in parts.items() if name != "fixed_s")
        most = WIDEST_BELOW / shares if half == "below" and shares > WIDEST_BELOW else 1.0
        return {name: size if name == "fixed_s" else size * most for name, size in parts.items()}

    bar = {half: widest(half) for half in ("below", "above")}
    ranges = [one["range"] for one in intervals if "range" in one]
    if not ranges:
        return bar
    return {
        **bar,
        "range": {key: [min(r[key][0] for r in ranges), max(r[key][1] for r in ranges)] for key in ("flops", "bytes")},
    }


def _percent(value: float) -> float:
    return round(value, 3)


def _tree(
    accelerator: Accelerator, fitted: Accelerator, source: Source, results: Sequence[ClassResult]
) -> dict[str, Any]:
    """Return the calibration as plain values: constants, power and bars of single operations."""
    tree: dict[str, Any] = json.loads(fitted.calibration.to_json())
    rate = steady_rate(source.rows)
    if rate is not None:
        tree["step"]["sustained_compute"] = round(rate, 4)
    tree["power"] = steady_power(accelerator, source.rows)
    bars = tree["intervals"]
    bars["coverage"] = COVERAGE
    for name, families in BY_DTYPE.items():
        own = {r.observed.dtype: dict(r.interval) for r in results if r.observed.family in families}
        bars[name] = own or bars[name]
    for name, families in POOLED.items():
        bars[name] = _pooled([r.interval for r in results if r.observed.family in families]) or bars.get(name)
    tree["name"] = f"{accelerator.name}/{source.kernel_library}"
    tree["kernel_library"] = source.kernel_library
    return tree


def _take_collectives(tree: dict[str, Any], other: Calibration) -> dict[str, Any]:
    """Put another calibration's collective library and its bar into the tree; return its errors by class."""
    theirs = json.loads(other.to_json())
    errors = {name: one for name, one in theirs["provenance"]["errors"].items() if name.startswith("collective.")}
    if not errors:
        raise SpecError("collectives", other.name, "must be a calibration whose collectives were measured")
    tree["collective"] = theirs["collective"]
    tree["intervals"]["collective"] = theirs["intervals"]["collective"]
    return errors


def _finish(
    accelerator: Accelerator,
    tree: dict[str, Any],
    source: Source,
    results: Sequence[ClassResult],
    borrowed: Mapping[str, Any],
    prior: Calibration | None,
) -> Calibration:
    """Add the provenance."""
    measured = {result.observed.family for result in results} | ({"collective"} if borrowed else set())
    classes = {**{name: (name,) for name in CLASSES[:4]}, **BY_DTYPE, **POOLED}
    others = [name for name, families in classes.items() if not measured.intersection(families)]
    notes = [source.note]
    if borrowed:
        replays = ", and as graphs replay it" if tree["collective"].get("graph_s") else ""
        notes.append(f"collectives: NCCL as published kernel tables have it{replays}")
    if others:
        origin = "assumed" if prior is None else f"taken from {prior.name}"
        notes.append(f"{origin}, not measured: {', '.join(others)}")
    if prior is not None:
        notes.append(f"where points are few, constants lean on {prior.name}")
    provenance = {
        "basis": source.basis,
        "device": accelerator.name,
        "family": accelerator.family,
        "memory_bandwidth_bytes_per_s": accelerator.memory_bandwidth_bytes_per_s,
        "num_compute_units": accelerator.num_compute_units,
        "software": source.software,
        "date": source.date,
        "num_points": sum(len(result.observed) for result in results),
        "errors": {**{result.name: _errors(result) for result in results}, **borrowed},
        "note": "; ".join(part for part in notes if part),
    }
    return Calibration.load(_rounded({**tree, "provenance": provenance}))


def _errors(result: ClassResult) -> dict[str, Any]:
    return {
        "num_points": len(result.observed),
        "left_out": len(result.observed.left_out),
        "in_sample_percent": _percent(result.in_sample.mean),
        "unseen_percent": _percent(result.unseen.mean),
        "unseen_median_percent": _percent(result.unseen.median),
        "unseen_bias_percent": _percent(result.unseen.bias),
        "unseen_coverage": _percent(result.coverage),
        "roofline_percent": _percent(result.roofline.mean),
    }


def _rounded(value: Any) -> Any:
    """Six digits are finer than any constant is known, and make equal fits equal files."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, Mapping):
        return {key: _rounded(item) for key, item in value.items() if item is not None}
    return value
