"""Columns to a file: CSV for spreadsheets, npz for NumPy; which paths can be written."""

from __future__ import annotations

import csv
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from roofsim.errors import SpecError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np

CHUNK_ROWS = 65_536


def is_parquet(output: str | None) -> bool:
    """Whether the rows go into a directory of Parquet files."""
    return output is not None and Path(output).suffix.lower() == ".parquet"


def check_path(output: str) -> None:
    """Refuse a file that could not be written, before any work.

    Raises
    ------
    SpecError
        An ending other than ``.csv``, ``.npz`` and ``.parquet``, or a directory that does not exist.
    """
    path = Path(output)
    if path.suffix.lower() not in (".csv", ".npz", ".parquet"):
        raise SpecError("output", output, "must end in .csv, .npz or .parquet")
    if not path.parent.is_dir():
        raise SpecError("output", output, "its directory does not exist")


def write(output: str, columns: Mapping[str, Sequence[Any] | np.ma.MaskedArray[Any, Any]]) -> None:
    """Write columns of equal length.

    In CSV a null is an empty field. In npz a column with nulls brings a second array, ``NAME.null``, true where it is.
    The file appears when it is whole: until then, and where writing stops, what stood under the name stays.

    Raises
    ------
    SpecError
        The file cannot be written.
    """
    import numpy as np  # here, so that commands that write nothing start without it

    arrays = {name: np.ma.asarray(values) for name, values in columns.items()}
    path = Path(output).resolve()  # what a link names is replaced, not the link
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        try:
            (_write_npz if path.suffix.lower() == ".npz" else _write_csv)(beside, arrays)
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)
    except OSError as error:
        raise SpecError("output", output, f"cannot be written: {error.strerror}") from error


def _write_npz(path: Path, arrays: Mapping[str, np.ma.MaskedArray[Any, Any]]) -> None:
    import numpy as np

    plain: dict[str, Any] = {name: array.data for name, array in arrays.items()}
    plain |= {f"{name}.null": array.mask for name, array in arrays.items() if np.any(array.mask)}
    with path.open("wb") as file:
        np.savez(file, **plain)


def _write_csv(path: Path, arrays: Mapping[str, np.ma.MaskedArray[Any, Any]]) -> None:
    num_rows = min((len(array) for array in arrays.values()), default=0)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(arrays)
        for start in range(0, num_rows, CHUNK_ROWS):
            chunk = [array[start : start + CHUNK_ROWS].tolist() for array in arrays.values()]
            writer.writerows(zip(*chunk, strict=True))
