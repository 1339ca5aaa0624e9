"""Measured points by class of operation: the best kernel of each point, and what was left out with the reason."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from roofsim.errors import SpecError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from roofsim import Accelerator

__all__ = ["CLASSES", "LeftOut", "Observations", "observe"]

COLUMNS: dict[str, tuple[str, ...]] = {
    "gemm": ("m", "n", "k"),
    "decode_attention": ("batch_size", "query_tokens", "context_tokens", "num_heads", "num_kv_heads", "head_dim"),
    "prefill_attention": ("batch_size", "query_tokens", "context_tokens", "num_heads", "num_kv_heads", "head_dim"),
    "grouped_gemm": ("num_tokens", "num_experts", "experts_per_token", "expert_ranks", "n", "k"),
    "elementwise": ("num_bytes", "row_elements"),
    "moe_layer": ("num_tokens", "num_experts", "experts_per_token", "expert_ranks", "hidden_size", "intermediate_size"),
    "collective": ("num_bytes", "num_devices"),
    "direct_all_reduce": ("num_bytes", "num_devices"),
    "latent_decode_attention": ("batch_size", "query_tokens", "context_tokens", "num_heads"),
    "latent_prefill_attention": ("batch_size", "query_tokens", "context_tokens", "num_heads"),
}
STEP_SIZES = ("batch_size", "query_tokens", "context_tokens")
CLASSES = tuple(COLUMNS)
"""Classes of single operations, in the order in which they are fitted and reported.

Latent attention has DeepSeek V3's widths; its kernels are timed without the up-projections.
`moe_layer` is a layer of routed experts as a step prices it, `collective` a library's (its operand type is the kind),
`direct_all_reduce` an engine's own: published tables hold these."""
DEFAULTS = {"expert_ranks": 1}
NORMS = ("rms_norm", "add_rms_norm")
"""Element-wise kernels that reduce each row: their `row_elements` is the width, that of others 0."""
OPTIONAL = {"grouped_gemm": ("active_experts",)}
HOST_DRIVEN = ("torch.mm_loop",)
"""One product an expert, launched by a host that knows how many rows each expert got. In a step these counts are on the
device, and no captured graph runs it: it says nothing about what a step's experts take."""
MOST = 1 << 53
"""Sizes below it are exact as floats."""

EFFICIENCY_FLOOR = 0.999
"""A point faster than the bare roofline by more than the clock's resolution is left out and listed."""
LEAST_LINK_SHARE = 0.2
LATENCY_S = 2e-7
"""Messages that a link carries in less than this are all latency."""
WARM_SHARE = 0.01
SUSPECT_SHARE = 0.1
LAUNCH_S = 1e-6
"""Memory time that does not matter beside a launch."""


@dataclass(frozen=True)
class LeftOut:
    """A measured point that no fit and no score uses."""

    family: str
    params: Mapping[str, Any]
    reason: str
    measured_s: float | None = None
    ideal_s: float | None = None

    def __str__(self) -> str:
        """Return the shape of the point, and its time beside the bound's where both are known."""
        names = ["dtype", "op", "model", *COLUMNS.get(self.family, STEP_SIZES), "rows", "width"]
        words = [f"{name}={self.params[name]}" for name in names if self.params.get(name) is not None]
        if self.measured_s and self.ideal_s:
            times = f"{1e6 * self.measured_s:.2f} us, at least {1e6 * self.ideal_s:.2f} us by the bare roofline"
            words.append(f"took {times}")
        return " ".join(words)


