"""Sweeps: every combination of axes, as columns or reduced on the way."""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from roofsim import _core
from roofsim.errors import CountOverflowError, RoofsimError, SpecError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

__all__ = ["Columns", "Front", "SweepSpace", "TopK"]

DEFAULT_COLUMNS = ("time_s", "bound", "tokens_per_s_per_gpu", "fits", "status")
MAX_BYTES = 4 << 30
"""Largest result that `SweepSpace.run` returns without being asked for more."""

_DTYPES = {"float": np.float64, "count": np.uint64, "flag": np.bool_, "code": np.uint32}

_AXES: dict[str, Any] = {
    "models": None,
    "accelerators": None,
    "tensor_parallel_size": 1,
    "pipeline_parallel_size": 1,
    "data_parallel_size": 1,
    "expert_parallel_size": 1,
    "weight_dtype": "auto",
    "kv_cache_dtype": "auto",
    "calibration": None,
    "engine": "ideal",
    "capacity_mode": "ideal",
    "gpu_memory_utilization": 0.9,
    "block_size": 16,
    "max_num_batched_tokens": 8192,
    "max_num_seqs": 1024,
    "batch_size": 1,
    "context_tokens": 4096,
    "query_tokens": 1,
}
"""All axes in row order with their values when none are given."""


def num_threads(asked: int | None = None) -> int:
    """Threads of a sweep: the argument, else ``ROOFSIM_NUM_THREADS``, else the CPUs this process may use."""
    if asked is None:
        text = os.environ.get("ROOFSIM_NUM_THREADS", "")
        if not text:
            return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        if not text.isascii() or not text.isdigit() or int(text) < 1:
            raise SpecError("ROOFSIM_NUM_THREADS", text, "must be a whole number of at least 1")
        return min(int(text), 1024)
    if isinstance(asked, bool) or not isinstance(asked, int) or not 1 <= asked <= 1024:
        raise SpecError("num_threads", repr(asked), "must be a whole number between 1 and 1024")
    return asked


class Columns(Mapping[str, "np.ma.MaskedArray[Any, Any]"]):
    """The result of a sweep: one masked array per column, rows in the order of the space.

    A row that no engine would run is masked in every result column; its axes and its ``status`` stand. Numbers are
    shared with the core without a copy; names (``bound``, ``status``, models) become fixed-width strings when
    asked for.
    """

    def __init__(
        self, columns: list[tuple[str, NDArray[Any], list[str] | None, bool]], null: NDArray[np.bool_]
    ) -> None:
        self._columns = {name: (array, names, nullable) for name, array, names, nullable in columns}
        self._null = null

    def __getitem__(self, name: str) -> np.ma.MaskedArray[Any, Any]:
        if name not in self._columns:
            raise KeyError(name)
        array, names, nullable = self._columns[name]
        values = array if names is None else np.asarray(names, dtype=np.str_)[array]
        mask: Any = self._null if nullable and self._any_null else np.ma.nomask
        if name == "usd_per_mtok":
            mask = np.isnan(values)  # an unknown price is null too
        return np.ma.MaskedArray(values, mask=mask, copy=False)

    @functools.cached_property
    def _any_null(self) -> bool:
        return bool(self._null.any())

    def codes(self, name: str) -> tuple[NDArray[np.uint32], list[str]]:
        """Return a categorical column as codes and the names they stand for, without making strings."""
        array, names, _ = self._columns[name]
        if names is None:
            raise SpecError("column", name, "is not categorical: it has no codes")
        return array, list(names)

    def __iter__(self) -> Iterator[str]:
        return iter(self._columns)

    def __len__(self) -> int:
        return len(self._columns)

    @property
    def num_rows(self) -> int:
        """Rows of the space."""
        return len(self._null)

    def __repr__(self) -> str:
        return f"Columns({self.num_rows} rows: {', '.join(self)})"


class _Rows:
    """Selected rows of a space, in order."""

    def __init__(self, space: SweepSpace, indices: list[int]) -> None:
        self.indices = indices
        self._space = space

    def configurations(self) -> list[dict[str, Any]]:
        """Return the configuration of each row, axis by axis."""
        return [self._space[index] for index in self.indices]

    def __len__(self) -> int:
        return len(self.indices)


