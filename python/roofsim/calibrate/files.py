"""Measurement files as sources of a calibration, and the device they were taken on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from roofsim import Accelerator
from roofsim.calibrate.empirical import empirical_accelerator
from roofsim.calibrate.profile import Source
from roofsim.catalog import accelerator_names
from roofsim.errors import SpecError
from roofsim.validate.record import load_measurements

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping, Sequence

__all__ = ["measured_device", "read_files"]

SOFTWARE = ("torch", "triton", "cuda", "driver", "numpy", "blas")


def read_files(paths: Sequence[str | os.PathLike[str]]) -> tuple[Source, Mapping[str, Any]]:
    """Read measurement files of one device, and the header of the first.

    Raises
    ------
    SpecError
        No file, an unreadable one, or files of different devices.
    """
    if not paths:
        raise SpecError("files", "none", "at least one measurement file is needed")
    rows: list[Mapping[str, Any]] = []
    headers: list[Mapping[str, Any]] = []
    for path in paths:
        try:
            header, own = load_measurements(Path(path))
        except (OSError, ValueError, EOFError) as error:
            raise SpecError("files", path, f"must be a measurement file: {error}") from error
        headers.append(header)
        rows += own
    devices = sorted({str(header.get("device")) for header in headers})
    if len(devices) > 1:
        raise SpecError("files", ", ".join(devices), "must all come from one kind of device")
    first = headers[0]
    software = ", ".join(f"{name} {first[name]}" for name in SOFTWARE if first.get(name))
    library = "torch" if first.get("backend") == "cuda" else "numpy"
    dates = sorted(str(header.get("date", ""))[:10] for header in headers)
    return Source(rows, software, dates[-1], library), first


def measured_device(
    header: Mapping[str, Any], device: str | None = None, rows: Sequence[Mapping[str, Any]] = ()
) -> Accelerator:
    """Return the catalogue's accelerator for the device a file was taken on, or the one named.

    A CPU that the catalogue does not know becomes an empirical roofline of its own rows.

    Raises
    ------
    SpecError
        The catalogue does not know the device (name one, or a spec file), or knows it as another than the one named.
    """
    if device is not None:
        named = Accelerator.load(device)
        taken = _catalogue_name(header)
        if taken not in (None, named.name) and named.name in accelerator_names():
            raise SpecError("device", device, f"must be what was measured: the files say {header['device']}, {taken}")
        return named
    try:
        return Accelerator.load(str(header.get("device")))
    except SpecError as error:
        if header.get("backend") == "cpu":
            return empirical_accelerator(header, rows)
        near = error.rule.partition("; ")[2]
        rule = (
            f"is not in the catalogue ({near}): --device says which accelerator it is, by name or spec file; "
            "`roofsim validate --report FILE --draft-spec my-device.toml` begins such a file"
        )
        raise SpecError("device", header.get("device"), rule) from error


def _catalogue_name(header: Mapping[str, Any]) -> str | None:
    """Return the catalogue's name of the device in a header; nothing where it knows none."""
    try:
        return Accelerator.load(str(header.get("device"))).name
    except SpecError:
        return None
