"""Text files that a user points at: read whole, or refused with what is wrong with them."""

from __future__ import annotations

import datetime
import json
import math
import numbers
from pathlib import Path

from roofsim.errors import SpecError

MAX_SHOWN = 80


def shown(value: object) -> str:
    """Repeat a user's value, cut to a length that an error can carry."""
    text = repr(value)
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}..."


def user_path(text: str) -> Path:
    """Turn text into a path, with a leading ``~`` opened where there is such a home."""
    path = Path(text)
    try:
        return path.expanduser()
    except RuntimeError:  # no such user
        return path


def read_text(field: str, path: Path, max_bytes: int) -> str:
    """Read a UTF-8 text file.

    Parameters
    ----------
    field
        What the error calls the file.
    path
        The file.
    max_bytes
        Largest size that is read.

    Raises
    ------
    SpecError
        The file is missing, unreadable, a directory, larger than `max_bytes`, binary, or not UTF-8.
    """
    value = str(path)
    try:
        with path.open("rb") as file:
            raw = file.read(max_bytes + 1)
    except FileNotFoundError:
        raise SpecError(field, value, "no such file") from None
    except IsADirectoryError:
        raise SpecError(field, value, "is a directory, not a file") from None
    except (OSError, ValueError) as error:
        # ValueError: a NUL in the path.
        raise SpecError(field, value, f"cannot be read: {error}") from error
    if len(raw) > max_bytes:
        raise SpecError(field, value, f"is larger than {max_bytes} bytes")
    if b"\0" in raw:
        raise SpecError(field, value, "is a binary file, not text")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SpecError(field, value, f"is not UTF-8 text: {error.reason} at byte {error.start}") from None


def plain(field: str, value: object) -> object:
    """Turn a mapping as TOML or a program gives it into what JSON can hold.

    Dates become ISO 8601 text, NumPy scalars plain numbers and tuples lists; everything else must already be JSON.

    Raises
    ------
    SpecError
        A number that JSON cannot spell (not finite), a key that is not a string, a type that JSON does not have, or
        nesting deeper than the interpreter follows.
    """
    try:
        return _plain(field, value)
    except RecursionError:
        raise SpecError(field, shown(type(value).__name__), "is nested too deeply, or holds itself") from None


def _plain(field: str, value: object) -> object:
    if value is None or isinstance(value, (str, bool)):
        return value
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        if math.isfinite(value):
            return float(value)
        raise SpecError(field, value, "must be a finite number")
    if isinstance(value, (datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str):
                raise SpecError(field, shown(key), "every key must be a string")
        return {key: _plain(f"{field}.{key}" if field else key or '""', item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(f"{field}[{index}]", item) for index, item in enumerate(value)]
    raise SpecError(field, shown(value), f"must be a JSON value, not {type(value).__name__}")


def json_text(value: object) -> str:
    """Write an accelerator's fields as `plain` returned them, refusing integers too long to print."""
    try:
        return json.dumps(value, ensure_ascii=False)
    except ValueError as error:
        raise SpecError("accelerator", type(value).__name__, f"cannot be written as JSON: {error}") from error
