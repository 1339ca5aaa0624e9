"""Models by name, file, directory or mapping: find the config and hand its JSON text to the core."""

from __future__ import annotations

import functools
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path

from roofsim.catalog.files import read_text, shown, user_path
from roofsim.catalog.lookup import resolve
from roofsim.errors import SpecError

DIRECTORY = Path(__file__).with_suffix("")
"""The published config files and the index that names them."""

MAX_CONFIG_BYTES = 64 << 20
CONFIG_FILE = "config.json"
QUANTIZATION_FILE = "hf_quant_config.json"


def model_names() -> list[str]:
    """List the catalogue's models in alphabetical order."""
    return sorted(_index())


def read_model(source: str | os.PathLike[str] | Mapping[str, object]) -> tuple[str, str, str | None]:
    """Find a model's configuration and return it as JSON text.

    Parameters
    ----------
    source
        A catalogue name (``llama-3.1-70b``) or Hugging Face id (``meta-llama/Llama-3.1-70B``), in any case; the path
        of a ``config.json``; a directory that holds one, with or without ``hf_quant_config.json``; or the config as a
        mapping. A catalogue name wins over a file of the same name: write ``./name`` for the file.

    Returns
    -------
    config : str
        JSON text of the config. Of a mapping that holds a NaN or an infinity it is what Python writes for them, which
        the core refuses.
    name : str
        The catalogue name, else the directory's or file's name, else what the mapping calls itself.
    quantization : str or None
        Text of ``hf_quant_config.json`` (TensorRT Model Optimizer's description of the formats) where there is one.

    Raises
    ------
    SpecError
        Nothing by that name (the nearest are given); a file that is missing, larger than 64 MiB, binary, not UTF-8 or
        not JSON; a directory without ``config.json``; a value of another type.
    """
    if isinstance(source, Mapping):
        return _from_mapping(source)
    if isinstance(source, str):
        if not source.strip():
            raise SpecError("model", repr(source), "must not be empty")
        return _from_text(source)
    if isinstance(source, os.PathLike):
        return _from_path(Path(source))
    raise SpecError("model", shown(source), f"must be a name, a path or a mapping, not {type(source).__name__}")


def fold(name: str) -> str:
    """Reduce a name to lower case with a dash for every blank or underscore.

    Examples
    --------
    >>> fold(" Llama_3.1 70B ")
    'llama-3.1-70b'
    """
    return re.sub(r"[\s_]+", "-", name.strip().casefold())


def _from_mapping(config: Mapping[str, object]) -> tuple[str, str, str | None]:
    try:
        text = json.dumps(dict(config), ensure_ascii=False, allow_nan=True)
    except (TypeError, ValueError, RecursionError) as error:
        raise SpecError("model", "a mapping", f"must hold nothing but JSON values: {error}") from error
    for key in ("_name_or_path", "model_type"):
        name = config.get(key)
        if isinstance(name, str) and name.strip():
            return text, name, None
    return text, "model", None


def _from_text(typed: str) -> tuple[str, str, str | None]:
    if typed.endswith(".json") or typed.startswith((".", "~", os.sep)):
        return _from_path(user_path(typed))
    index = _index()
    aliases = {name: _aliases_of(entry) for name, entry in index.items()}
    try:
        name = resolve("model", typed, aliases, fold)
    except SpecError as error:
        if _exists(Path(typed)):
            return _from_path(Path(typed))
        rule = f"{error.rule}; nor is it a file or directory"
        raise SpecError(error.field, error.value, rule) from None
    return _from_catalogue(name, index[name])


def _from_catalogue(name: str, entry: Mapping[str, object]) -> tuple[str, str, str | None]:
    config = read_text("model", DIRECTORY / str(entry["file"]), MAX_CONFIG_BYTES)
    quantization = entry.get("hf_quant_config")
    if quantization is None:
        return config, name, None
    return config, name, read_text("model", DIRECTORY / str(quantization), MAX_CONFIG_BYTES)


def _from_path(path: Path) -> tuple[str, str, str | None]:
    if path.is_dir():
        directory, config = path, path / CONFIG_FILE
        if not config.is_file():
            raise SpecError("model", str(path), f"the directory holds no {CONFIG_FILE}")
    else:
        directory, config = path.parent, path
    text = _json_file(config)
    is_default = config.name == CONFIG_FILE
    name = directory.resolve().name if is_default else config.stem
    quantization = directory / QUANTIZATION_FILE
    # A config under another name may stand among those of other models, which the quantization file does not describe.
    if is_default and quantization.is_file():
        return text, name, _json_file(quantization)
    return text, name, None


def _json_file(path: Path) -> str:
    text = read_text("model", path, MAX_CONFIG_BYTES)
    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        raise SpecError("model", str(path), f"must be valid JSON: {error}") from None
    except (ValueError, RecursionError) as error:
        raise SpecError("model", str(path), f"must be readable JSON: {error}") from None
    return text


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # a name too long for the file system, or with a NUL
        return False


def _aliases_of(entry: Mapping[str, object]) -> tuple[str, ...]:
    aliases = entry.get("aliases", ())
    return tuple(map(str, aliases)) if isinstance(aliases, (list, tuple)) else ()


@functools.cache
def _index() -> dict[str, dict[str, object]]:
    import tomllib

    with (DIRECTORY / "index.toml").open("rb") as file:
        return tomllib.load(file)
