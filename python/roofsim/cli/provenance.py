"""What stands behind the numbers, said with every answer that is not a bound."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rich.console import Console

    from roofsim import Calibration


BASES = {"published": "calibration fitted to published tables"}
"""How a calibration is called whose basis alone does not say it."""


def describe(calibration: Calibration) -> str:
    """Say in one sentence what a calibration rests on."""
    origin = calibration.provenance
    basis, note = origin["basis"], origin["note"]
    if basis == "ideal":
        return f"ideal: {note}."
    measured = ", ".join(text for text in (origin["software"], origin["date"]) if text)
    source = BASES.get(basis, f"{basis} calibration") + (f" ({measured})" if measured else "")
    return f"{source}: {note or 'no note'}. Intervals aim at {100 * calibration.coverage:.0f}% coverage."


def print_calibrations(console: Console, behind: Iterable[tuple[str, Calibration]]) -> None:
    """Print one dim sentence per calibration, the devices that share it in front."""
    devices: dict[str, list[str]] = {}
    for device, calibration in behind:
        devices.setdefault(describe(calibration), []).append(device)
    for sentence, names in devices.items():
        console.print(Text(f"{', '.join(dict.fromkeys(names))}: {sentence}", style="dim"))
