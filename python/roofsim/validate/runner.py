"""The loop: measure points in order, record errors as rows, stop on the budget, resume where it stopped."""

from __future__ import annotations

import datetime
import time
from typing import TYPE_CHECKING, Any, Protocol

from .budget import Budget
from .phases import Phases

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from .points import Point
    from .record import MeasurementFile

__all__ = ["Backend", "RunSummary", "point_row", "run_points"]


class Backend(Protocol):
    """What measures points: the CUDA device or the CPU."""

    name: str

    def describe(self) -> Mapping[str, Any]:
        """Return the header: device, software versions, clocks."""

    def measure(self, point: Point) -> Iterable[Mapping[str, Any]]:
        """Return one mapping a candidate kernel: `backend`, `median_s`, `p10_s`, `p90_s`, ..., `error`."""

    def recover(self) -> bool:
        """After an exception: free what can be freed, and say whether the device still answers."""


class RunSummary(dict[str, Any]):
    """Counts of a run: planned, skipped, measured, errors, left out by class; seconds by phase; reason of the stop."""


def point_row(point: Point, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the record of one measurement of one point."""
    row = {"record": "point", "point_id": point.point_id, "family": point.family, **point.params, **point.labels}
    return {**row, "error": None, **values}


def _measured(backend: Backend, point: Point, summary: RunSummary) -> list[dict[str, Any]]:
    """Return the rows of one point; a failure is a row, whatever its cause, since data already taken must survive."""
    try:
        rows = [point_row(point, values) for values in backend.measure(point)]
    except Exception as error:
        rows = [point_row(point, {"backend": None, "error": f"{type(error).__name__}: {error}"[:300]})]
        summary["alive"] = backend.recover()
    return rows or [point_row(point, {"backend": None, "error": "no candidate kernel"})]


def run_points(
    backend: Backend,
    points: Sequence[Point],
    file: MeasurementFile,
    *,
    deadline: float | None = None,
    header: Mapping[str, Any] | None = None,
    marker: Path | None = None,
    progress: Callable[[int, int, Point], None] | None = None,
    phases: Phases | None = None,
) -> RunSummary:
    """Measure the points that the file does not hold yet.

    Parameters
    ----------
    backend
        What measures.
    points
        In the order in which they are measured.
    file
        Where rows go; each point's rows are written before the next point starts.
    deadline
        `time.monotonic()` value at which the last point is to have ended: points that by the last ones of their class
        would take longer are left out, and counted by class.
    header
        Added to the backend's own description.
    marker
        A file that names the point under way, for a supervisor to read after a crash.
    progress
        Called with (done, total, point) before each point.
    phases
        What came before the points; each family of them becomes a phase.

    Returns
    -------
    RunSummary
        What happened: `reason` is "complete", "budget", "interrupted" or "device lost"; `alive` is False when the
        device no longer answers and the process must be replaced; `left_out` counts points by class for which there
        was no time; `phases` has seconds by phase, those of points by family.
    """
    began = time.monotonic()
    phases = phases or Phases(time.time())
    budget = Budget(deadline)
    date = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    file.write_header({"date": date, **backend.describe(), **(header or {})})
    todo = [point for point in points if point.point_id not in file.done]
    summary = RunSummary(planned=len(points), skipped=len(points) - len(todo), measured=0, errors=0, alive=True)
    summary["reason"] = "complete"
    phases.end("plan")
    try:
        for index, point in enumerate(todo):
            if not budget.allows(point):
                continue
            if progress is not None:
                progress(index, len(todo), point)
            if marker is not None:
                marker.write_text(point.point_id, encoding="utf-8")
            start = time.monotonic()
            rows = _measured(backend, point, summary)
            spent = time.monotonic() - start
            budget.took(point, spent)
            phases.end(point.family)
            rows[-1]["wall_s"] = spent
            file.append(rows)
            summary["measured"] += 1
            summary["errors"] += all(row["error"] is not None for row in rows)
            if not summary["alive"]:
                summary["reason"] = "device lost"
                break
    except KeyboardInterrupt:  # what is measured is on disk: the caller decides how to leave
        summary["reason"] = "interrupted"
    if marker is not None:
        marker.unlink(missing_ok=True)
    summary["seconds"] = time.monotonic() - began
    summary["left_out"] = dict(budget.left_out)
    if budget.left_out and summary["reason"] == "complete":
        summary["reason"] = "budget"
    summary["phases"] = dict(phases.seconds)
    file.append([{"record": "end", **summary}])
    return summary