@dataclass(frozen=True)
class Observations:
    """Points of one class and operand type.

    Attributes
    ----------
    family, dtype, kv_cache_dtype
        Class of operation, operand type, storage of the cache (attention).
    columns
        Shape columns, uint64, one entry a point.
    measured_s
        Median time of the best kernel, seconds.
    groups
        What is left out together: (n, k), head layout, or kind of element-wise kernel.
    labels
        Where the point comes from: `model:...`, `random:...`.
    kernels
        Backend that was best.
    """

    family: str
    dtype: str
    columns: dict[str, NDArray[np.uint64]]
    measured_s: NDArray[np.float64]
    groups: NDArray[np.str_]
    labels: NDArray[np.str_]
    kernels: NDArray[np.str_]
    kv_cache_dtype: str = "bf16"
    left_out: list[LeftOut] = field(default_factory=list)

    def __len__(self) -> int:
        """Count the points."""
        return len(self.measured_s)

    @property
    def name(self) -> str:
        """Class and operand type, `gemm.bf16`; the storage of the cache too where it differs."""
        stored = "" if self.kv_cache_dtype in ("", "bf16", self.dtype) else f".kv_{self.kv_cache_dtype}"
        return f"{self.family}.{self.dtype}{stored}"

    def take(self, chosen: NDArray[Any]) -> Self:
        """Return the points of a mask or of positions."""
        return replace(
            self,
            columns={name: column[chosen] for name, column in self.columns.items()},
            measured_s=self.measured_s[chosen],
            groups=self.groups[chosen],
            labels=self.labels[chosen],
            kernels=self.kernels[chosen],
        )


def best_kernels(rows: Iterable[Mapping[str, Any]]) -> tuple[list[Mapping[str, Any]], list[LeftOut]]:
    """Return the fastest correct row of each point that a step could run, and the points none of whose kernels ran."""
    best: dict[str, Mapping[str, Any]] = {}
    failed: dict[str, Mapping[str, Any]] = {}
    for row in rows:
        for name in ("point_id", "family"):
            if not isinstance(row.get(name), str):
                raise SpecError(name, row.get(name), "must be a text in every measured row")
        if row.get("backend") in HOST_DRIVEN:
            continue
        key = str(row["point_id"])
        time = row.get("median_s")
        if row.get("error") is not None or not isinstance(time, int | float) or not 0 < time < math.inf:
            failed[key] = row
        elif key not in best or time < best[key]["median_s"]:
            best[key] = row
    lost = [
        LeftOut(str(row["family"]), dict(row), f"no kernel ran: {row.get('error')}")
        for key, row in failed.items()
        if key not in best
    ]
    return list(best.values()), lost


def _column(row: Mapping[str, Any], name: str) -> int:
    if name == "row_elements":
        return _column(row, "width") if row.get("op") in NORMS else 0
    value = row.get("bytes", row.get("num_bytes")) if name == "num_bytes" else row.get(name, DEFAULTS.get(name))
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < MOST:
        rule = f"must be a positive number below {MOST} in every measured row"
        raise SpecError(f"{row.get('family')}.{name}", value, rule)
    return round(value)


def observe(rows: Iterable[Mapping[str, Any]]) -> list[Observations]:
    """Sort the rows of measurement files into classes.

    Parameters
    ----------
    rows
        Point rows as `roofsim.validate.load_measurements` returns them, one a kernel candidate.

    Returns
    -------
    list of Observations
        One a class, operand type and cache format that occurs, in the order of `CLASSES`.

    Raises
    ------
    SpecError
        A row lacks a shape column of its class.
    """
    best, lost = best_kernels(rows)
    sorted_rows: dict[tuple[str, str, str], list[Mapping[str, Any]]] = {}
    for row in best:
        if row["family"] in COLUMNS:
            key = (str(row["family"]), str(row.get("dtype", "bf16")), str(row.get("kv_cache_dtype", row.get("dtype"))))
            sorted_rows.setdefault(key, []).append(row)
    found = []
    for family in CLASSES:
        for (name, dtype, kv_dtype), members in sorted_rows.items():
            if name == family:
                own = [one for one in lost if one.family == family and one.params.get("dtype", "bf16") == dtype]
                found.append(_gather(family, dtype, kv_dtype, members, own))
    return found


def _gather(
    family: str, dtype: str, kv_dtype: str, rows: Sequence[Mapping[str, Any]], lost: list[LeftOut]
) -> Observations:
    optional = [name for name in OPTIONAL.get(family, ()) if all(name in row for row in rows)]
    names = [*COLUMNS[family], *optional]
    # Neighbours of equal weights share their compiled operation: sorted columns evaluate fastest.
    table = sorted(rows, key=lambda row: [_column(row, name) for name in reversed(names)])
    columns = {name: np.array([_column(row, name) for row in table], np.uint64) for name in names}

    def words(key: str) -> NDArray[np.str_]:
        return np.array([str(row.get(key, "")) for row in table], np.str_)

    return Observations(
        family,
        dtype,
        columns,
        np.array([row["median_s"] for row in table], np.float64),
        words("shape_group"),
        words("source"),
        words("backend"),
        kv_dtype,
        lost,
    )


