"""`roofsim report`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from roofsim.cli import options as shared
from roofsim.cli.calibrating import complain_softly, show_errors
from roofsim.cli.display import print_json, stdout
from roofsim.errors import SpecError


def report(
    files: Annotated[list[str], typer.Argument(help="Measurement files, of one device or several.")],
    device: Annotated[str | None, typer.Option("--device", help="Accelerator of the files.")] = None,
    calibration: Annotated[
        str | None,
        typer.Option("--calibration", help="What is judged: a name or file (.json); the device's own otherwise."),
    ] = None,
    output: Annotated[
        str | None, typer.Option("--output", "-o", help="Page to write (.md).", rich_help_panel=shared.OUTPUT)
    ] = None,
    pictures: Annotated[
        str | None,
        typer.Option("--pictures", help="Folder for its pictures (needs matplotlib).", rich_help_panel=shared.OUTPUT),
    ] = None,
    profiles: Annotated[
        str | None,
        typer.Option(
            "--profiles",
            help="Page to write (.md): errors of every calibration in the box.",
            rich_help_panel=shared.OUTPUT,
        ),
    ] = None,
    as_json: shared.JsonOption = False,
) -> None:
    """Report how far predictions are from measurements: by class, operand type and device, beside the roofline."""
    from roofsim.calibrate.fit import require_scipy
    from roofsim.report import device_accuracies, render, render_profiles

    require_scipy()
    for name, folder in (
        ("output", output and Path(output).parent),
        ("profiles", profiles and Path(profiles).parent),
        ("pictures", pictures),
    ):
        if folder is not None and not Path(folder).is_dir():
            raise SpecError(name, folder, "must be in a directory that exists")
    if profiles is not None:
        Path(profiles).write_text(render_profiles(), encoding="utf-8")
    tell = None if as_json else complain_softly
    devices = device_accuracies(files, device=device, calibration=calibration, progress=tell)
    if pictures is not None:
        import roofsim
        from roofsim.report.pictures import draw_roofline, draw_scatter

        for each in devices:
            draw_scatter(each, Path(pictures) / f"accuracy-{each.device}.png")
            draw_roofline(
                each, roofsim.Accelerator.load(device or each.device), Path(pictures) / f"roofline-{each.device}.png"
            )
    if output is not None:
        relative = (
            None if pictures is None else str(Path(pictures).resolve().relative_to(Path(output).parent.resolve()))
        )
        Path(output).write_text(render(devices, pictures=relative), encoding="utf-8")
    if as_json:
        print_json([{"device": d.device, "name": d.name, "classes": [asdict(c) for c in d.classes]} for d in devices])
        return
    console = stdout()
    for each in devices:
        console.print(Text(f"{each.name}: {each.software}, {each.date}", style="bold"))
        console.print()
        show_errors(console, each.profile)
        console.print()
    if output is not None:
        console.print(Text(f"Written to {output}."))
