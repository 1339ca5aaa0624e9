"""Command line of the measuring harness, and the supervisor that outlives a crashed or hung device process."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from .budget import QUICK_SECONDS
from .errors import ValidationUnavailableError
from .measure import measure
from .phases import BEGAN, process_began
from .plan import build_plan
from .record import MeasurementFile
from .runner import point_row

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .points import Point

__all__ = ["INTERRUPTED", "main", "wait_interrupted"]

WORKER = "ROOFSIM_VALIDATE_WORKER"
LOST = 75  # exit status of a worker whose device no longer answers
INTERRUPTED = 130  # as a shell reports a process that SIGINT ended
HANG_SECONDS = 90.0
SAVE_SECONDS = 30.0  # in which an interrupted worker ends its point and closes its file
FORWARD_SECONDS = 3.0
MAX_RESTARTS = 8
COMPILED = {"decode_attention", "prefill_attention", "elementwise", "grouped_gemm", "step"}
"""Families whose kernels Triton compiles."""


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="roofsim.validate", description="Measure kernels on this machine.")
    parser.add_argument("--output", default="measurements.jsonl.gz", help="file to write (.jsonl or .jsonl.gz)")
    parser.add_argument("--backend", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--families", help="comma-separated; all of the backend's by default")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", "--budget-seconds", type=float, help="that the whole run may take")
    parser.add_argument("--quick", action="store_true", help="a run of at most a minute")
    parser.add_argument("--resume", action="store_true", help="skip points that the file holds")
    parser.add_argument("--list", action="store_true", help="print the planned points and stop")
    parser.add_argument("--compile-ahead", help=argparse.SUPPRESS)  # "1/8": this program as a compiling helper
    parser.add_argument("--no-supervise", action="store_true", help="measure in this very process")
    return parser


def _progress() -> Callable[[int, int, Point], None]:
    last = [0.0]

    def report(done: int, total: int, point: Point) -> None:
        now = time.monotonic()
        if now - last[0] > 5.0:
            last[0] = now
            _say(f"[{done}/{total}] {point.family} {dict(point.params)}")

    return report


def _marker(output: str) -> Path:
    return Path(f"{output}.current")


def _work(options: argparse.Namespace, families: list[str] | None) -> int:
    """Measure in this process."""
    try:
        summary = measure(
            options.output,
            backend=options.backend,
            families=families,
            seed=options.seed,
            quick=options.quick,
            budget_seconds=options.seconds,
            began=float(os.environ[BEGAN]) if BEGAN in os.environ else None,
            resume=options.resume or WORKER in os.environ,
            marker=_marker(options.output),
            progress=_progress(),
        )
    except ValidationUnavailableError as error:
        _say(f"unavailable: {error}")
        return 3
    _say(json.dumps(summary, default=str))
    if summary["reason"] == "interrupted":
        return INTERRUPTED
    return 0 if summary["alive"] else LOST


def _wait(process: subprocess.Popen[bytes], marker: Path) -> int:
    """Wait for the worker; end it when one point takes longer than any point can."""
    while True:
        try:
            return process.wait(timeout=2.0)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(OSError):
                if time.time() - marker.stat().st_mtime > HANG_SECONDS:
                    process.kill()
        except KeyboardInterrupt:
            return wait_interrupted(process)


def wait_interrupted(process: subprocess.Popen[bytes]) -> int:
    """Wait for a process to save what it has after an interruption, which a terminal sends to both; pass it on if not.

    Returns 130 whatever the process says: the run is not complete.
    """
    for seconds in (FORWARD_SECONDS, SAVE_SECONDS):
        with contextlib.suppress(subprocess.TimeoutExpired, KeyboardInterrupt):
            process.wait(timeout=seconds)
            return INTERRUPTED
        process.send_signal(signal.SIGINT)
    process.kill()
    return INTERRUPTED


def _interrupt_once(_signal: int, _frame: object) -> None:
    """Interrupt, and let nothing interrupt the saving."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    raise KeyboardInterrupt


def _record_crash(options: argparse.Namespace, points: Sequence[Point], code: int) -> None:
    """Write the point that was under way as an error row, so that the next worker passes it by."""
    marker = _marker(options.output)
    if not marker.exists():
        return
    point_id = marker.read_text(encoding="utf-8")
    marker.unlink()
    file = MeasurementFile(options.output, resume=True)
    for point in points:
        if point.point_id == point_id and point_id not in file.done:
            file.append([point_row(point, {"backend": None, "error": f"worker ended with status {code}"})])