def drop_suspect(observed: Observations, ideal_s: NDArray[np.float64]) -> tuple[Observations, NDArray[np.float64]]:
    """Leave out whole groups of shapes of which more than a tenth beats the bare roofline: the rest is as suspect."""
    below = observed.measured_s < EFFICIENCY_FLOOR * ideal_s
    suspect = np.zeros(len(observed), bool)
    for group in np.unique(observed.groups[below]):
        own = observed.groups == group
        if np.mean(below[own]) > SUSPECT_SHARE:
            suspect |= own & ~below
    reason = "of a group of shapes that often beats the bare roofline"
    return _drop(observed, suspect, ideal_s, reason), ideal_s[~suspect]


def drop_below_ideal(observed: Observations, ideal_s: NDArray[np.float64]) -> Observations:
    """Leave out points faster than the bare roofline, which no cold cache allows; each is listed."""
    reason = (
        "faster than endpoints can: reduced inside the switch"
        if observed.family in ("collective", "direct_all_reduce")
        else "faster than the bare roofline: operands in a cache, or a mislabelled row"
    )
    return _drop(observed, observed.measured_s < EFFICIENCY_FLOOR * ideal_s, ideal_s, reason)


def drop_off_link(observed: Observations, ideal_s: NDArray[np.float64]) -> tuple[Observations, NDArray[np.float64]]:
    """Leave out the transfers of numbers of devices whose largest message runs at under a fifth of the link.

    There the host's own paths are measured, which differ from host to host of one card; latencies stay.
    """
    off = np.zeros(len(observed), bool)
    for devices in np.unique(observed.columns["num_devices"]):
        own = observed.columns["num_devices"] == devices
        largest = np.flatnonzero(own)[np.argmax(ideal_s[own])]
        if ideal_s[largest] < LEAST_LINK_SHARE * observed.measured_s[largest]:
            off |= own & (ideal_s > LATENCY_S)
    reason = "the paths of that host: under a fifth of the link's rate"
    return _drop(observed, off, ideal_s, reason), ideal_s[~off]


def drop_warm(
    observed: Observations, ideal_s: NDArray[np.float64], num_bytes: NDArray[np.float64], accelerator: Accelerator
) -> tuple[Observations, NDArray[np.float64]]:
    """Leave out every point whose operands fit the cache, of a class that was evidently measured with warm caches.

    Evident where more than 1% of its points beat the bare roofline: of these alone the slow ones would remain. Points
    so small that memory takes next to no time stay: they tell of launches.
    """
    beaten = float(np.mean(observed.measured_s < EFFICIENCY_FLOOR * ideal_s))
    cache_bytes = json.loads(accelerator.to_json()).get("cache_bytes")
    if cache_bytes is None or beaten <= WARM_SHARE:
        return observed, ideal_s
    memory_s = num_bytes / accelerator.memory_bandwidth_bytes_per_s
    resident = (num_bytes < cache_bytes) & (memory_s > LAUNCH_S)
    return _drop(observed, resident, ideal_s, "operands fit the cache, which was not cold"), ideal_s[~resident]


def _sizes(observed: Observations, index: int) -> dict[str, Any]:
    """Return the sizes of one point; of a step the name of its model, not its number."""
    sizes: dict[str, Any] = {name: int(column[index]) for name, column in observed.columns.items()}
    return sizes | ({"model": str(observed.groups[index])} if "model" in sizes else {})


def _drop(observed: Observations, below: NDArray[np.bool_], ideal_s: NDArray[np.float64], reason: str) -> Observations:
    """Leave out the points of a mask, and list them with the reason."""
    listed = [
        LeftOut(
            observed.family,
            {"dtype": observed.dtype, **_sizes(observed, int(i))},
            reason,
            float(observed.measured_s[i]),
            float(ideal_s[i]),
        )
        for i in np.flatnonzero(below)
    ]
    return replace(observed.take(~below), left_out=[*observed.left_out, *listed])
