"""A sweep on disk: a directory of Parquet files that a stopped run leaves readable and a later run completes.

Each file holds the rows that pass of a range of row numbers, and says which in its name. It is written under a name
that readers pass over and renamed when it is whole. `_roofsim.json` says what the directory is of. pyarrow does the
writing: whoever reads Parquet in Python has it or can have it, and a compiled writer would make the wheel larger.
"""

from __future__ import annotations

import json
import os
import re
import signal
import threading
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from roofsim import _core
from roofsim.arguments import text
from roofsim.batches import RecordBatches
from roofsim.columns import ROW
from roofsim.errors import SpecError, UnsupportedError
from roofsim.identity import differences, fingerprint

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from concurrent.futures import Future
    from os import PathLike

    from roofsim.arguments import Progress, Request
    from roofsim.sweep import SweepSpace

__all__ = ["ROW_GROUP_ROWS", "ParquetParts", "write_parts"]

ROW_GROUP_ROWS = 1 << 20
PART_GROUPS = 16
"""Row groups of a file: what a run that is killed loses at most."""
PART_SPAN = 1 << 34
"""Rows looked at for a file where few pass."""
MOST_ROWS = 8 * ROW_GROUP_ROWS
"""Rows of all row groups in the making."""
LOOK_S = 0.02
"""How often the calling thread looks up, in seconds."""

MANIFEST = "_roofsim.json"
PART = re.compile(r"part-(\d{20})-(\d{20})\.parquet")
"""First row and the one behind the last: 20 digits hold any 64-bit number, so that names sort as rows do."""
PARTIAL = re.compile(r"\.part-(\d{20})\.\d+\.tmp")
"""A file in the making: its first row, and the process that writes it."""
UNFINISHED = re.compile(r"\._roofsim\.json\.(\d+)\.tmp")
"""What says what a directory is of, in the making by a process."""


@dataclass(frozen=True)
class ParquetParts:
    """What is in the directory now.

    Attributes
    ----------
    path
        The directory.
    files
        Its Parquet files in the order of the rows.
    num_rows
        Rows in them.
    resumed
        Rows of the space that an earlier run had done.
    """

    path: Path
    files: tuple[Path, ...]
    num_rows: int
    resumed: int


def write_parts(
    space: SweepSpace,
    path: str | PathLike[str],
    names: Sequence[str],
    asked: Request,
    row_group_rows: int,
    compression: str,
) -> ParquetParts:
    """Write what is missing of the rows; see `SweepSpace.write_parquet`."""
    _pyarrow()
    where, rows, threads, progress = asked
    first, end = rows if rows is not None else (0, space.num_configurations)
    RecordBatches(space._space, names, row_group_rows, asked)  # refuses what is wrong before anything is written
    codecs = ["none", "snappy", "gzip", "brotli", "zstd", "lz4"]
    if text("compression", compression).lower() not in codecs:
        raise SpecError("compression", compression, f"must be one of {', '.join(codecs)}")
    folder = _claim(path, _manifest(space, names, where))
    for stale in folder.iterdir():
        if (match := PARTIAL.fullmatch(stale.name)) and first <= int(match[1]) < end:
            stale.unlink()
    done = _parts(folder)
    for _, _, found in done:
        _num_rows(found)  # refuses a damaged file before the work and not after it
    resumed = sum(max(0, min(stop, end) - max(start, first)) for start, stop, _ in done)
    gaps = _missing(done, first, end)
    files_of = _Files(space, folder, names, row_group_rows, compression)
    try:
        if where:
            _in_order(files_of, gaps, asked, resumed, end - first)
        else:
            _at_once(files_of, gaps, threads, _shifted(progress, resumed, end - first))
    except OSError as error:
        raise SpecError("path", os.fspath(path), f"cannot be written: {error.strerror or error}") from error
    files = tuple(part for _, _, part in _parts(folder))
    num_rows = sum(_num_rows(part) for part in files)
    return ParquetParts(folder, files, num_rows, resumed)


@dataclass(frozen=True)
class _Files:
    """What all files of a directory have in common."""

    space: SweepSpace
    folder: Path
    names: Sequence[str]
    group: int
    compression: str

    def write(self, start: int, stop: int, where: list[str], threads: int, progress: Progress | None) -> int:
        """Write the next file of a range and return the row behind its last one."""
        batches = RecordBatches(self.space._space, self.names, self.group, (where, (start, stop), threads, None))
        return _Part(batches, self.folder, start, self.group, self.compression).write(progress)


