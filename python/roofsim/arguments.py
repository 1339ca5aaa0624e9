"""Arguments of a sweep, checked when they are given."""

from __future__ import annotations

import operator
import os
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from roofsim.errors import SpecError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = [
    "Progress",
    "Request",
    "Rows",
    "column",
    "columns",
    "distinct",
    "integer",
    "num_threads",
    "progress_callback",
    "request",
    "row_range",
    "text",
    "texts",
]

Progress: TypeAlias = "Callable[[int, int], object]"
Rows: TypeAlias = "range | tuple[int, int]"
Request: TypeAlias = "tuple[list[str], tuple[int, int] | None, int, Progress | None]"
"""What every compiled reduction takes: filters, rows, threads, progress."""

MAX_THREADS = 1024


def integer(field: str, value: Any, least: int, most: int) -> int:
    """Return any integral value, NumPy's included, as an int within limits.

    Raises
    ------
    SpecError
        For a bool, a float, a string, or a value outside the limits.

    Examples
    --------
    >>> integer("num_threads", 2, 1, 4)
    2
    """
    rule = f"must be a whole number between {least} and {most}"
    # NumPy's booleans are no integers, but an array of one integer is.
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise SpecError(field, repr(value), rule)
    try:
        whole = operator.index(value)
    except TypeError:
        raise SpecError(field, repr(value), rule) from None
    if not least <= whole <= most:
        raise SpecError(field, repr(value), rule)
    return whole


def num_threads(asked: Any = None) -> int:
    """Threads of a sweep: the argument, else ``ROOFSIM_NUM_THREADS``, else the CPUs this process may use."""
    if asked is None:
        text = os.environ.get("ROOFSIM_NUM_THREADS", "")
        if not text:
            return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        if not text.isascii() or not text.isdigit() or int(text) < 1:
            raise SpecError("ROOFSIM_NUM_THREADS", text, "must be a whole number of at least 1")
        return min(int(text), MAX_THREADS)
    return integer("num_threads", asked, 1, MAX_THREADS)


def texts(field: str, values: Any) -> list[str]:
    """Return one text or several as a list of texts."""
    if isinstance(values, str):
        return [values]
    if isinstance(values, (bytes, Mapping)) or not isinstance(values, Iterable):
        raise SpecError(field, repr(values), "must be a text or a sequence of texts")
    listed = list(values)
    for value in listed:
        if not isinstance(value, str):
            raise SpecError(field, repr(value), "must be a text")
    return listed


def columns(field: str, values: Any) -> list[str]:
    """Return one column or several as a list of names, without the blanks around them."""
    return [name.strip() for name in texts(field, values)]


def column(field: str, value: Any) -> str:
    """Return the name of a column, without the blanks around it."""
    return text(field, value).strip()


def distinct(field: str, values: Any) -> list[str]:
    """Return names of columns, each of which occurs once."""
    listed = columns(field, values)
    twice = next((value for at, value in enumerate(listed) if value in listed[:at]), None)
    if twice is not None:
        raise SpecError(field, twice, "must be named once")
    return listed


def text(field: str, value: Any) -> str:
    """Return a text."""
    if not isinstance(value, str):
        raise SpecError(field, repr(value), "must be a text")
    return value


def progress_callback(progress: Any) -> Progress | None:
    """Return the callback, refused at once where it cannot be called."""
    if progress is not None and not callable(progress):
        raise SpecError("progress", repr(progress), "must be callable with (rows done, rows in all)")
    found: Progress | None = progress
    return found


def row_range(rows: Any) -> tuple[int, int] | None:
    """Return the first row and the one behind the last of a range of row numbers."""
    if rows is None:
        return None
    rule = "must be a range of row numbers with step 1, or a pair (first, one behind the last)"
    if isinstance(rows, range):
        if rows.step != 1:
            raise SpecError("rows", repr(rows), rule)
        rows = (rows.start, rows.stop)
    if not isinstance(rows, tuple) or len(rows) != 2:
        raise SpecError("rows", repr(rows), rule)
    start, stop = (integer("rows", row, 0, (1 << 128) - 1) for row in rows)
    return start, stop


def request(where: Sequence[str] | str, rows: Rows | None, threads: Any, progress: Progress | None) -> Request:
    """Gather what every compiled reduction takes."""
    return texts("where", where), row_range(rows), num_threads(threads), progress_callback(progress)
