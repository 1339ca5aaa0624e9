"""Regimes: what binds a step as its batch grows, and where the memory ends it."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby, pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from roofsim import _core
from roofsim.arguments import integer
from roofsim.errors import SpecError
from roofsim.sweep import SweepSpace

if TYPE_CHECKING:
    from collections.abc import Iterator

    from roofsim.columns import Columns

__all__ = ["Regimes", "regimes"]

MOST_BATCHES = 1 << 20
"""Largest batch looked at; far above what any engine runs."""
NARROW = 0.25
"""A stretch of batches shorter than this share of its first batch is part of a crossing where bounds alternate."""

COLUMNS = ("bound", "time_s", "tokens_per_s_per_gpu", "tokens_per_s_per_user", "mfu", "mbu")
ENDS = ("time_s", "tokens_per_s_per_gpu", "tokens_per_s_per_user", "mfu", "mbu")


class Regimes:
    """The answer to `regimes`.

    Attributes
    ----------
    contexts : list of dict
        One a context: ``context_tokens``; ``stretches``, each with ``bound``, ``first_batch``, ``last_batch`` and, in
        ``at_first`` and ``at_last``, ``time_s``, ``tokens_per_s_per_gpu``, ``tokens_per_s_per_user``, ``mfu`` and
        ``mbu`` there; ``max_sequences`` (per replica); ``ends`` (``capacity``, ``status`` where no engine runs it, or
        ``batches`` where `MOST_BATCHES` came first) and ``reason`` in words. A ``bound`` of two names is a crossing
        within which they alternate.
    model, accelerator : str
        Their names.
    """

    def __init__(self, model: str, accelerator: str, contexts: list[dict[str, Any]]) -> None:
        self.model = model
        self.accelerator = accelerator
        self.contexts = contexts

    def path(self, context_tokens: int) -> list[str]:
        """Return what binds in turn at one of the contexts, capacity last: ``["memory", "compute", "capacity"]``."""
        for one in self.contexts:
            if one["context_tokens"] == context_tokens:
                return [*(stretch["bound"] for stretch in one["stretches"]), one["ends"]]
        known = ", ".join(str(one["context_tokens"]) for one in self.contexts)
        raise SpecError("context_tokens", context_tokens, f"must be one of those asked for: {known}")

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain Python values, ready for JSON."""
        return {"model": self.model, "accelerator": self.accelerator, "contexts": self.contexts}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Regimes) and self.to_dict() == other.to_dict()

    def __hash__(self) -> int:
        return hash((self.model, self.accelerator, len(self.contexts)))

    def __repr__(self) -> str:
        paths = "; ".join(
            f"{one['context_tokens']}: {' -> '.join(self.path(one['context_tokens']))}" for one in self.contexts
        )
        return f"Regimes({self.model} on {self.accelerator}; {paths})"


def regimes(
    model: Any,
    accelerator: Any,
    *,
    context_tokens: int | Iterable[int] = (1024, 8192, 32768, 131072),
    query_tokens: int = 1,
    capacity_mode: str = "runtime",
    **settings: Any,
) -> Regimes:
    """Say what binds a step as its batch grows from 1 to all that fits, at every context asked for.

    Weights are read once whatever the batch, so a step starts memory-bound and becomes compute-bound as rows are added;
    KV is read per sequence, so a long context keeps it memory-bound until the memory is full.

    Parameters
    ----------
    model, accelerator
        What `Model.load` and `Accelerator.load` read, one each.
    context_tokens, query_tokens
        Contexts to look at, and the new tokens of each sequence.
    capacity_mode
        ``runtime`` or ``ideal``, as in `Deployment.capacity`.
    **settings
        Any other axis of `SweepSpace`, one value each: parallel sizes, formats, calibration, engine, memory.

    Raises
    ------
    SpecError
        For a value that cannot be right. "Does not fit" is an answer, not an error.

    Examples
    --------
    >>> import roofsim as rs
    >>> found = rs.regimes("llama-3.1-8b", "h100-sxm", context_tokens=[128, 32768], calibration="ideal")
    >>> found.path(128), found.path(32768)
    (['memory', 'compute', 'capacity'], ['memory', 'capacity'])
    """
    for name in ("batch_size", "models", "accelerators", "prices", "price_kind"):
        if name in settings:
            raise SpecError(name, repr(settings[name]), "is no setting of regimes")
    loaded, device = _core.Model.load(model), _core.Accelerator.load(accelerator)
    contexts: list[Any]
    # An array of several numbers has an `__index__`, which fails.
    if hasattr(context_tokens, "__index__") and getattr(context_tokens, "ndim", 0) == 0:
        contexts = [context_tokens]
    else:
        # Texts and bytes are sequences too, of letters and of small numbers.
        if isinstance(context_tokens, (str, bytes)) or not isinstance(context_tokens, Iterable):
            raise SpecError("context_tokens", repr(context_tokens), "must be one or several whole numbers")
        contexts = list(context_tokens)
    if not contexts:
        raise SpecError("context_tokens", "[]", "must hold at least one context")
    checked = dict.fromkeys(integer("context_tokens", tokens, 1, (1 << 63) - 1) for tokens in contexts)
    common = {**settings, "query_tokens": query_tokens, "capacity_mode": capacity_mode}
    found = [_context(loaded, device, {**common, "context_tokens": tokens}) for tokens in checked]
    return Regimes(loaded.name, device.name, found)