class TopK(_Rows):
    """The best rows by one column, best first.

    Attributes
    ----------
    by : str
        The column.
    values : list of float
        Its values.
    indices : list of int
        The rows.
    """

    def __init__(self, space: SweepSpace, by: str, rows: list[tuple[float, int]]) -> None:
        super().__init__(space, [row for _, row in rows])
        self.by = by
        self.values = [value for value, _ in rows]

    def to_dicts(self) -> list[dict[str, Any]]:
        """Return each row's configuration with its value."""
        return [{**c, self.by: v} for c, v in zip(self.configurations(), self.values, strict=True)]

    def __repr__(self) -> str:
        best = f", best {self.values[0]:.6g}" if self.values else ""
        return f"TopK({len(self)} rows by {self.by}{best})"


class Front(_Rows):
    """The rows that no other row beats in every objective, in row order.

    Attributes
    ----------
    objectives : tuple of str
        The columns.
    values : ndarray of shape (rows, objectives)
        Their values.
    indices : list of int
        The rows.
    """

    def __init__(self, space: SweepSpace, objectives: tuple[str, ...], rows: list[tuple[list[float], int]]) -> None:
        super().__init__(space, [row for _, row in rows])
        self.objectives = objectives
        self.values = np.asarray([values for values, _ in rows], dtype=np.float64).reshape(len(rows), len(objectives))

    def to_dicts(self) -> list[dict[str, Any]]:
        """Return each row's configuration with its objectives."""
        pairs = zip(self.configurations(), self.values, strict=True)
        return [{**c, **dict(zip(self.objectives, map(float, v), strict=True))} for c, v in pairs]

    def __repr__(self) -> str:
        return f"Front({len(self)} rows over {', '.join(self.objectives)})"


