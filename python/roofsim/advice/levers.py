"""Levers: what each change to a deployment would do to its decode step, and to which family it belongs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from roofsim import _core
from roofsim.arguments import integer
from roofsim.errors import SpecError
from roofsim.sweep import SweepSpace

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["FAMILIES", "Levers", "levers"]

FAMILIES = {
    "work": "adds work to the bytes a step reads anyway: throughput, never a lower floor of latency",
    "bytes": "cuts the bytes a step reads: the only kind that lowers the floor of latency on the same devices",
    "devices": "shares the bytes and the work among more devices: lower latency for a price",
}
"""What a lever of each family does."""

WEIGHTS = ("fp8", "int4")
CACHES = ("fp8",)
BOTH, BOTH_PARTS = "weights and KV cache in fp8", ("weights in fp8", "KV cache in fp8")
DRAFTS = (2, 4)
LEAST_CUT = 0.99
"""Share of the bytes above which a format is what is there already."""

COLUMNS = (
    "status",
    "fits",
    "max_sequences",
    "bound",
    "time_s",
    "time_low_s",
    "time_high_s",
    "bytes",
    "flops",
    "num_devices",
    "tokens_per_s_per_gpu",
    "tokens_per_s_per_user",
)


class Levers:
    """The answer to `levers`.

    Attributes
    ----------
    base : dict
        The step as it is: the columns of a sweep's row, ``status`` and ``max_sequences`` among them.
    options : list of dict
        Every lever that the devices can run, by family and then by gain: ``family`` (`FAMILIES`), ``lever`` in words,
        ``change`` (the axes that differ), the columns of its row, and beside the base ``time_ratio``, ``bytes_ratio``,
        ``per_gpu_ratio``. Levers that verify drafts have ``break_even_tokens``, the tokens that a step must yield on
        average before they pay; their ``per_gpu_ratio`` counts all tokens as accepted and is a bound.
    refused : list of dict
        Levers that cannot be pulled here: ``lever`` and ``reason``.
    """

    def __init__(self, base: dict[str, Any], options: list[dict[str, Any]], refused: list[dict[str, str]]) -> None:
        self.base = base
        self.options = options
        self.refused = refused

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain Python values, ready for JSON."""
        return {"base": self.base, "families": FAMILIES, "options": self.options, "refused": self.refused}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Levers) and self.to_dict() == other.to_dict()

    def __hash__(self) -> int:
        return hash((self.base["time_s"], len(self.options)))

    def __repr__(self) -> str:
        return f"Levers({len(self.options)} of a step of {1e3 * self.base['time_s']:.2f} ms)"


