"""Calibrations by file or mapping: find the text and hand it to the core."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

from roofsim.catalog.files import json_text, plain, read_text, shown, user_path
from roofsim.errors import SpecError

MAX_CALIBRATION_BYTES = 1 << 20
OF_A_DEVICE = ("ideal", "calibrated", "sustained")
"""Names that with_calibration takes besides those of files."""
DIRECTORY = Path(__file__).with_suffix("")
"""One JSON file per calibration in the box."""


def calibration_names() -> list[str]:
    """List the calibrations in the box, in alphabetical order."""
    return sorted(path.stem for path in DIRECTORY.glob("*.json"))


def kernel_libraries() -> list[str]:
    """List the kernel libraries of the calibrations in the box."""
    names = (json.loads((DIRECTORY / f"{name}.json").read_text(encoding="utf-8")) for name in calibration_names())
    return sorted({name["kernel_library"] for name in names})


def read_calibration(source: str | os.PathLike[str] | Mapping[str, object]) -> str:
    """Return a calibration's JSON text: a name in the box, the path of a ``.json`` file, or a mapping.

    Raises
    ------
    SpecError
        The name is unknown, the file is missing or unreadable, or the source is of the wrong type.
    """
    if isinstance(source, Mapping):
        return json_text(plain("calibration", dict(source)))
    if isinstance(source, str):
        if source in calibration_names():
            return read_text("calibration", DIRECTORY / f"{source}.json", MAX_CALIBRATION_BYTES)
        if source in (*OF_A_DEVICE, *kernel_libraries()):
            rule = "is no file but depends on the device: give it to with_calibration or Deployment"
            raise SpecError("calibration", source, rule)
        if not source.endswith(".json"):
            known = ", ".join([*OF_A_DEVICE, *kernel_libraries(), *calibration_names()])
            raise SpecError("calibration", shown(source), f"must be one of {known}, or the path of a .json file")
        return read_text("calibration", user_path(source), MAX_CALIBRATION_BYTES)
    if isinstance(source, os.PathLike):
        return read_text("calibration", Path(source), MAX_CALIBRATION_BYTES)
    rule = f"must be a name, a path, a mapping or a Calibration, not {type(source).__name__}"
    raise SpecError("calibration", shown(source), rule)