class SweepSpace:
    """A product of axes: every argument is one value or a sequence of values.

    Rows are numbered in the order of the arguments, the last varying fastest.

    Parameters
    ----------
    models, accelerators
        What `Model.load` and `Accelerator.load` read, one or several.
    tensor_parallel_size, pipeline_parallel_size, data_parallel_size, expert_parallel_size
        As in `Deployment`.
    weight_dtype, kv_cache_dtype, calibration, engine
        As in `Deployment`.
    capacity_mode, gpu_memory_utilization, block_size, max_num_batched_tokens, max_num_seqs
        As in `Deployment.capacity`.
    batch_size, context_tokens, query_tokens
        The batch: that many sequences per replica, each adding ``query_tokens`` to a context that counts them. A
        `range` stays a range, whatever its length.
    prices
        US dollars per device-hour by accelerator name; others take their typical on-demand price, if one is known.

    Raises
    ------
    SpecError
        For an unknown axis, an empty axis or a value out of range.

    Examples
    --------
    >>> import roofsim as rs
    >>> space = rs.SweepSpace(models="llama-3.1-8b", accelerators=["h100-sxm", "l40s"], batch_size=[1, 8, 64],
    ...                       context_tokens=range(1024, 8193, 1024))
    >>> space.num_configurations
    48
    >>> best = space.top_k(1, by="tokens_per_s_per_gpu", where=["fits", "time_s <= 0.02"])
    >>> best.to_dicts()[0]["accelerator"]
    'h100-sxm'
    """

    def __init__(
        self, models: Any, accelerators: Any, *, prices: Mapping[str, float] | None = None, **axes: Any
    ) -> None:
        for name in axes:
            if name not in _AXES:
                raise SpecError(name, repr(axes[name]), f"is no axis; the axes are {', '.join(_AXES)}")
        given = {**_AXES, **axes, "models": models, "accelerators": accelerators}
        devices = given["accelerators"]
        if isinstance(devices, (str, Mapping, os.PathLike, _core.Accelerator)):
            devices = [devices]
        devices = [_core.Accelerator.load(device) for device in devices]
        given["accelerators"] = devices
        given["usd_per_hour"] = [price for price, _ in device_prices(devices, prices, "on-demand")]
        self._space = _core._Space(given)

    @property
    def num_configurations(self) -> int:
        """Exact number of rows, whatever its size."""
        return math.prod(self._space.axis_lengths())

    def __len__(self) -> int:
        count = self.num_configurations
        if count > (1 << 63) - 1:
            raise CountOverflowError("len", count, "is beyond the interpreter's limit; use num_configurations")
        return count

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return the configuration of one row; negative indices count from the end."""
        total = self.num_configurations
        position = index + total if index < 0 else index
        if not 0 <= position < total:
            raise IndexError(f"row {index} of a space of {total} rows")
        return self._space.configuration(position)

    def run(
        self,
        columns: Sequence[str] = DEFAULT_COLUMNS,
        *,
        max_bytes: int = MAX_BYTES,
        progress: Callable[[int, int], object] | None = None,
        num_threads: int | None = None,
    ) -> Columns:
        """Evaluate every row into columns.

        Parameters
        ----------
        columns
            Names of results and axes; `roofsim.sweep.COLUMNS` lists them with units.
        max_bytes
            Refuse results larger than this.
        progress
            Called with (rows done, rows in all) from the calling thread; what it raises stops the sweep.
        num_threads
            Threads; ``ROOFSIM_NUM_THREADS`` or all CPUs by default. Results do not depend on it.

        Raises
        ------
        SpecError
            For an unknown column, or a result above ``max_bytes`` (with its size and the streaming alternatives).
        KeyboardInterrupt
            On Ctrl-C, within a tenth of a second.
        """
        names = [columns] if isinstance(columns, str) else list(columns)
        rows, layout = self._space.layout(names, max_bytes)
        # NumPy allocates: it asks the system for huge pages, which the first write to fresh memory needs to be fast.
        arrays: list[NDArray[Any]] = [np.empty(rows, dtype=_DTYPES[kind]) for _, kind, _ in layout]
        null = np.empty(rows, dtype=np.bool_)
        codes = self._space.run(names, arrays, null, _threads(num_threads), progress)
        filled = [
            (name, array, code if kind == "code" else None, nullable)
            for (name, kind, nullable), array, code in zip(layout, arrays, codes, strict=True)
        ]
        return Columns(filled, null)

    def top_k(
        self,
        k: int,
        *,
        by: str,
        where: Sequence[str] | str = (),
        progress: Callable[[int, int], object] | None = None,
        num_threads: int | None = None,
    ) -> TopK:
        """Return the ``k`` best rows by a column among those that pass every filter.

        Each column knows which direction is better. Ties go to the lower row. Filters are ``column``, ``not column`` or
        ``column OP value``, for example ``time_s <= 0.03``, ``fits``, ``bound == memory``.
        """
        rows = self._space.top_k(k, by, _texts(where), _threads(num_threads), progress)
        return TopK(self, by, rows)

    def pareto(
        self,
        objectives: Sequence[str],
        *,
        where: Sequence[str] | str = (),
        progress: Callable[[int, int], object] | None = None,
        num_threads: int | None = None,
    ) -> Front:
        """Return the rows that no other row beats in every objective (two to four columns), among those that pass.

        Of rows that are equal in every objective the lowest stays.
        """
        names = tuple(objectives)
        rows = self._space.pareto(list(names), _texts(where), _threads(num_threads), progress)
        return Front(self, names, rows)

    def __repr__(self) -> str:
        return f"SweepSpace({self.num_configurations} configurations)"


_threads = num_threads

COLUMNS: dict[str, tuple[str, str]] = {name: (direction, doc) for name, direction, doc in _core.COLUMNS}
"""Every column: which direction is better, and what it means with its unit."""


def _texts(where: Sequence[str] | str) -> list[str]:
    return [where] if isinstance(where, str) else list(where)


def _catalogue_name(name: str) -> str:
    """Return the catalogue's name for a name as people type it; the name itself where the catalogue knows none."""
    try:
        return _core.Accelerator.load(name).name
    except RoofsimError:
        return name


def device_prices(
    devices: list[_core.Accelerator], prices: Mapping[str, float] | None, kind: str
) -> list[tuple[float | None, str]]:
    """Price of a device-hour and its kind, one per device: the caller's own price first, else the typical one."""
    known = {device.name for device in devices}
    own: dict[str, float] = {}
    for name, price in (prices or {}).items():
        canonical = name if name in known else _catalogue_name(name)
        own[canonical] = price
        if canonical not in known:
            raise SpecError("prices", name, f"names no accelerator of this call: {', '.join(sorted(known))}")
        if isinstance(price, bool) or not isinstance(price, (int, float)) or not 0 <= price < math.inf:
            raise SpecError(f"prices.{name}", repr(price), "must be a finite number of at least 0")
    found: list[tuple[float | None, str]] = []
    for device in devices:
        if device.name in own:
            found.append((float(own[device.name]), "given"))
        else:
            typical = device.usd_per_hour(kind)
            found.append((typical, kind if typical is not None else "unknown"))
    return found