def levers(
    model: Any,
    accelerator: Any,
    *,
    batch_size: int,
    context_tokens: int,
    query_tokens: int = 1,
    tensor_parallel_size: int = 1,
    capacity_mode: str = "runtime",
    max_devices: int = 8,
    **settings: Any,
) -> Levers:
    """Say what each change to a deployment does to its decode step.

    Two families must not be confused. Batching and the verification of drafts add work to a step that waits for memory:
    more tokens for nearly the same time, and no token sooner. Narrower weights and a narrower KV cache cut the bytes:
    they alone lower the floor. More devices share both, and cost what they cost.

    Parameters
    ----------
    model, accelerator
        What `Model.load` and `Accelerator.load` read, one each.
    batch_size, context_tokens, query_tokens
        The step: sequences per replica, their contexts, new tokens of each.
    tensor_parallel_size
        Devices that share each layer.
    capacity_mode
        ``runtime`` or ``ideal``, as in `Deployment.capacity`.
    max_devices
        Most devices of the levers that add some.
    **settings
        Any other axis of `SweepSpace`, one value each.

    Raises
    ------
    SpecError
        For a value that cannot be right, and for a step that no engine runs.

    Examples
    --------
    >>> import roofsim as rs
    >>> found = rs.levers("llama-3.1-8b", "h100-sxm", batch_size=8, context_tokens=4096, calibration="ideal")
    >>> best = min((one for one in found.options if one["family"] == "bytes"), key=lambda one: one["time_s"])
    >>> best["lever"], best["time_ratio"] < 0.5
    ('weights in int4', True)
    """
    for name in ("models", "accelerators", "prices", "price_kind"):
        if name in settings:
            raise SpecError(name, repr(settings[name]), "is no setting of levers")
    loaded, device = _core.Model.load(model), _core.Accelerator.load(accelerator)
    batch = integer("batch_size", batch_size, 1, 1 << 40)
    query = integer("query_tokens", query_tokens, 1, 1 << 40)
    context = integer("context_tokens", context_tokens, 1, 1 << 60)
    ranks = integer("tensor_parallel_size", tensor_parallel_size, 1, 1 << 20)
    most = integer("max_devices", max_devices, 1, 1 << 20)
    axes: dict[str, Any] = {
        **settings,
        "batch_size": batch,
        "context_tokens": context,
        "query_tokens": query,
        "tensor_parallel_size": ranks,
        "capacity_mode": capacity_mode,
    }
    base = _row(loaded, device, axes)
    if base["status"] != "ok":
        raise SpecError("deployment", f"{loaded.name} on {device.name}", base["status"])
    tried: list[tuple[str, str, dict[str, Any]]] = []
    # A rank holds one batch for each stage.
    full = base["max_sequences"] // _space(loaded, device, axes)[0]["pipeline_parallel_size"]
    if full != 2 * batch:
        tried.append(("work", "twice the batch", {"batch_size": 2 * batch}))
    if full > batch:
        tried.append(("work", f"the batch that fills the memory, {full:,}", {"batch_size": full}))
    if query == 1:
        tried += [
            ("work", f"verify {drafts} draft tokens", {"query_tokens": 1 + drafts, "context_tokens": context + drafts})
            for drafts in DRAFTS
        ]
    tried += [("bytes", f"weights in {name}", {"weight_dtype": name}) for name in WEIGHTS]
    tried += [("bytes", f"KV cache in {name}", {"kv_cache_dtype": name}) for name in CACHES]
    tried.append(("bytes", BOTH, {"weight_dtype": "fp8", "kv_cache_dtype": "fp8"}))
    if 2 * base["num_devices"] <= most:
        tried.append(("devices", f"tensor parallel {2 * ranks}", {"tensor_parallel_size": 2 * ranks}))
    options: list[dict[str, Any]] = []
    refused: list[dict[str, str]] = []
    for family, lever, change in tried:
        if lever == BOTH and sum(one["lever"] in BOTH_PARTS for one in options) < len(BOTH_PARTS):
            continue  # with one part of no use, the two are the other one again
        try:
            row = _row(loaded, device, {**axes, **change})
        except SpecError as error:
            # Past the limits of an axis: the step itself is within them.
            refused.append({"lever": lever, "reason": str(error)})
            continue
        if row["status"] != "ok":
            refused.append({"lever": lever, "reason": row["status"]})
        elif family == "bytes" and row["bytes"] > LEAST_CUT * base["bytes"]:
            refused.append({"lever": lever, "reason": "reads about as many bytes as now"})
        else:
            options.append(_option(family, lever, change, row, base))
    order = list(FAMILIES)
    options.sort(key=lambda one: (order.index(one["family"]), -one["per_gpu_ratio"]))
    return Levers({**axes, **base}, options, refused)


def _option(
    family: str, lever: str, change: dict[str, Any], row: dict[str, Any], base: dict[str, Any]
) -> dict[str, Any]:
    option = {
        "family": family,
        "lever": lever,
        "change": change,
        **row,
        "time_ratio": row["time_s"] / base["time_s"],
        "bytes_ratio": row["bytes"] / base["bytes"],
        "per_gpu_ratio": row["tokens_per_s_per_gpu"] / base["tokens_per_s_per_gpu"],
    }
    if "query_tokens" in change:
        option["break_even_tokens"] = option["time_ratio"]
    return option


def _row(model: _core.Model, device: _core.Accelerator, axes: dict[str, Any], names: Sequence[str] = COLUMNS) -> Any:
    found = _space(model, device, axes).run(names)
    return {name: found[name][:1].tolist()[0] for name in names}


def _space(model: _core.Model, device: _core.Accelerator, axes: dict[str, Any]) -> SweepSpace:
    space = SweepSpace(models=model, accelerators=device, **axes)
    if space.num_configurations != 1:
        raise SpecError("settings", f"{space.num_configurations} combinations", "must be one value each")
    return space
