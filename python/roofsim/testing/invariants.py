"""The laws of the oracle as functions: each raises `AssertionError` with the numbers when its law does not hold."""

from __future__ import annotations

import math
import operator
from typing import TYPE_CHECKING, Any

import numpy as np

import roofsim as rs
from roofsim.sweep import COLUMNS

if TYPE_CHECKING:
    from collections.abc import Sequence

    Requests = Sequence[tuple[int, int]]

__all__ = [
    "check_bounds",
    "check_calibrated_at_least_ideal",
    "check_capacity_is_exact",
    "check_monotone",
    "check_pareto",
    "check_search",
    "check_step_is_sum_of_ops",
    "check_subadditive",
    "check_sweep_equals_step",
    "check_top_k",
    "subadditive_excess",
]

ROUNDING = 1e-12
"""Relative difference that the order of floating-point operations may make."""


def _hold(holds: bool, message: str) -> None:
    if not holds:
        raise AssertionError(message)


def check_bounds(cost: rs.StepCost | rs.OpCost) -> None:
    """Law 2 on one cost: the interval holds the time, stays at or above ideal, parts add up, bound names the largest.

    Parameters
    ----------
    cost
        Cost of a step or of one operation.
    """
    _hold(math.isfinite(cost.time_s) and cost.time_s >= 0.0, f"time_s = {cost.time_s}")
    _hold(cost.time_s >= cost.ideal_s, f"time_s = {cost.time_s!r} is below ideal_s = {cost.ideal_s!r}")
    _hold(cost.time_low_s >= cost.ideal_s, f"time_low_s = {cost.time_low_s!r} is below ideal_s = {cost.ideal_s!r}")
    _hold(cost.time_low_s <= cost.time_s <= cost.time_high_s, "the interval does not hold the time")
    parts = {name: getattr(cost, f"{name}_s") for name in ("compute", "memory", "network", "overhead")}
    for name, part in parts.items():
        _hold(math.isfinite(part) and part >= 0.0, f"{name}_s = {part}")
    total = sum(parts.values())
    _hold(cost.time_s <= total * (1 + ROUNDING), f"time_s = {cost.time_s!r} is above the sum of its parts, {total!r}")
    _hold(parts[cost.bound] == max(parts.values()), f"bound = {cost.bound} is not the largest of {parts}")


def check_monotone(deployment: rs.Deployment, requests: Requests, grown: Requests) -> None:
    """Law 1: a step that has every row of another, on no shorter contexts, never takes less time. Exact.

    Neither end of its interval falls either, up to rounding, where both steps are of decodes alone or neither is: the
    two kinds have bars of their own.

    Parameters
    ----------
    deployment
        What runs the steps.
    requests
        The smaller step.
    grown
        The larger step.
    """
    small, large = deployment.step(requests), deployment.step(grown)
    for field in ("time_s", "ideal_s", "flops", "bytes"):
        a, b = getattr(small, field), getattr(large, field)
        _hold(b >= a, f"{field} falls from {a!r} to {b!r} when {requests} grows to {grown}")
    if all(query == 1 for query, _ in requests) != all(query == 1 for query, _ in grown):
        return
    for field in ("time_low_s", "time_high_s"):
        a, b = getattr(small, field), getattr(large, field)
        _hold(b >= a * (1 - ROUNDING), f"{field} falls from {a!r} to {b!r} when {requests} grows to {grown}")


def check_calibrated_at_least_ideal(calibrated: rs.Deployment, ideal: rs.Deployment, requests: Requests) -> None:
    """Law 2 across calibrations, for the step and for every operation of it. Exact.

    Parameters
    ----------
    calibrated, ideal
        The same deployment under two calibrations, the second one ``ideal``.
    requests
        The step.
    """
    slow, bound = calibrated.step(requests), ideal.step(requests)
    _hold(slow.time_s >= bound.time_s, f"calibrated {slow.time_s!r} s is below ideal {bound.time_s!r} s")
    _hold(slow.ideal_s == bound.time_s, f"ideal_s {slow.ideal_s!r} is not the ideal deployment's {bound.time_s!r}")
    for one, other in zip(slow.ops, bound.ops, strict=True):
        _hold((one.name, one.count) == (other.name, other.count), f"{one.name} is not {other.name}")
        _hold((one.flops, one.bytes) == (other.flops, other.bytes), f"{one.name} does other work when calibrated")
        _hold(one.time_s >= other.time_s, f"{one.name}: calibrated {one.time_s!r} s is below ideal {other.time_s!r} s")


