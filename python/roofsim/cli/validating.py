"""`roofsim validate`."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich.text import Text

import roofsim
from roofsim import cli
from roofsim.cli import options as shared
from roofsim.cli.calibrating import complain_softly
from roofsim.cli.display import Column, number, print_json, print_table, significant, stdout
from roofsim.errors import RoofsimError, SpecError, ValidationUnavailableError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.console import Console

    from roofsim.report import Comparison
    from roofsim.validate import Point

POINTS = "What to measure"
UNAVAILABLE = 3
"""Exit status of the harness on a machine that cannot measure."""
COMPARING_SECONDS = 3.0
"""Kept back of a command's seconds for ending the measuring process and for the comparison."""
INTERRUPTED = 130
"""Exit status after an interruption, of the harness as of this command."""


def validate(
    output: Annotated[
        str, typer.Option("--output", "-o", help="Measurement file (.jsonl, .jsonl.gz).", rich_help_panel=shared.OUTPUT)
    ] = "measurements.jsonl.gz",
    backend: Annotated[str, typer.Option(help="cuda (torch, one NVIDIA device) or cpu (NumPy).")] = "cuda",
    device: Annotated[
        str | None, typer.Option("--device", help="Accelerator to predict for; the machine's own by default.")
    ] = None,
    calibration: shared.CalibrationOption = "calibrated",
    families: Annotated[
        list[str] | None, typer.Option(help="Families of points; all by default.", rich_help_panel=POINTS)
    ] = None,
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", help="Measure the kernels of this model's steps.", rich_help_panel=POINTS),
    ] = None,
    tensor_parallel_size: shared.TensorOption = 1,
    batch_size: Annotated[list[str] | None, typer.Option(help="Of the model's steps.", rich_help_panel=POINTS)] = None,
    context_tokens: Annotated[
        list[str] | None, typer.Option(help="Of the model's steps.", rich_help_panel=POINTS)
    ] = None,
    query_tokens: Annotated[
        list[str] | None, typer.Option(help="Of the model's steps.", rich_help_panel=POINTS)
    ] = None,
    points: Annotated[
        str | None,
        typer.Option("--points", help="Rows of a sweep to measure (.csv, .jsonl).", rich_help_panel=POINTS),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="A fifth of the points, in at most 60 seconds.", rich_help_panel=POINTS)
    ] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Keep the file's points and go on.")] = False,
    seconds: Annotated[
        float | None,
        typer.Option(
            "--seconds",
            "--budget-seconds",
            min=0.0,
            help="What the whole command may take; 60 with --quick. Points for which no time is left are left out.",
            show_default=False,
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Fixes points, order and operands.")] = 0,
    rows: Annotated[int, typer.Option(help="Worst points to print.", min=0, rich_help_panel=shared.OUTPUT)] = 10,
    report: Annotated[
        str | None,
        typer.Option("--report", help="Measure nothing; set this file beside the predictions.", show_default=False),
    ] = None,
    draft: Annotated[
        str | None,
        typer.Option(
            "--draft-spec",
            help="Write a spec of the measured device (.toml), to be completed from its datasheet; predict for it.",
            rich_help_panel=shared.OUTPUT,
        ),
    ] = None,
    as_json: shared.JsonOption = False,
) -> None:
    """Measure kernels and steps on this machine and set them beside the prediction.

    The file it writes is what `roofsim calibrate` fits to and `roofsim report` judges by.

    Exit codes: 0 measured and compared, all points or those for which there was time; 2 an input was refused, the
    machine cannot measure, or too little was measured to compare; 130 interrupted: what was measured is in the file,
    and --resume goes on.
    """
    from roofsim.report import compare
    from roofsim.validate.budget import QUICK_SECONDS
    from roofsim.validate.phases import process_began

    if draft is not None and (device is not None or not draft.endswith(".toml") or Path(draft).exists()):
        raise SpecError("draft_spec", draft, "must be a new .toml file, of a device that --device does not name")
    if model is not None and points is not None:
        raise SpecError("points", points, "give either --model or --points")
    if report is None:
        steps = _steps(batch_size, query_tokens, context_tokens)
        chosen = _points(model, points, tensor_parallel_size, steps, device or "h100-sxm")
        kinds = shared.words(families) if families else None
        began = process_began() if cli.own_process else time.time()
        if seconds is None and quick:
            seconds = QUICK_SECONDS
        _measure(output, backend, kinds, seed, quick, seconds, began, resume, chosen)
    comparing = time.time()
    if draft is not None:
        device = _draft_spec(report or output, draft)
    found = compare(report or output, device=device, calibration=calibration)
    spent = {**_phases(output), "comparison": time.time() - comparing} if report is None else {}
    if as_json:
        print_json(found.to_dict() | ({"phases_s": spent} if spent else {}))
        return
    _show(stdout(), found, rows)
    if spent:
        parts = ", ".join(f"{name.replace('_', ' ')} {s:.1f}" for name, s in spent.items())
        total = f"{time.time() - began:.1f} s in all"
        stdout().print(Text(f"{total}: {parts}", style="dim"))


def _draft_spec(output: str, path: str) -> str:
    """Write a draft of the measured device's spec; return its path."""
    from roofsim.calibrate.draft import draft_spec
    from roofsim.calibrate.files import read_files

    source, header = read_files([output])
    Path(path).write_text(draft_spec(header, source.rows), encoding="utf-8")
    complain_softly(f"a draft of the device's spec is in {path}: put in the datasheet's peaks and bandwidth")
    return path


def _steps(batch: list[str] | None, query: list[str] | None, context: list[str] | None) -> list[tuple[int, int, int]]:
    batches = shared.counts("batch_size", batch or ["1,32"])
    queries = shared.counts("query_tokens", query or ["1"])
    contexts = shared.counts("context_tokens", context or ["2048"])
    return [(b, q, s) for b in batches for q in queries for s in contexts if q <= s]


def _points(
    model: str | None, rows: str | None, tensor: int, steps: list[tuple[int, int, int]], device: str
) -> list[Point] | None:
    from roofsim.validate.requests import load_rows, points_from_deployment, points_from_rows

    if model is not None:
        deployment = roofsim.Deployment(model, device, tensor_parallel_size=tensor)
        return points_from_deployment(deployment, steps)
    if rows is not None:
        try:
            return points_from_rows(load_rows(rows), accelerator=device)
        except (OSError, ValueError) as error:
            if isinstance(error, RoofsimError):
                raise
            raise SpecError("points", rows, f"must be rows of a sweep: {error}") from error
    return None


def _measure(
    output: str,
    backend: str,
    families: list[str] | None,
    seed: int,
    quick: bool,
    seconds: float | None,
    began: float,
    resume: bool,
    points: list[Point] | None,
) -> None:
    from roofsim.validate import measure
    from roofsim.validate.command import wait_interrupted
    from roofsim.validate.phases import BEGAN

    if backend not in ("cuda", "cpu"):
        raise SpecError("backend", backend, "must be cuda or cpu")
    if not output.endswith((".jsonl", ".jsonl.gz")) or not Path(output).parent.is_dir():
        raise SpecError("output", output, "must end in .jsonl or .jsonl.gz, in a directory that exists")
    if not resume and Path(output).exists():
        raise SpecError("output", output, "holds measurements: --resume goes on with them, or name another file")
    budget = None if seconds is None else max(0.0, seconds - COMPARING_SECONDS)
    if backend == "cuda" and points is None:
        # A device process of its own: a kernel that hangs or crashes costs its point, not the run.
        options = ["--output", output, "--seed", str(seed)]
        options += ["--families", ",".join(families)] if families else []
        options += ["--quick"] if quick else []
        options += ["--resume"] if resume else []
        options += [] if budget is None else ["--seconds", str(budget)]
        environment = {**os.environ, BEGAN: str(began)}
        process = subprocess.Popen([sys.executable, "-m", "roofsim.validate", *options], env=environment)  # noqa: S603
        try:
            code = process.wait()
        except KeyboardInterrupt:
            code = wait_interrupted(process)
        if code == INTERRUPTED:
            _leave_interrupted(output)
        if code == UNAVAILABLE:
            raise ValidationUnavailableError(
                "backend", backend, "needs torch and one NVIDIA device (see above); --backend cpu runs anywhere"
            )
        if code:
            raise RoofsimError("backend", backend, f"the measuring process ended with status {code}")
        _tell_left_out(_last_end(output))
        return
    try:
        summary = measure(
            output, backend=backend, families=families, seed=seed, quick=quick, budget_seconds=budget, began=began,
            resume=resume, points=points, progress=_progress(),
        )  # fmt: skip
    except ValueError as error:
        if isinstance(error, RoofsimError):
            raise
        raise SpecError("families", ",".join(families or []), str(error)) from error
    if summary["reason"] == "interrupted":
        _leave_interrupted(output)
    _tell_left_out(summary)


def _last_end(output: str) -> dict[str, Any]:
    """Return the record with which the last measuring process ended; empty where it left none."""
    from roofsim.validate import load_measurements

    header, _ = load_measurements(output)
    ends = [record for record in header["sessions"] if record.get("record") == "end"]
    return ends[-1] if ends else {}


def _phases(output: str) -> dict[str, float]:
    """Return the seconds of the measuring process by phase."""
    return dict(_last_end(output).get("phases", {}))


def _tell_left_out(summary: Mapping[str, Any]) -> None:
    """Say for which points there was no time."""
    left = summary.get("left_out") or {}
    if left:
        kinds = ", ".join(f"{count:,} of {name}" for name, count in left.items())
        complain_softly(f"no time for {sum(left.values()):,} points ({kinds}): --resume measures them")


def _leave_interrupted(output: str) -> NoReturn:
    complain_softly(f"interrupted: what was measured is in {output}, and the same command with --resume goes on")
    raise typer.Exit(INTERRUPTED)


def _progress() -> Any:
    last = [-1]

    def tell(done: int, total: int, point: Point) -> None:
        tenth = 10 * done // max(total, 1)
        if tenth > last[0]:
            last[0] = tenth
            complain_softly(f"[{done}/{total}] {point.family}")

    return tell


def _show(console: Console, found: Comparison, rows: int) -> None:
    console.print(Text(f"{found.device}: measured beside {found.calibration}", style="bold"))
    console.print()
    heads = [
        Column("error, %"),
        number("points"),
        number("mean"),
        number("median", 1),
        number("bias", 2),
        number("in the bars", 1),
        number("bare roofline"),
    ]
    print_table(
        console,
        heads,
        [
            [
                each.name,
                f"{each.score.num_points:,}",
                f"{each.score.mean:.1f}",
                f"{each.score.median:.1f}",
                f"{each.score.bias:+.1f}",
                f"{100 * each.coverage:.0f}",
                f"{each.roofline.mean:.1f}",
            ]
            for each in found.classes
        ],
    )
    worst = found.worst(rows)
    if worst:
        console.print()
        console.print(Text("Furthest from the prediction:"))
        heads = [
            Column("class"),
            Column("shape", folds=True),
            number("measured us"),
            number("predicted us"),
            number("interval us", 1),
            number("bound us", 2),
            Column("kernel", 3),
        ]
        lines = [
            [
                row.name,
                row.shape,
                significant(1e6 * row.measured_s),
                significant(1e6 * row.time_s),
                f"[{significant(1e6 * row.time_low_s)}, {significant(1e6 * row.time_high_s)}]",
                significant(1e6 * row.ideal_s),
                row.kernel,
            ]
            for row in worst
        ]
        print_table(console, heads, lines)
    for text in found.notes:
        console.print(Text(text, style="dim"))
