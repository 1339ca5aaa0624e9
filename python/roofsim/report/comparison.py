"""One measurement file beside the predictions of a calibration that exists: nothing is fitted."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from roofsim.calibrate.files import measured_device, read_files
from roofsim.calibrate.observations import Observations, drop_below_ideal, observe
from roofsim.calibrate.predict import costs
from roofsim.calibrate.score import Score, score
from roofsim.calibrate.steps import observe_steps
from roofsim.errors import SpecError, UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from roofsim import Accelerator, Calibration

__all__ = ["ClassComparison", "Comparison", "Row", "compare"]


@dataclass(frozen=True)
class Row:
    """One measured point and its prediction, seconds."""

    name: str
    shape: str
    kernel: str
    measured_s: float
    time_s: float
    time_low_s: float
    time_high_s: float
    ideal_s: float


@dataclass(frozen=True)
class ClassComparison:
    """Errors of one class and operand type, and the share of points inside their intervals."""

    name: str
    score: Score
    roofline: Score
    coverage: float


@dataclass(frozen=True)
class Comparison:
    """What `roofsim validate` prints.

    Attributes
    ----------
    classes
        One a class and operand type.
    rows
        Every point, in the order of the classes.
    notes
        What was left out and why.
    """

    device: str
    calibration: str
    classes: list[ClassComparison]
    rows: list[Row]
    notes: list[str]

    def worst(self, count: int) -> list[Row]:
        """Return the points furthest from their prediction, by ratio."""
        return sorted(self.rows, key=lambda row: -abs(np.log(row.measured_s / row.time_s)))[:count]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)


def compare(
    files: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    device: str | None = None,
    calibration: str | Calibration = "calibrated",
) -> Comparison:
    """Set measurements beside predictions.

    Parameters
    ----------
    files
        Measurement files of one device.
    device
        Accelerator to predict for; by the file's header when absent.
    calibration
        `calibrated` (the device's default), `ideal`, a name, a file or a `Calibration`.

    Returns
    -------
    Comparison

    Raises
    ------
    SpecError
        An unreadable file, or a device that the catalogue does not know.

    Notes
    -----
    A point faster than the bare roofline is left out and counted in `notes`: its operands lay in a cache.
    """
    source, header = read_files([files] if isinstance(files, str | os.PathLike) else files)
    accelerator = measured_device(header, device, source.rows).with_calibration(calibration)
    bound = accelerator.with_calibration("ideal")
    classes, rows, notes = [], [], []
    for one in [*observe(source.rows), *observe_steps(source.rows)]:
        try:
            kept = drop_below_ideal(one, costs(bound, one)["ideal_s"])
        except (UnsupportedError, SpecError) as error:
            notes.append(f"{one.name}: left out, {error}")
            continue
        if kept.left_out:
            notes.append(f"{one.name}: {len(kept.left_out)} points left out; the first: {kept.left_out[0].reason}")
        if len(kept):
            made, own = _class(accelerator, kept)
            classes.append(made)
            rows += own
    return Comparison(accelerator.name, accelerator.calibration.name, classes, rows, notes)


def _class(accelerator: Accelerator, one: Observations) -> tuple[ClassComparison, list[Row]]:
    cost: dict[str, NDArray[np.float64]] = costs(accelerator, one)
    inside = (one.measured_s >= cost["time_low_s"]) & (one.measured_s <= cost["time_high_s"])
    made = ClassComparison(
        one.name,
        score(cost["time_s"], one.measured_s),
        score(cost["ideal_s"], one.measured_s),
        float(np.mean(inside)),
    )
    fields = ("time_s", "time_low_s", "time_high_s", "ideal_s")
    rows = [
        Row(
            one.name,
            " ".join(f"{name}={int(column[i])}" for name, column in one.columns.items() if name != "model")
            + (f" {one.groups[i]}" if "model" in one.columns else ""),
            str(one.kernels[i]),
            float(one.measured_s[i]),
            *(float(cost[name][i]) for name in fields),
        )
        for i in range(len(one))
    ]
    return made, rows