def check_step_is_sum_of_ops(step: rs.StepCost) -> None:
    """Add up a step's operations, each times its count, in the order of the table: exactly the step.

    Parameters
    ----------
    step
        The step.
    """
    for field in ("time_s", "ideal_s", "compute_s", "memory_s", "network_s", "overhead_s", "flops", "bytes"):
        total = 0.0
        for op in step.ops:
            total += op.count * getattr(op, field)
        _hold(total == getattr(step, field), f"{field} = {getattr(step, field)!r}, its operations sum to {total!r}")


def subadditive_excess(deployment: rs.Deployment, one: Requests, other: Requests) -> float:
    """Measure law 3: by what fraction one step with all requests costs more than two steps with a part each.

    Returns
    -------
    float
        Positive where the law is broken: 0.02 is 2% more than the two apart.
    """
    together = deployment.step([*one, *other]).time_s
    apart = deployment.step(one).time_s + deployment.step(other).time_s
    return together / apart - 1.0


def check_subadditive(
    deployment: rs.Deployment, one: Requests, other: Requests, *, tolerance: float = ROUNDING
) -> None:
    """Law 3: one batch never costs more than its two parts apart, beyond a relative tolerance.

    Parameters
    ----------
    deployment
        What runs the steps.
    one, other
        The two parts.
    tolerance
        Rounding in ``ideal``; 0.02 is what a calibrated law promises.
    """
    excess = subadditive_excess(deployment, one, other)
    _hold(excess <= tolerance, f"{one} and {other} cost {100 * excess:.3f}% more together than apart")


def check_capacity_is_exact(capacity: rs.Capacity, context_tokens: int) -> None:
    """Law 6: sequences of a longer context never fit in larger numbers, and `fits` says whether one token does.

    Parameters
    ----------
    capacity
        What a deployment holds.
    context_tokens
        A context; the next one is compared with it.
    """
    here, longer = capacity.max_sequences(context_tokens), capacity.max_sequences(context_tokens + 1)
    _hold(longer <= here, f"{longer} sequences of {context_tokens + 1} tokens fit, but {here} of {context_tokens}")
    _hold(capacity.fits == (capacity.max_sequences(1) > 0), "fits does not say whether one token fits")
    _hold(bool(capacity.reason) != capacity.fits, f"fits = {capacity.fits} with the reason {capacity.reason!r}")


_FROM_STEP = (
    "time_s",
    "time_low_s",
    "time_high_s",
    "ideal_s",
    "compute_s",
    "memory_s",
    "network_s",
    "overhead_s",
    "flops",
    "bytes",
    "arithmetic_intensity",
    "mfu",
    "mbu",
    "bound",
)
_CAPACITY = ("gpu_memory_utilization", "block_size", "max_num_batched_tokens", "max_num_seqs")
_DEPLOYMENT = (
    "tensor_parallel_size",
    "pipeline_parallel_size",
    "data_parallel_size",
    "expert_parallel_size",
    "weight_dtype",
    "kv_cache_dtype",
    "engine",
)


