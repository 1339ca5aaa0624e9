"""From measurement files to the report: files sorted by device, the first of a family lending to the next."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from roofsim.calibrate.files import measured_device, read_files
from roofsim.errors import SpecError
from roofsim.report.accuracy import DeviceAccuracy, accuracy
from roofsim.validate import Point, build_plan
from roofsim.validate.record import load_measurements

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Mapping, Sequence

    from roofsim import Accelerator, Calibration

__all__ = ["device_accuracies"]


def device_accuracies(
    paths: Sequence[str | os.PathLike[str]],
    *,
    device: str | None = None,
    calibration: str | Calibration | None = None,
    progress: Callable[[str], object] | None = None,
) -> list[DeviceAccuracy]:
    """Return one report a device, in the order of the files.

    Parameters
    ----------
    paths
        Measurement files; several may come from one device.
    device
        Accelerator of all files, where the catalogue does not know their headers.
    calibration
        What is judged as `fitted`: a name, a file or a `Calibration`; each device's own when absent.
    progress
        Called with a line of text now and then.

    Raises
    ------
    SpecError
        An unreadable file, or a device that the catalogue does not know.
    """
    sorted_paths: dict[str, list[str | os.PathLike[str]]] = {}
    for path in paths:
        sorted_paths.setdefault(_device(path), []).append(path)
    found: list[DeviceAccuracy] = []
    lenders: dict[str, Accelerator] = {}
    for own in sorted_paths.values():
        source, header = read_files(own)
        accelerator = measured_device(header, device, source.rows)
        if calibration is not None:
            accelerator = accelerator.with_calibration(calibration)
        lender = lenders.get(accelerator.family)
        quick = _quick_plan(header)
        found.append(accuracy(accelerator, source, transfer=lender, quick_points=quick, progress=progress))
        lenders.setdefault(accelerator.family, accelerator)
    return found


def _quick_plan(header: Mapping[str, Any]) -> list[Point]:
    """Return the points of a quick run of the same seed on the device of a header; none for another backend's."""
    if header.get("backend") != "cuda":
        return []
    memory = float(header.get("memory_bytes") or 80e9)
    return build_plan("cuda", seed=int(header.get("seed") or 0), quick=True, memory_bytes=memory)


def _device(path: str | os.PathLike[str]) -> str:
    try:
        header, _ = load_measurements(path)
    except (OSError, ValueError, EOFError) as error:
        raise SpecError("files", path, f"must be a measurement file: {error}") from error
    return str(header.get("device"))