def _in_order(files: _Files, gaps: Sequence[tuple[int, int]], asked: Request, done: int, total: int) -> None:
    """Write one file after the other: where rows are left out, one begins where the last one happened to be full."""
    where, _, threads, progress = asked
    for start, stop in gaps:
        row = start
        while row < stop:
            told = _shifted(progress, done + row - start, total)
            row = files.write(row, min(stop, row + PART_SPAN), where, threads, told)
        done += stop - start


class _StoppedError(Exception):
    """Another file failed, or the caller wants no more."""


def _at_once(files: _Files, gaps: Sequence[tuple[int, int]], threads: int, progress: Progress | None) -> None:
    """Write several files at a time, each on a thread of its own: encoding takes longer than evaluating.

    Without filters it is known beforehand which rows a file holds: they are those of files written one by one.
    """
    rows = PART_GROUPS * files.group
    ranges = ((at, min(at + rows, stop)) for start, stop in gaps for at in range(start, stop, rows))
    stop_all = threading.Event()
    seen: dict[int, int] = {}
    finished = 0

    def one(start: int, stop: int) -> int:
        def look(done: int, _total: int) -> None:
            if stop_all.is_set():
                raise _StoppedError
            seen[start] = done

        files.write(start, stop, [], 1, look)
        return start

    # Memory stays that of a few row groups, however many threads there are.
    workers = max(1, min(threads, MOST_ROWS // files.group))
    with ThreadPoolExecutor(workers, thread_name_prefix="roofsim-parquet") as pool:
        running: dict[Future[int], int] = {}
        try:
            while True:
                while len(running) < workers and (part := next(ranges, None)) is not None:
                    running[pool.submit(one, *part)] = part[1] - part[0]
                if not running:
                    break
                for future in wait(running, timeout=LOOK_S, return_when=FIRST_COMPLETED).done:
                    seen.pop(future.result(), None)
                    finished += running.pop(future)
                if progress is not None:
                    progress(finished + sum(list(seen.values())), 0)
        except BaseException:
            stop_all.set()
            raise


def _num_rows(part: Path) -> int:
    """Rows of a file that is done."""
    pyarrow = _pyarrow()
    try:
        return int(pyarrow.parquet.read_metadata(part).num_rows)
    except pyarrow.ArrowInvalid as error:
        raise SpecError("path", os.fspath(part), f"is damaged, remove it to write its rows again: {error}") from error


def _shifted(progress: Progress | None, before: int, total: int) -> Progress | None:
    if progress is None:
        return None
    tell = progress
    return lambda done, _: tell(before + done, total)


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Hold Ctrl-C back until what is inside is done: a row group must not be written twice or half."""
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(before):
        yield
        return
    held: list[tuple[int, Any]] = []
    signal.signal(signal.SIGINT, lambda number, frame: held.append((number, frame)))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if held:
        before(*held[0])


def _pyarrow() -> Any:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise UnsupportedError("write_parquet", "pyarrow", "is not installed: pip install 'roofsim[arrow]'") from error
    return pyarrow


def _manifest(space: SweepSpace, names: Sequence[str], where: Sequence[str]) -> dict[str, Any]:
    description = space.description()
    return {
        "format": 1,
        "roofsim": _core.__version__,
        "fingerprint": fingerprint(description),
        "num_configurations": str(space.num_configurations),
        "columns": list(names),
        "where": sorted(where),
        "space": description,
    }


def _claim(path: str | PathLike[str], manifest: dict[str, Any]) -> Path:
    """Make the directory and say what it is of, or check that it is of the same."""
    folder = Path(path)
    shown = os.fspath(path)
    try:
        if folder.exists() and not folder.is_dir():
            raise SpecError("path", shown, "is a file: a sweep is written into a directory of Parquet files")
        folder.mkdir(parents=True, exist_ok=True)
        held = folder / MANIFEST
        if not held.exists():
            # What a run was killed over in its first moment is no data: it was never renamed.
            if not all(UNFINISHED.fullmatch(file.name) for file in folder.iterdir()):
                raise SpecError("path", shown, f"holds other files and no {MANIFEST}: give an empty or a new directory")
            fresh = folder / f".{MANIFEST}.{os.getpid()}.tmp"
            try:
                fresh.write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
                fresh.replace(held)
            finally:
                fresh.unlink(missing_ok=True)
            for stale in folder.iterdir():
                # Of a process that is gone: another one may be about to rename its own.
                if (match := UNFINISHED.fullmatch(stale.name)) and not _runs(int(match[1])):
                    stale.unlink(missing_ok=True)
            return folder
        other = json.loads(held.read_text(encoding="utf-8"))
    except SpecError:
        raise  # it is a ValueError, too
    except OSError as error:
        raise SpecError("path", shown, f"cannot be written: {error.strerror or error}") from error
    except ValueError:
        raise SpecError("path", shown, f"its {MANIFEST} cannot be read: give another directory") from None
    if not isinstance(other, dict) or not isinstance(other.get("space"), dict):
        raise SpecError("path", shown, f"its {MANIFEST} is not of a sweep: give another directory")
    if other != manifest:
        flat = [{**{k: json.dumps(v) for k, v in m.items() if k != "space"}, **m["space"]} for m in (manifest, other)]
        for entries in flat:
            entries.pop("fingerprint", None)
        raise SpecError("path", shown, f"holds another sweep: {differences(*flat)}")
    return folder


def _runs(pid: int) -> bool:
    """Whether there may be a process of this number on this machine."""
    if os.name != "posix":
        return True
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True
    return True


def _parts(folder: Path) -> list[tuple[int, int, Path]]:
    """Ranges of rows that are done, rising."""
    found = []
    for file in sorted(folder.iterdir()):
        if match := PART.fullmatch(file.name):
            found.append((int(match[1]), int(match[2]), file))
    for (_, stop, one), (start, _, other) in pairwise(found):
        if start < stop:
            raise SpecError("path", str(folder), f"{one.name} and {other.name} hold the same rows: remove one")
    return found


def _missing(done: Sequence[tuple[int, int, Path]], first: int, end: int) -> list[tuple[int, int]]:
    gaps = []
    for start, stop, _ in done:
        if first < start:
            gaps.append((first, min(start, end)))
        first = max(first, stop)
        if first >= end:
            break
    if first < end:
        gaps.append((first, end))
    return [(start, stop) for start, stop in gaps if start < stop]


class _Part:
    """One file in the making."""

    def __init__(self, batches: RecordBatches, folder: Path, start: int, group: int, compression: str) -> None:
        self._pa = _pyarrow()
        self._group = group
        self._folder = folder
        self._start = start
        self._schema = self._pa.RecordBatchReader.from_stream(batches).schema
        self._batches, self._columns = batches.open()
        self._temporary = folder / f".part-{start:020d}.{os.getpid()}.tmp"
        self._compression = compression
        self._pending: list[Any] = []

    def write(self, progress: Any) -> int:
        """Write the file and return the row behind its last one. A stop keeps what is done, a failure nothing."""
        stopped: BaseException | None = None
        try:
            with self._writer() as writer:
                groups = 0
                while groups < PART_GROUPS:
                    try:
                        found = self._batches.next(progress)
                    except BaseException as error:
                        stopped = error
                        break
                    if found is None:
                        break
                    try:
                        with _uninterrupted():
                            self._pending.append(self._pa.table(self._columns(found)))
                            groups += self._flush(writer, whole=False)
                    except KeyboardInterrupt as error:
                        stopped = error
                        break
                with _uninterrupted():
                    self._flush(writer, whole=True)
        except BaseException:
            self._temporary.unlink(missing_ok=True)
            raise
        end = self._batches.next_row
        if end > self._start:
            self._temporary.replace(self._folder / f"part-{self._start:020d}-{end:020d}.parquet")
        else:
            self._temporary.unlink(missing_ok=True)
        if stopped is not None:
            raise stopped
        return end

    def _writer(self) -> Any:
        # A dictionary pays where values repeat. Floats seldom do: split into their bytes, the leading ones compress
        # well. Numbers of rows rise: their differences are small.
        types = self._pa.types
        floats = {field.name: "BYTE_STREAM_SPLIT" for field in self._schema if types.is_floating(field.type)}
        encodings = floats | ({ROW: "DELTA_BINARY_PACKED"} if ROW in self._schema.names else {})
        try:
            return self._pa.parquet.ParquetWriter(
                self._temporary,
                self._schema,
                compression=self._compression,
                use_dictionary=[name for name in self._schema.names if name not in encodings],
                column_encoding=encodings or None,
            )
        except (ValueError, self._pa.ArrowException) as error:
            raise SpecError("compression", self._compression, str(error)) from error

    def _flush(self, writer: Any, *, whole: bool) -> int:
        """Write full row groups, with `whole` the rest too; return how many."""
        groups = 0
        while (rows := sum(table.num_rows for table in self._pending)) >= (1 if whole else self._group):
            table = self._pa.concat_tables(self._pending) if len(self._pending) > 1 else self._pending[0]
            writer.write_table(table.slice(0, self._group), row_group_size=self._group)
            self._pending = [table.slice(self._group)] if rows > self._group else []
            groups += 1
        return groups
