"""Plans: which accelerators, layouts and formats serve a workload within its latencies, and at what price."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from roofsim import _core
from roofsim.errors import SpecError
from roofsim.prices import choose_kind, device_prices

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Plan", "plan"]


class Plan:
    """The answer to `plan`.

    Attributes
    ----------
    options : list of dict
        Every way that holds the latencies, best first: accelerator, layout, formats, largest batch (sequences of one
        replica and microbatch), ``sequences`` in flight and ``max_sequences`` that memory would hold (both of one
        replica, all microbatches), TTFT and TPOT with the low and high end of their intervals, largest gap between
        tokens (seconds), tokens/s, US dollars per million output tokens, what binds, ``no_better_than`` (the position
        of an option on fewer devices than which this one is better in nothing, or ``None``) and ``why_not_first``.
    misses : list of dict
        Every way that does not, with the reason and, where one makes sense, the factor by which the worst limit is
        missed at batch 1: first those that fit the memory and miss a latency, then those that do not fit, nearest
        first.
    offers : list of dict
        One a device: its ``calibration``, ``kernel_library``, ``basis`` and ``note``, its ``usd_per_hour`` and
        ``price_kind``.
    notes : list of str
        What sets the devices apart beside themselves, one sentence each: kernels of different libraries, prices of
        different kinds, prices that are known of another kind only.
    request : dict
        What was asked, defaults included; ``price_kind`` is the kind in force.
    """

    def __init__(
        self,
        options: list[dict[str, Any]],
        misses: list[dict[str, Any]],
        request: dict[str, Any],
        offers: list[dict[str, Any]],
        notes: list[str],
    ) -> None:
        self.options = options
        self.misses = misses
        self.request = request
        self.offers = offers
        self.notes = notes

    def distinct(self) -> list[dict[str, Any]]:
        """Return the best option of each accelerator, number of devices and formats, best first.

        Layouts of the same devices often differ by a few percent, and a pipeline on twice the devices is often the same
        way twice (``no_better_than``): this is the list that a person compares.
        """
        keys = ("accelerator", "num_devices", "weight_dtype", "kv_cache_dtype")
        best: dict[tuple[Any, ...], dict[str, Any]] = {}
        for option in self.options:
            if option["no_better_than"] is not None:
                continue
            best.setdefault(tuple(option[key] for key in keys), option)
        return list(best.values())

    @property
    def best(self) -> dict[str, Any] | None:
        """The first option; ``None`` when nothing holds the latencies."""
        return self.options[0] if self.options else None

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain Python values, ready for JSON."""
        return {
            "request": self.request,
            "offers": self.offers,
            "notes": self.notes,
            "options": self.options,
            "misses": self.misses,
        }

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Plan) and self.to_dict() == other.to_dict()

    def __hash__(self) -> int:
        return hash((self.request["model"], len(self.options), len(self.misses)))

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
        Kind of the other prices: ``on-demand``, ``reserved``, ``cost-of-ownership``, or ``auto``: the one known for
        most accelerators, of several the first. A device without a price of that kind ranks last by price, and
        `Plan.notes` says what is known of it.
    calibration, engine
        As in `Deployment`. Without a calibration every accelerator keeps its own, which may rest on kernels of another
        library than its neighbour's; `Plan.notes` says so. The name of a library (``tensorrt-llm``) takes that one
        wherever it was measured.
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
    devices: list[_core.Accelerator] = []
    for device in map(_core.Accelerator.load, accelerators):
        if device not in devices:
            devices.append(device)
    kind = choose_kind(devices, prices, price_kind)
    offers = [(device, *price) for device, price in zip(devices, device_prices(devices, prices, kind), strict=True)]
    request: dict[str, Any] = {
        "input_tokens": input_tokens,
        "output_tokens": output_tokens,
        "ttft_s": ttft_s,
        "tpot_s": tpot_s,
        "objective": objective,
        "max_devices": max_devices,
        "max_num_batched_tokens": max_num_batched_tokens,
        "weight_dtypes": _listed("weight_dtypes", weight_dtypes),
        "kv_cache_dtypes": _listed("kv_cache_dtypes", kv_cache_dtypes),
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
    return Plan(solved["options"], solved["misses"], asked, solved["offers"], solved["notes"])


def _listed(field: str, formats: Sequence[str] | str | None) -> Sequence[str] | str:
    """Write formats as a list; the core refuses what is none."""
    if formats is None:
        return ["auto"]
    if isinstance(formats, str) or not isinstance(formats, Iterable):
        return formats
    listed = list(formats)
    if not listed:
        raise SpecError(field, repr(formats), "must name at least one format")
    return listed