def _plan(options: argparse.Namespace, families: list[str] | None) -> list[Point]:
    return build_plan(options.backend, families, seed=options.seed, quick=options.quick)


def _known_points(options: argparse.Namespace, families: list[str] | None) -> list[Point]:
    """Return every point that a worker may have had in hand, whatever memory its device has."""
    points: list[Point] = []
    for memory in _memory_sizes(options.output):
        points += build_plan(
            options.backend, families, seed=options.seed, quick=options.quick, memory_bytes=memory, num_devices=8
        )
    return points


def _memory_sizes(output: str) -> list[float]:
    _, plain = _paths(output)
    sizes: list[float] = []
    with contextlib.suppress(OSError), plain.open(encoding="utf-8") as stream:
        for line in stream:
            if '"memory_bytes"' in line[:4000]:
                sizes.append(float(json.loads(line).get("memory_bytes") or 80e9))
    return sizes or [80e9]


def _paths(output: str) -> tuple[Path, Path]:
    """Return the file of a run and the plain one that is written first."""
    path = Path(output)
    return path, path.with_suffix("") if path.suffix == ".gz" else path


def _compile_ahead(options: argparse.Namespace, families: list[str] | None) -> int:
    """Compile a share of the kernels that the run will launch."""
    from .cuda.ahead import compile_ahead

    index, count = map(int, options.compile_ahead.split("/"))
    compile_ahead(_plan(options, families), index, count, quick=options.quick)
    return 0


def _start_ahead(options: argparse.Namespace, families: list[str] | None) -> list[subprocess.Popen[bytes]]:
    """Start the compiling helpers of a run that launches Triton kernels; they need torch, as the run does."""
    from importlib.util import find_spec

    from .cuda.ahead import start_ahead

    if find_spec("triton") is None or (families and not COMPILED & set(families)):
        return []
    chosen = ["--backend", "cuda", "--seed", str(options.seed)]
    chosen += ["--families", ",".join(families)] if families else []
    return start_ahead([*chosen, "--quick"] if options.quick else chosen)


def _supervise(options: argparse.Namespace, families: list[str] | None) -> int:
    """Measure in workers, with helpers that compile ahead."""
    from .cuda.ahead import stop_ahead

    helpers = _start_ahead(options, families)
    try:
        return _run_workers(options, families)
    finally:
        stop_ahead(helpers)


def _run_workers(options: argparse.Namespace, families: list[str] | None) -> int:
    """Run workers until one ends well; each restart resumes the file and skips the point that broke the last."""
    _marker(options.output).unlink(missing_ok=True)
    began = float(os.environ.get(BEGAN) or process_began())
    environment = {**os.environ, WORKER: "1", BEGAN: str(began)}
    command = [sys.executable, *sys.orig_argv[1:]]
    code = 1
    for attempt in range(MAX_RESTARTS):
        process = subprocess.Popen(command, env=environment)  # noqa: S603 - this very program, its own arguments
        code = _wait(process, _marker(options.output))
        if code in (0, 2, 3, INTERRUPTED):
            return code
        _say(f"worker {attempt} ended with status {code}")
        _record_crash(options, _known_points(options, families), code)
        if options.seconds is not None and began + options.seconds - time.time() < 10.0:
            break
    MeasurementFile(options.output, resume=True).finish()
    return code


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line and measure.

    Returns the exit status: 0 done or out of budget; 2 refused; 3 the machine cannot measure; 130 interrupted, with
    everything measured so far in the file and `--resume` to go on. Any other is that of a worker that could not be
    replaced.
    """
    options = _parser().parse_args(arguments)
    if arguments is None:
        signal.signal(signal.SIGINT, _interrupt_once)
    if options.quick and options.seconds is None:
        options.seconds = QUICK_SECONDS
    families = [name.strip() for name in options.families.split(",")] if options.families else None
    fresh = not (options.list or options.resume or options.compile_ahead)
    if fresh and WORKER not in os.environ and any(map(Path.exists, _paths(options.output))):
        _say(f"output = {options.output}: holds measurements: resume it or name another file")
        return 2
    if options.compile_ahead:
        return _compile_ahead(options, families)
    if options.list:
        for point in _plan(options, families):
            sys.stdout.write(json.dumps({"family": point.family, **point.params, **point.labels}) + "\n")
        return 0
    if options.no_supervise or options.backend == "cpu" or WORKER in os.environ or arguments is not None:
        return _work(options, families)
    return _supervise(options, families)