def _context(model: _core.Model, device: _core.Accelerator, axes: dict[str, Any]) -> dict[str, Any]:
    one = SweepSpace(models=model, accelerators=device, **axes)
    if one.num_configurations != 1:
        raise SpecError("settings", f"{one.num_configurations} combinations", "must be one value each")
    single = one.run(["status", "max_sequences"])
    answer: dict[str, Any] = {"context_tokens": axes["context_tokens"], "max_sequences": 0, "stretches": []}
    status = str(single["status"][0])
    if status != "ok":
        return {**answer, "ends": "status", "reason": status}
    most = int(single["max_sequences"][0])
    answer["max_sequences"] = most
    if most == 0:
        return {**answer, "ends": "capacity", "reason": _no_room(model, device, axes)}
    # A rank holds one batch for each stage.
    stages = one[0]["pipeline_parallel_size"]
    held = f"the memory holds {most:,} sequences" + (f", one batch for each of {stages} stages" if stages > 1 else "")
    most //= stages
    if most == 0:
        return {**answer, "ends": "capacity", "reason": held}
    last = min(most, MOST_BATCHES)
    found = SweepSpace(models=model, accelerators=device, **axes, batch_size=range(1, last + 1)).run(COLUMNS)
    answer["stretches"] = [_stretch(found, bound, first, end) for bound, first, end in _stretches(found["bound"])]
    if last < most:
        return {**answer, "ends": "batches", "reason": f"larger batches than {last:,} were not looked at"}
    return {**answer, "ends": "capacity", "reason": held}


def _no_room(model: _core.Model, device: _core.Accelerator, axes: dict[str, Any]) -> str:
    """Say why not one sequence fits."""
    axes = {name: value[0] if isinstance(value, (list, tuple, range)) else value for name, value in axes.items()}
    memory = ("gpu_memory_utilization", "block_size", "max_num_batched_tokens", "max_num_seqs")
    placed = ("capacity_mode", "context_tokens", "query_tokens", *memory)
    deployment = _core.Deployment(model, device, **{name: axes[name] for name in axes if name not in placed})
    room = deployment.capacity(axes["capacity_mode"], **{name: axes[name] for name in memory if name in axes})
    return room.reason or f"the pool holds {room.kv_tokens:,} tokens, less than one sequence"


def _stretches(bounds: Any) -> Iterator[tuple[str, int, int]]:
    """Yield bound, first and last position of what binds in turn; a crossing where bounds alternate is one stretch."""
    values = np.asarray(bounds)
    cuts = [0, *(np.flatnonzero(values[1:] != values[:-1]) + 1).tolist(), len(values)]
    runs = [(str(values[a]), a, b - 1) for a, b in pairwise(cuts)]

    def narrow(run: tuple[str, int, int]) -> bool:
        _, first, last = run
        return last - first + 1 < NARROW * (first + 1)

    for is_narrow, group in groupby(runs, key=narrow):
        stretch = list(group)
        if is_narrow and len(stretch) > 1:
            names = dict.fromkeys(bound for bound, _, _ in stretch)
            yield "/".join(names), stretch[0][1], stretch[-1][2]
        else:
            yield from stretch


def _stretch(found: Columns, bound: str, first: int, last: int) -> dict[str, Any]:
    ends = {
        which: {name: float(found[name][at]) for name in ENDS} for which, at in (("at_first", first), ("at_last", last))
    }
    return {"bound": bound, "first_batch": first + 1, "last_batch": last + 1, **ends}
