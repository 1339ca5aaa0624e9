"""Plans: which accelerators, layouts and formats serve a workload within its latencies, and at what price."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from roofsim import _core
from roofsim.errors import SpecError
from roofsim.sweep import catalogue_name, device_prices

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Plan", "plan"]

PRICE_KINDS = ("on-demand", "reserved", "cost-of-ownership")


class Plan:
    """The answer to `plan`.

    Attributes
    ----------
    options : list of dict
        Every way that holds the latencies, best first: accelerator, layout, formats, largest batch, TTFT and TPOT
        with the low and high end of their intervals, largest gap between tokens (seconds), tokens/s, US dollars per
        million output tokens, what binds, and ``why_not_first``.
    misses : list of dict
        Every way that does not, with the reason and, where one makes sense, the factor by which the worst limit is
        missed at batch 1: first those that fit the memory and miss a latency, then those that do not fit, nearest
        first.
    request : dict
        What was asked, defaults included.
    """

    def __init__(self, options: list[dict[str, Any]], misses: list[dict[str, Any]], request: dict[str, Any]) -> None:
        self.options = options
        self.misses = misses
        self.request = request

    def distinct(self) -> list[dict[str, Any]]:
        """Return the best option of each accelerator, number of devices and formats, best first.

        Layouts of the same devices often differ by a few percent; this is the list that a person compares.
        """
        keys = ("accelerator", "num_devices", "weight_dtype", "kv_cache_dtype")
        best: dict[tuple[Any, ...], dict[str, Any]] = {}
        for option in self.options:
            best.setdefault(tuple(option[key] for key in keys), option)
        return list(best.values())

    @property
    def best(self) -> dict[str, Any] | None:
        """The first option; ``None`` when nothing holds the latencies."""
        return self.options[0] if self.options else None

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain Python values, ready for JSON."""
        return {"request": self.request, "options": self.options, "misses": self.misses}

    def __repr__(self) -> str:
        best = self.best
        if best is None:
            return f"Plan(nothing fits; {len(self.misses)} ways tried)"
        return (
            f"Plan(best of {len(self.options)}: {best['num_devices']} x {best['accelerator']}, "
            f"batch {best['batch_size']}, TPOT {1e3 * best['tpot_s']:.1f} ms)"
        )


def plan(
    model: Any,
    accelerators: Any,
    *,
    input_tokens: int,
    output_tokens: int,
    ttft_s: float | None = None,
    tpot_s: float | None = None,
    objective: str = "usd_per_mtok",
    max_devices: int = 8,
    max_num_batched_tokens: int = 8192,
    weight_dtypes: Sequence[str] | str | None = None,
    kv_cache_dtypes: Sequence[str] | str | None = None,
    prices: Mapping[str, float] | None = None,
    price_kind: str = "auto",
    calibration: Any = None,
    engine: str = "ideal",
    capacity_mode: str = "runtime",
    gpu_memory_utilization: float = 0.9,
    block_size: int = 16,
    max_num_seqs: int = 1024,
) -> Plan:
    """Find every layout and format that serves a workload within its latencies, ranked.

    For each way the largest batch that holds the latencies in steady state is found: of every ``output_tokens`` steps,
    ``N = ceil(B input_tokens / (max_num_batched_tokens - B))`` take in the prompts of the requests that replace
    finished ones, the rest are pure decodes at ``input_tokens + output_tokens / 2``. TPOT is the mean step, TTFT is
    ``ceil(input_tokens / (max_num_batched_tokens - B))`` mixed steps. Leaves out queueing and request variety.

    Parameters
    ----------
    model, accelerators
        What `Model.load` and `Accelerator.load` read; several accelerators in a list.
    input_tokens, output_tokens
        Prompt and generated tokens of a request.
    ttft_s, tpot_s
        Limits in seconds; ``None`` is no limit.
    objective
        ``usd_per_mtok``, ``tokens_per_s_per_gpu``, ``tokens_per_s_per_user`` or ``ttft_s``.
    max_devices
        Most devices of one deployment.
    max_num_batched_tokens
        Rows that one step may hold.
    weight_dtypes, kv_cache_dtypes
        Formats to try; ``None`` is the published ones only.
    prices
        US dollars per device-hour by accelerator name or alias.
    price_kind
        Kind of the other prices; ``auto`` takes the first of on-demand, reserved and cost-of-ownership that is known
        for all accelerators, so that like is compared with like.
    calibration, engine
        As in `Deployment`: without a calibration every accelerator keeps its own.
    capacity_mode, gpu_memory_utilization, block_size, max_num_seqs
        As in `Deployment.capacity`.

    Raises
    ------
    SpecError
        For a value that cannot be right. "Nothing fits" is an answer, not an error.

    Examples
    --------
    >>> import roofsim as rs
    >>> answer = rs.plan("llama-3.1-8b", ["h100-sxm"], input_tokens=1000, output_tokens=200, tpot_s=0.02)
    >>> answer.best["num_devices"]
    1
    """
    if isinstance(accelerators, (str, Mapping, _core.Accelerator)) or hasattr(accelerators, "__fspath__"):
        accelerators = [accelerators]
    loaded = _core.Model.load(model)
    if not isinstance(accelerators, Iterable):
        raise SpecError("accelerators", repr(accelerators), "must be one or a sequence of accelerators")
    if prices is not None and not isinstance(prices, Mapping):
        raise SpecError("prices", repr(prices), "must map accelerator names to US dollars per device-hour")
    devices = [_core.Accelerator.load(device) for device in accelerators]
    for field, formats in (("weight_dtypes", weight_dtypes), ("kv_cache_dtypes", kv_cache_dtypes)):
        if formats is not None and not isinstance(formats, str) and len(list(formats)) == 0:
            raise SpecError(field, repr(formats), "must name at least one format")
    kind = _common_kind(devices, prices, price_kind)
    offers = [(device, *price) for device, price in zip(devices, device_prices(devices, prices, kind), strict=True)]
    request: dict[str, Any] = {
        "input_tokens": input_tokens,
        "output_tokens": output_tokens,
        "ttft_s": ttft_s,
        "tpot_s": tpot_s,
        "objective": objective,
        "max_devices": max_devices,
        "max_num_batched_tokens": max_num_batched_tokens,
        "weight_dtypes": ["auto"] if weight_dtypes is None else weight_dtypes,
        "kv_cache_dtypes": ["auto"] if kv_cache_dtypes is None else kv_cache_dtypes,
        "calibration": calibration,
        "engine": engine,
        "capacity_mode": capacity_mode,
        "gpu_memory_utilization": gpu_memory_utilization,
        "block_size": block_size,
        "max_num_seqs": max_num_seqs,
    }
    solved = _core._plan(loaded, offers, request)
    asked = {"model": loaded.name, "accelerators": [device.name for device in devices], "price_kind": kind, **request}
    asked["calibration"] = getattr(calibration, "name", "as loaded" if calibration is None else str(calibration))
    return Plan(solved["options"], solved["misses"], asked)


def _common_kind(devices: list[_core.Accelerator], prices: Mapping[str, float] | None, kind: str) -> str:
    if kind != "auto":
        if kind not in PRICE_KINDS:
            raise SpecError("price_kind", kind, f"must be auto or one of {', '.join(PRICE_KINDS)}")
        return kind
    given = {*(prices or {}), *map(catalogue_name, prices or {})}
    unpriced = [device for device in devices if device.name not in given]
    for candidate in PRICE_KINDS:
        if all(device.usd_per_hour(candidate) is not None for device in unpriced):
            return candidate
    return PRICE_KINDS[0]