def check_sweep_equals_step(
    space: rs.SweepSpace,
    models: Sequence[Any],
    accelerators: Sequence[Any],
    calibrations: Sequence[Any] = (None,),
    rows: Sequence[int] | None = None,
) -> None:
    """Law 9: a row of a sweep holds, bit for bit, what `Deployment.step` and `Deployment.capacity` say.

    Parameters
    ----------
    space
        The space.
    models, accelerators, calibrations
        Its axes, as they were given.
    rows
        Rows to check; all by default.
    """
    columns = [*_FROM_STEP, "tokens_per_s", "tokens_per_s_per_gpu", "tokens_per_s_per_user", "fits", "max_sequences"]
    columns += ["kv_cache_bytes", "weight_bytes", "num_devices", "status", "model", "accelerator", "calibration"]
    table = space.run(columns)
    combinations = len(space) // (len(models) * len(accelerators))
    per_calibration = _rows_below_calibration(space)
    for row in range(len(space)) if rows is None else rows:
        c = space[row]
        model = models[row // (len(space) // len(models))]
        accelerator = accelerators[row // combinations % len(accelerators)]
        calibration = calibrations[row // per_calibration % len(calibrations)]
        arguments: dict[str, Any] = {name: c[name] for name in _DEPLOYMENT}
        q, s, b = c["query_tokens"], c["context_tokens"], c["batch_size"]
        try:
            deployment = rs.Deployment(model, accelerator, calibration=calibration, **arguments)
        except rs.SpecError as error:
            _hold(table["status"][row] != "ok", f"row {row} is ok, but {error}")
            _hold(table["time_s"][row] is np.ma.masked, f"row {row} is not masked")
            continue
        if q > s:
            _hold(table["status"][row] == "query_exceeds_context", f"row {row}: {q} new tokens of {s}")
            _hold(table["time_s"][row] is np.ma.masked, f"row {row} is not masked")
            continue
        try:
            step = deployment.decode(batch_size=b, context_tokens=s) if q == 1 else None
            step = step or deployment.prefill(prompt_tokens=s, batch_size=b, cached_tokens=s - q)
        except rs.SpecError as error:
            _hold(table["status"][row] == "too_many_rows", f"row {row} is {table['status'][row]}, but {error}")
            _hold(table["time_s"][row] is np.ma.masked, f"row {row} is not masked")
            continue
        _hold(table["status"][row] == "ok", f"row {row} is {table['status'][row]}, but a step exists")
        capacity = deployment.capacity(c["capacity_mode"], **{name: c[name] for name in _CAPACITY})
        in_flight = b * q * c["pipeline_parallel_size"] * c["data_parallel_size"]
        expected = {name: getattr(step, name) for name in _FROM_STEP} | {
            "max_sequences": capacity.max_sequences(s),
            "fits": b * c["pipeline_parallel_size"] <= capacity.max_sequences(s),
            "kv_cache_bytes": capacity.kv_cache_bytes,
            "weight_bytes": capacity.weight_bytes,
            "num_devices": deployment.num_devices,
        }
        for name, value in expected.items():
            found = table[name][row]
            _hold(found == value, f"row {row}, {name}: the sweep says {found!r}, the step {value!r} ({c})")
        # Rates are no result of a step: the order of their two divisions is the sweep's own.
        rates = {"tokens_per_s": in_flight, "tokens_per_s_per_gpu": in_flight / deployment.num_devices}
        for name, tokens in (rates | {"tokens_per_s_per_user": q}).items():
            found, value = table[name][row], tokens / step.time_s
            _hold(abs(found - value) <= ROUNDING * value, f"row {row}, {name}: {found!r} is not {value!r} ({c})")


def _rows_below_calibration(space: rs.SweepSpace) -> int:
    lengths = space._space.axis_lengths()
    return math.prod(lengths[9:])


def _ranked(space: rs.SweepSpace, columns: Sequence[str], where: Sequence[str]) -> tuple[Any, Any]:
    """Signed columns (smaller is better) as plain NumPy, and which rows may rank."""
    names = {*columns, "status", *(_condition(text)[0] for text in where)}
    table = space.run(sorted(names))
    allowed = np.asarray(table["status"] == "ok")
    for text in where:
        name, test, value = _condition(text)
        column = table[name]
        allowed &= np.asarray(test(column.data, value)) & ~np.ma.getmaskarray(column)
    points = []
    for name in columns:
        values = np.asarray(table[name].data, dtype=np.float64)
        allowed &= ~np.isnan(values)
        points.append(-values if COLUMNS[name][0] == "higher" else values)
    return np.stack(points, axis=1), allowed


def _condition(text: str) -> tuple[str, Any, Any]:
    tests = {"<=": operator.le, ">=": operator.ge, "==": operator.eq, "!=": operator.ne}
    for symbol, test in (tests | {"<": operator.lt, ">": operator.gt}).items():
        if symbol in text:
            name, _, value = (part.strip() for part in text.partition(symbol))
            try:
                return name, test, float(value)
            except ValueError:
                return name, test, value
    return text.removeprefix("not ").strip(), operator.eq, not text.startswith("not ")


def check_top_k(space: rs.SweepSpace, k: int, by: str, where: Sequence[str] = ()) -> None:
    """Law 9: `top_k` is what sorting the columns gives, ties to the lower row.

    Parameters
    ----------
    space
        The space, small enough to be materialised.
    k, by, where
        As in `SweepSpace.top_k`.
    """
    points, allowed = _ranked(space, [by], where)
    rows = np.flatnonzero(allowed)
    order = rows[np.argsort(points[rows, 0], kind="stable")][:k]
    found = space.top_k(k, by=by, where=where)
    rows = order.tolist()
    _hold(found.indices == rows, f"top_k({k}, {by}, {where}) = {found.indices}, sorting gives {rows}")
    values = space.run([by])[by].data[order].astype(np.float64)
    _hold(found.values == values.tolist(), f"top_k values {found.values}, the column has {values.tolist()}")


def check_search(space: rs.SweepSpace, k: int, by: str, objectives: Sequence[str], where: Sequence[str] = ()) -> None:
    """Law 9: a search gives the rows and the values of a scan, to the last bit, and accounts for every row.

    Parameters
    ----------
    space
        The space, small enough to be scanned.
    k, by, where
        As in `SweepSpace.top_k`.
    objectives
        As in `SweepSpace.pareto`.
    """
    scan, search = (space.top_k(k, by=by, where=where, method=method) for method in ("scan", "search"))
    _hold(scan.indices == search.indices, f"top_k({k}, {by}, {where}): {search.indices} where {scan.indices} is right")
    _hold(scan.values == search.values, f"top_k({k}, {by}, {where}): {search.values} where {scan.values} is right")
    _hold(scan.report.num_evaluated == search.report.num_configurations == space.num_configurations, "rows in reports")
    done: list[tuple[int, int]] = []
    fronts = [
        space.pareto(objectives, where=where, method=method, progress=lambda *rows: done.append(rows))
        for method in ("scan", "search")
    ]
    rows = [front.indices for front in fronts]
    _hold(rows[0] == rows[1], f"pareto({objectives}, {where}): {rows[1]} where {rows[0]} is right")
    _hold(bool((fronts[0].values == fronts[1].values).all()), f"pareto({objectives}, {where}) values differ")
    _hold(done[-1] == (space.num_configurations, space.num_configurations), f"progress ends at {done[-1]}")


def check_pareto(space: rs.SweepSpace, objectives: Sequence[str], where: Sequence[str] = ()) -> None:
    """Law 9: `pareto` is what comparing every pair of rows gives; of equal rows the lowest stays.

    Parameters
    ----------
    space
        The space, a few thousand rows at most: the comparison is quadratic.
    objectives, where
        As in `SweepSpace.pareto`.
    """
    points, allowed = _ranked(space, objectives, where)
    rows = np.flatnonzero(allowed)
    chosen = points[rows]
    front = []
    for i, row in enumerate(rows):
        no_worse = (chosen <= chosen[i]).all(axis=1)
        better = no_worse & (chosen < chosen[i]).any(axis=1)
        equal_before = (chosen[:i] == chosen[i]).all(axis=1)
        if not better.any() and not equal_before.any():
            front.append(int(row))
    found = space.pareto(objectives, where=where)
    _hold(found.indices == front, f"pareto({objectives}, {where}) = {found.indices}, comparing gives {front}")
