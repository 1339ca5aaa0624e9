"""Accelerators by name, file or mapping: find the spec and hand its JSON text to the core."""

from __future__ import annotations

import functools
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from roofsim.catalog.files import json_text, plain, read_text, shown, user_path
from roofsim.catalog.lookup import resolve
from roofsim.errors import SpecError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

DIRECTORY = Path(__file__).with_suffix("")
"""One TOML file per accelerator, named after it."""

MAX_SPEC_BYTES = 1 << 20
MAX_NAME_CHARS = 64
SUFFIXES = (".toml", ".json")

_CATALOGUE_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_MAKERS = frozenset({"nvidia", "amd", "intel", "google", "aws", "amazon", "tesla", "geforce", "instinct", "cloud"})


def accelerator_names() -> list[str]:
    """List the catalogue's accelerators in alphabetical order, without reading their files.

    Examples
    --------
    >>> "h100-sxm" in accelerator_names()
    True
    """
    return sorted(path.stem for path in DIRECTORY.glob("*.toml"))


def read_accelerator(source: str | os.PathLike[str] | Mapping[str, object]) -> str:
    """Find an accelerator's spec and return it as JSON text, unread by anyone but the core.

    Parameters
    ----------
    source
        A catalogue name (``h100-sxm``); a name as people type it (``H100``, ``NVIDIA H100 80GB HBM3``, ``A100-80G``:
        case, blanks, dashes, underscores and a maker's name in front do not count); the path of a ``.toml`` or
        ``.json`` spec file; or a mapping with the fields of one.

    Returns
    -------
    str
        JSON text for ``Accelerator.from_json``. It is JSON, not yet a valid spec: the core validates every field.

    Raises
    ------
    SpecError
        The name is unknown (the nearest are given) or means several entries (which are named); the file is missing,
        unreadable, too large or neither TOML nor JSON; the mapping holds what JSON cannot.

    Examples
    --------
    >>> import json
    >>> json.loads(read_accelerator("NVIDIA H100 80GB HBM3"))["name"]
    'h100-sxm'
    """
    if isinstance(source, Mapping):
        return json_text(plain("", dict(source)))
    if isinstance(source, str):
        if not source.strip():
            raise SpecError("accelerator", repr(source), "must not be empty")
        if not source.strip().lower().endswith(SUFFIXES):
            return _read_file(DIRECTORY / f"{_catalogue_name(source)}.toml")
        return _read_file(user_path(source))
    if isinstance(source, os.PathLike):
        return _read_file(Path(source))
    raise SpecError("accelerator", shown(source), f"must be a name, a path or a mapping, not {type(source).__name__}")


def _catalogue_name(typed: str) -> str:
    # The exact name is found without parsing a single file; the pattern keeps it inside the directory.
    if len(typed) <= MAX_NAME_CHARS and _CATALOGUE_NAME.fullmatch(typed) and (DIRECTORY / f"{typed}.toml").is_file():
        return typed
    try:
        return resolve("accelerator", typed, _aliases(), fold)
    except SpecError as error:
        if "/" in typed or os.sep in typed:
            raise SpecError("accelerator", shown(typed), "a spec file must end in .toml or .json") from None
        raise error from None


def fold(name: str) -> str:
    """Reduce a name to what distinguishes it: lower-case letters and digits, without a maker in front.

    Examples
    --------
    >>> fold("NVIDIA A100-SXM4_80GB")
    'a100sxm480gb'
    """
    words = re.findall(r"[a-z0-9.]+", name.lower())
    while len(words) > 1 and words[0] in _MAKERS:
        del words[0]
    return "".join(words)


@functools.cache
def _aliases() -> dict[str, tuple[str, ...]]:
    return {name: tuple(_aliases_in(DIRECTORY / f"{name}.toml")) for name in accelerator_names()}


def _aliases_in(path: Path) -> Iterator[str]:
    # `aliases` stands on one line near the top of every catalogue file (a test holds it there), so that looking up an
    # alias parses one line of each file instead of the whole catalogue.
    import tomllib

    with path.open(encoding="utf-8") as file:
        for line in file:
            if line.startswith("aliases = "):
                yield from tomllib.loads(line)["aliases"]
                return


def _read_file(path: Path) -> str:
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise SpecError("accelerator", str(path), "a spec file must end in .toml or .json")
    text = read_text("accelerator", path, MAX_SPEC_BYTES)
    if suffix == ".json":
        # Parsed only to name the field that holds a NaN or an infinity, which strict JSON cannot spell. The text goes
        # on as it is, so that the core sees a key that stands twice.
        plain("", _parsed(path, "JSON", json.loads, text))
        return text
    import tomllib

    return json_text(plain("", _parsed(path, "TOML", tomllib.loads, text)))


def _parsed(path: Path, language: str, parse: Callable[[str], object], text: str) -> object:
    try:
        return parse(text)
    except (ValueError, RecursionError) as error:
        raise SpecError("accelerator", str(path), f"must be valid {language}: {error}") from None


def accelerator_text(
    source: str | os.PathLike[str] | Mapping[str, object] | None, fields: Mapping[str, object] | None
) -> str:
    """Return the JSON text of a spec given as a source, as fields, or as a source with fields replaced.

    Raises
    ------
    SpecError
        As `read_accelerator`; also when neither is given.
    """
    if source is None and not fields:
        raise SpecError("accelerator", "missing", "give a name, a spec file, a mapping, or fields as keyword arguments")
    if not fields:
        assert source is not None  # noqa: S101 - the branch above
        return read_accelerator(source)
    own = plain("", dict(fields))
    if source is None:
        return json_text(own)
    spec = json.loads(read_accelerator(source))
    return json_text({**spec, **own}) if isinstance(spec, dict) and isinstance(own, dict) else json_text(spec)
