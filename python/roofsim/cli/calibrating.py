"""`roofsim calibrate`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from roofsim import Calibration
from roofsim.catalog import calibration_names
from roofsim.cli import options as shared
from roofsim.cli.display import Column, number, print_json, print_table, significant, stdout
from roofsim.errors import SpecError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from roofsim.calibrate import LeftOut, Profile

MOST_LISTED = 4
TABLE_STARTS = 2
"""Tables hold so many classes that each further start costs minutes."""
UNITS = {"s": (1e6, "us")}
BASIS = {
    "fitted": "{error}",
    "borrowed": "borrowed: few points",
    "start": "unchanged: no point",
    "limit": "at its limit",
    "loose": "{error}, loose",
}
"""What stands beside a constant, by what it rests on."""


def calibrate(
    files: Annotated[list[str], typer.Argument(help="Measurement files of one device (.jsonl, .jsonl.gz).")],
    device: Annotated[
        str | None, typer.Option("--device", help="Accelerator, by name or spec file; by the file's header otherwise.")
    ] = None,
    kernel_table: Annotated[
        str | None,
        typer.Option(
            "--kernel-table",
            help="The files are published kernel tables (.parquet, .csv) of this engine: trtllm, vllm or sglang.",
        ),
    ] = None,
    collectives: Annotated[
        str | None,
        typer.Option(
            "--collectives",
            help="Take the collective library's constants from this calibration: files of one device have none.",
        ),
    ] = None,
    replayed: Annotated[
        str | None,
        typer.Option(
            "--replayed-collectives",
            help="File of collectives that graphs replayed between devices of this family: what a call costs beyond "
            "the library's own loop.",
        ),
    ] = None,
    prior: Annotated[
        str,
        typer.Option(
            help="Calibration to stay near where points are few: a name or file, auto (the one the accelerator has, "
            "if it is of the same kernel library) or none."
        ),
    ] = "auto",
    output: Annotated[
        str | None,
        typer.Option("--output", "-o", help="Calibration file to write (.json).", rich_help_panel=shared.OUTPUT),
    ] = None,
    as_json: shared.JsonOption = False,
) -> None:
    """Fit the laws' constants to measurements; write a calibration with its errors and provenance.

    Shapes are left out in turn: `unseen` is the error on shapes that the fit did not see, beside the bare roofline's.

    Exit codes: 0 fitted; 2 an input was refused, such as a file that lacks the points a fit needs; 130 interrupted.
    """
    from roofsim.calibrate import calibrate as fit_calibration
    from roofsim.calibrate import known_before, measured_device, read_files, read_kernel_tables
    from roofsim.calibrate.fit import STARTS, require_scipy

    require_scipy()
    if output is not None and not (output.endswith(".json") and Path(output).parent.is_dir()):
        raise SpecError("output", output, "must end in .json, in a directory that exists")
    console = stdout()
    if kernel_table is not None:
        if device is None:
            raise SpecError("device", "missing", "kernel tables do not say it: name the accelerator with --device")
        accelerator = measured_device({}, device)
        source, starts = read_kernel_tables(files, kernel_table), TABLE_STARTS
    else:
        source, header = read_files(files)
        accelerator, starts = measured_device(header, device, source.rows), STARTS
    links = None if collectives is None else Calibration.load(collectives)
    graphs = () if replayed is None else read_files([replayed])[0].rows
    known = known_before(accelerator, source.kernel_library) if prior == "auto" else None
    if prior not in ("auto", "none"):
        known = _prior(prior)
    tell = None if as_json else complain_softly
    if known is not None and tell is not None:
        tell(f"where points are few, constants stay near those of {known.name}")
    profile = fit_calibration(
        accelerator, source, prior=known, progress=tell, collectives=links, replayed=graphs, starts=starts
    )
    if output is not None:
        Path(output).write_text(profile.calibration.to_json() + "\n", encoding="utf-8")
    if as_json:
        print_json(json.loads(profile.calibration.to_json()))
        return
    _show(console, profile)
    if output is not None:
        console.print(Text(f"Written to {output}."))


def _prior(name: str) -> Calibration:
    """Return the calibration whose constants a fit stays near."""
    if name in ("ideal", "calibrated", "sustained"):
        known = ", ".join(calibration_names())
        rule = f"must be auto (what the accelerator has), none, one of {known}, or the path of a .json file"
        raise SpecError("prior", name, rule if name != "ideal" else rule + ": a bound has no constants to stay near")
    return Calibration.load(name)


def complain_softly(message: str) -> None:
    """Say on standard error what is going on."""
    typer.echo(message, err=True)


def _show(console: Console, profile: Profile) -> None:
    console.print(Text(f"{profile.calibration.name}: {profile.calibration.provenance['software']}", style="bold"))
    console.print()
    rows = []
    for constant in profile.constants:
        factor, unit = UNITS.get(constant.unit, (1.0, constant.unit))
        own = "" if constant.error == float("inf") else f"± {significant(factor * constant.error, 2)}"
        error = BASIS[constant.basis].format(error=own).strip(", ")
        # The unit stands with the value: a narrow terminal drops columns, and these names end in the base unit.
        rows.append([constant.path, f"{significant(factor * constant.value, 4)} {unit}", error, constant.meaning])
    heads = [Column("constant"), number("value"), Column("fit error"), Column("meaning", 1, folds=True)]
    print_table(console, heads, rows)
    console.print()
    show_errors(console, profile)
    for text in profile.skipped:
        console.print(Text(f"Skipped {text}."))
    for line in left_out_lines(profile.left_out):
        console.print(Text(line))


def left_out_lines(lost: Sequence[LeftOut]) -> list[str]:
    """Say in words which measured points no fit and no score uses: by reason, a few examples each."""
    if not lost:
        return []
    reasons: dict[tuple[str, str], list[LeftOut]] = {}
    for one in lost:
        reasons.setdefault((one.family, one.reason), []).append(one)
    lines = [f"{len(lost)} measured point{'s' * (len(lost) > 1)} took no part in fit and score:"]
    for (family, reason), members in reasons.items():
        lines.append(f"  {len(members)} of {family.replace('_', ' ')}: {reason}")
        lines += [f"    {one}" for one in members[:MOST_LISTED]]
        if len(members) > MOST_LISTED:
            lines.append(f"    and {len(members) - MOST_LISTED} more")
    return lines


def show_errors(console: Console, profile: Profile) -> None:
    """Print errors by class, in percent of the measured time."""
    rows = [
        [
            result.name,
            f"{len(result.observed):,}",
            f"{result.in_sample.mean:.1f}",
            f"{result.unseen.mean:.1f}",
            f"{result.unseen.median:.1f}",
            f"{result.unseen.bias:+.1f}",
            f"{100 * result.coverage:.0f}",
            f"{result.roofline.mean:.1f}",
        ]
        for result in profile.results
    ]
    heads = [
        Column("error, %"),
        number("points"),
        number("fitted"),
        number("unseen"),
        number("median", 1),
        number("bias", 2),
        number("in the bars", 1),
        number("bare roofline"),
    ]
    print_table(console, heads, rows)
