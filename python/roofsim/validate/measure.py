"""One call that measures: choose a backend, build the plan, run it, finish the file."""

from __future__ import annotations

import platform
import time
from typing import TYPE_CHECKING

from .phases import Phases
from .plan import build_plan
from .record import MeasurementFile
from .runner import Backend, RunSummary, run_points

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from .points import Point

__all__ = ["measure", "open_backend"]


def open_backend(name: str, *, seed: int = 0, quick: bool = False, phases: Phases | None = None) -> Backend:
    """Return the named backend, ready to measure; a quick one leaves out kernels that hardly ever win.

    Importing torch becomes a phase of its own.

    Raises
    ------
    ValidationUnavailableError
        The machine lacks what the backend needs (torch, a CUDA device).
    ValueError
        No such backend.
    """
    if name == "cpu":
        from .cpu import CpuBackend

        return CpuBackend(seed=seed)
    if name == "cuda":
        from .cuda import CudaBackend
        from .cuda.device import import_torch

        import_torch()
        if phases is not None:
            phases.end("torch")
        return CudaBackend(seed=seed, quick=quick)
    raise ValueError(f"backend = {name!r}: must be 'cuda' or 'cpu'")


def measure(
    output: str | os.PathLike[str],
    *,
    backend: str = "cuda",
    families: Sequence[str] | None = None,
    seed: int = 0,
    quick: bool = False,
    budget_seconds: float | None = None,
    began: float | None = None,
    resume: bool = False,
    points: Sequence[Point] | None = None,
    marker: Path | None = None,
    progress: Callable[[int, int, Point], None] | None = None,
) -> RunSummary:
    """Measure points on this machine and write them to `output`.

    Parameters
    ----------
    output
        A `.jsonl` file, or `.jsonl.gz` to have it compressed at the end.
    backend
        "cuda" (torch, one NVIDIA device) or "cpu" (NumPy).
    families
        Which families; all of the backend's when absent.
    seed
        Fixes points, order and operand data.
    quick
        A run of about a minute.
    budget_seconds
        Points end within this many seconds of `began`: what would take longer is left out. The order is balanced, so
        that a cut run still covers every family.
    began
        Seconds of the epoch from which budget and phases count; this call when absent.
    resume
        Keep the rows of an existing file and skip their points.
    points
        Measure these instead of the built-in plan (a model's own shapes, rows of a sweep).
    marker
        Names the point under way, for a supervising process.
    progress
        Called with (done, total, point) before each point.

    Returns
    -------
    RunSummary
        Counts, seconds by phase and the reason of the stop.

    Raises
    ------
    ValidationUnavailableError
        The machine lacks what the backend needs.
    """
    phases = Phases(time.time() if began is None else began)
    phases.end("start")
    engine = open_backend(backend, seed=seed, quick=quick, phases=phases)
    header = dict(engine.describe())
    phases.end("device")
    if points is None:
        memory = float(header.get("memory_bytes") or 80e9)
        devices = int(header.get("num_devices") or 1)
        points = build_plan(backend, families, seed=seed, quick=quick, memory_bytes=memory, num_devices=devices)
    file = MeasurementFile(output, resume=resume)
    extra = {"seed": seed, "quick": quick, "planned_points": len(points), "python": platform.python_version()}
    spent = time.time() - phases.began
    deadline = None if budget_seconds is None else time.monotonic() + budget_seconds - spent
    summary = run_points(
        engine, points, file, deadline=deadline, header=extra, marker=marker, progress=progress, phases=phases
    )
    summary["output"] = str(file.finish())
    return summary
