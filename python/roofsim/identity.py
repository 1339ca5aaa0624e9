"""What a space is, written down: to compare results of its parts, and to go on with a run on disk."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from roofsim import _core

if TYPE_CHECKING:
    from os import PathLike

_WORDS = ("ideal", "calibrated", "sustained", *_core.Calibration.kernel_libraries())

__all__ = ["calibration_source", "describe", "differences", "fingerprint"]


def calibration_source(value: Any) -> Any:
    """Load a calibration that a path, a mapping or a catalogue name stands for; the rest stays."""
    if value is None or isinstance(value, _core.Calibration) or value in _WORDS:
        return value
    if isinstance(value, (str, Mapping)) or hasattr(value, "__fspath__"):
        source: str | PathLike[str] | Mapping[str, Any] = value
        return _core.Calibration.load(source)
    return value


def describe(axes: Mapping[str, Any]) -> dict[str, str]:
    """Write every axis down: equal texts mean equal rows."""
    return {name: _axis(name, value) for name, value in axes.items()}


def fingerprint(description: Mapping[str, str]) -> str:
    """Return the SHA-256 of a description."""
    return hashlib.sha256(json.dumps(dict(description), sort_keys=True).encode()).hexdigest()


def differences(mine: Mapping[str, str], other: Mapping[str, str]) -> str:
    """Name the entries in which two descriptions differ, with both values cut short; empty where they agree."""
    names = [name for name in {**mine, **other} if mine.get(name) != other.get(name)]
    return "; ".join(f"{name}: {_short(mine.get(name))} here, {_short(other.get(name))} there" for name in names)


def _short(text: str | None) -> str:
    if text is None:
        return "nothing"
    return text if len(text) <= 80 else f"{text[:60]}... (SHA-256 {hashlib.sha256(text.encode()).hexdigest()[:12]})"


def _hashed(name: str, contents: str) -> str:
    return f"{name} (SHA-256 {hashlib.sha256(contents.encode()).hexdigest()[:16]})"


def _axis(name: str, value: Any) -> str:
    if isinstance(value, (str, Mapping)) or value is None or not isinstance(value, Iterable):
        value = [value]
    if isinstance(value, range) and len(value) > 1:
        return f"{value.start} to {value[-1]} by {value.step}"
    listed = [_value(name, item) for item in value]
    steps = {later - earlier for earlier, later in pairwise(listed)} if all(type(x) is int for x in listed) else set()
    # A list that is a range is written like one: both ways of giving an axis are the same space.
    if len(steps) == 1:
        return f"{listed[0]} to {listed[-1]} by {steps.pop()}"
    return json.dumps(listed)


def _value(name: str, value: Any) -> Any:
    if isinstance(value, _core.Model):
        return _hashed(value.name, repr(value.__reduce__()[1]))
    if isinstance(value, _core.Accelerator):
        return _hashed(value.name, value.to_json() + value.calibration.to_json())
    if isinstance(value, _core.Calibration):
        return _hashed(value.name, value.to_json())
    if isinstance(value, np.generic) or (isinstance(value, np.ndarray) and value.ndim == 0):
        return value.item()
    if value is None and name in ("weight_dtype", "kv_cache_dtype"):
        return "auto"
    if isinstance(value, str) and name not in ("models", "accelerators", "calibration"):
        return value.lower()
    return value
