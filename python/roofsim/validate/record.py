"""The portable measurement file: one JSON object a line, a header first, gzip at the end if asked for."""

from __future__ import annotations

import contextlib
import gzip
import json
import math
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

__all__ = ["FORMAT", "MeasurementFile", "load_measurements"]

FORMAT = "roofsim-measurements/1"

Row = dict[str, Any]


def _rounded(value: object) -> object:
    """Five significant digits are finer than any clock here; they keep the file small. NaN is not JSON."""
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(item) for item in value]
    return value


def _parse(lines: Iterable[str]) -> list[Row]:
    """Parse the lines; one cut short by a killed process, whose successor went on behind it, is dropped."""
    rows: list[Row] = []
    for line in _until_cut(lines):
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(row, dict):
            rows.append(row)
    return rows


def _until_cut(lines: Iterable[str]) -> Iterator[str]:
    """Yield the lines of a compressed file up to where it was cut."""
    with contextlib.suppress(EOFError):
        yield from lines


def _read(path: Path) -> list[Row]:
    if path.suffix == ".gz":
        with gzip.open(path, "rt", encoding="utf-8") as stream:
            return _parse(stream)
    with path.open(encoding="utf-8") as stream:
        return _parse(stream)


def load_measurements(path: str | os.PathLike[str]) -> tuple[Row, list[Row]]:
    """Read a measurement file.

    Parameters
    ----------
    path
        A `.jsonl` or `.jsonl.gz` file written by the harness; truncated files are read up to the cut.

    Returns
    -------
    header : dict
        Device, driver and software versions, date, seed; its `sessions` list holds the other records that are no
        points (resumptions, ends).
    rows : list of dict
        One a measured point and backend; `error` is null where the measurement holds.

    Raises
    ------
    ValueError
        The file holds no header of this format.
    """
    records = _read(Path(path))
    header = next((row for row in records if row.get("record") == "header"), None)
    if header is None or header.get("format") != FORMAT:
        raise ValueError(f"path = {os.fspath(path)!r}: must hold a header record of format {FORMAT!r}")
    others = [row for row in records if row.get("record") not in ("point",) and row is not header]
    rows = [row for row in records if row.get("record") == "point"]
    return {**header, "sessions": others}, rows


class MeasurementFile:
    """An append-only record of a run; every row is on disk before the next point is measured.

    Parameters
    ----------
    path
        Where the file goes. With a `.gz` suffix the plain file beside it is written first and compressed by `finish`.
    resume
        Keep what is there and append; without it an existing file is replaced.
    """

    def __init__(self, path: str | os.PathLike[str], *, resume: bool) -> None:
        self.target = Path(path)
        self.plain = self.target.with_suffix("") if self.target.suffix == ".gz" else self.target
        self.plain.parent.mkdir(parents=True, exist_ok=True)
        if not resume:
            self.plain.unlink(missing_ok=True)
        elif not self.plain.exists() and self.target.exists():
            with gzip.open(self.target, "rb") as source, self.plain.open("wb") as sink:
                shutil.copyfileobj(source, sink)
        rows = _read(self.plain) if self.plain.exists() else []
        self.has_header = any(row.get("record") == "header" for row in rows)
        self.done = {str(row["point_id"]) for row in rows if row.get("record") == "point" and "point_id" in row}
        if self.plain.exists() and self.plain.stat().st_size and not self.plain.read_bytes().endswith(b"\n"):
            with self.plain.open("a", encoding="utf-8") as stream:
                stream.write("\n")

    def append(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Write rows and flush them to the operating system."""
        with self.plain.open("a", encoding="utf-8") as stream:
            for row in rows:
                stream.write(json.dumps(_rounded(row), separators=(",", ":"), allow_nan=False) + "\n")
                if row.get("record") == "point":
                    self.done.add(str(row["point_id"]))

    def write_header(self, header: Mapping[str, Any]) -> None:
        """Write the header, or, in a resumed file, a session record with the same content."""
        kind = "session" if self.has_header else "header"
        self.append([{"record": kind, "format": FORMAT, **header}])
        self.has_header = True

    def finish(self) -> Path:
        """Compress the file if its name asks for it, and return where it lies."""
        if self.target == self.plain:
            return self.plain
        partial = self.target.with_suffix(".gz.tmp")
        with self.plain.open("rb") as source, gzip.open(partial, "wb", compresslevel=6) as sink:
            shutil.copyfileobj(source, sink)
        partial.replace(self.target)
        self.plain.unlink()
        return self.target
