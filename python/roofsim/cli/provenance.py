"""What stands behind the numbers, said with every answer that is not a bound."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rich.console import Console

    from roofsim import Calibration


def describe(device: str, calibration: Calibration) -> str:
    """Say in one sentence which calibration a device is costed under."""
    origin = calibration.provenance
    basis, note = origin["basis"], origin["note"]
    if basis == "ideal":
        return f"{device}: ideal: {note}."
    source = ", ".join(text for text in (origin["device"], origin["software"], origin["date"]) if text)
    bars = f"intervals aim at {100 * calibration.coverage:.0f}% coverage"
    return f"{device}: {basis} calibration ({source}): {note}; {bars}." if note else f"{device}: {basis} ({source}); {bars}."


def print_calibrations(console: Console, behind: Iterable[tuple[str, Calibration]]) -> None:
    """Print one dim sentence per device."""
    for device, calibration in behind:
        console.print(Text(describe(device, calibration), style="dim"))
