"""Sweeps: every combination of axes, as columns or reduced on the way."""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from roofsim import _core
from roofsim.arguments import column as column_name
from roofsim.arguments import columns as column_names
from roofsim.arguments import distinct, integer, request
from roofsim.batches import named_columns
from roofsim.columns import ROW, Columns, memory
from roofsim.errors import CountOverflowError, SpecError
from roofsim.identity import calibration_source, describe, differences
from roofsim.prices import choose_kind, device_prices
from roofsim.reducing import ReducingSpace
from roofsim.reductions import same_space
from roofsim.search import SearchReport, searches

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from roofsim.arguments import Rows

__all__ = ["Columns", "Front", "SweepSpace", "TopK"]

_core._look_up_numpy()

DEFAULT_COLUMNS = ("time_s", "bound", "tokens_per_s_per_gpu", "fits", "status")
MAX_BYTES = 4 << 30
"""Largest result that `SweepSpace.run` returns without being asked for more."""

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


class _Rows:
    """Selected rows of a space, in order."""

    report: SearchReport

    def __init__(self, space: SweepSpace, rows: NDArray[np.uint64] | list[int]) -> None:
        self._space = space
        self._numbers = rows

    @functools.cached_property
    def indices(self) -> list[int]:
        """The rows."""
        return self._numbers if isinstance(self._numbers, list) else self._numbers.tolist()

    @property
    def num_unranked(self) -> int:
        """Rows that could not be ranked for want of a price or a measured power; ``report.unranked`` says which."""
        return self.report.num_unranked

    def configurations(self) -> list[dict[str, Any]]:
        """Return the configuration of each row, axis by axis."""
        return [self._space[index] for index in self.indices]

    def _row_array(self) -> NDArray[Any]:
        numbers = self._numbers
        return np.asarray(numbers, dtype=object) if isinstance(numbers, list) else numbers

    def __len__(self) -> int:
        return len(self._numbers)


class TopK(_Rows):
    """The best rows by one column, best first.

    Attributes
    ----------
    by : str
        The column.
    k : int
        Most rows that were asked for.
    values : list of float
        Its values.
    indices : list of int
        The rows.
    num_unranked : int
        Rows that could not be ranked for want of a price or a measured power.
    report : SearchReport
        What finding them took.
    """

    def __init__(
        self, space: SweepSpace, by: str, k: int, found: tuple[NDArray[np.float64], Any], report: SearchReport
    ) -> None:
        super().__init__(space, found[1])
        self.by = by
        self.k = k
        self.report = report
        self._values = found[0]

    @functools.cached_property
    def values(self) -> list[float]:
        """The values of the column."""
        values: list[float] = self._values.tolist()
        return values

    def to_numpy(self) -> tuple[NDArray[np.float64], NDArray[Any]]:
        """Return the values and the rows as arrays without a copy: of float64, and of uint64 (of int from 2^64 on)."""
        return self._values, self._row_array()

    def to_dicts(self) -> list[dict[str, Any]]:
        """Return each row's configuration with its value."""
        return [{**c, self.by: v} for c, v in zip(self.configurations(), self.values, strict=True)]

    def merge(self, *others: TopK) -> TopK:
        """Return the best rows of parts of one space that were searched apart (``rows=``).

        Raises
        ------
        SpecError
            The others are of another space, or by another column.
        """
        same_space("top_k", self._space, [other._space for other in others])
        if different := [other.by for other in others if other.by != self.by]:
            raise SpecError("by", different[0], f"results by the same column join, here {self.by}")
        every = [self, *others]
        k = min(one.k for one in every)
        report = SearchReport.joined([one.report for one in every])
        parts = [(one._values, one._numbers) for one in every]
        return TopK(self._space, self.by, k, _core._join_top_k(k, self.by, parts), report)

    def __repr__(self) -> str:
        best = f", best {self._values[0]:.6g}" if len(self) else ""
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
    num_unranked : int
        Rows that could not be ranked for want of a price or a measured power.
    report : SearchReport
        What finding them took.
    """

    def __init__(
        self,
        space: SweepSpace,
        objectives: tuple[str, ...],
        found: tuple[NDArray[np.float64], Any],
        report: SearchReport,
    ) -> None:
        super().__init__(space, found[1])
        self.objectives = objectives
        self.report = report
        self.values = found[0].reshape(len(self), len(objectives))

    def to_numpy(self) -> tuple[NDArray[np.float64], NDArray[Any]]:
        """Return the values and the rows as arrays without a copy: of float64, and of uint64 (of int from 2^64 on)."""
        return self.values, self._row_array()

    def to_dicts(self) -> list[dict[str, Any]]:
        """Return each row's configuration with its objectives."""
        pairs = zip(self.configurations(), self.values, strict=True)
        return [{**c, **dict(zip(self.objectives, map(float, v), strict=True))} for c, v in pairs]

    def merge(self, *others: Front) -> Front:
        """Return the front of parts of one space that were searched apart (``rows=``).

        Raises
        ------
        SpecError
            The others are of another space, or over other objectives.
        """
        same_space("pareto", self._space, [other._space for other in others])
        if different := [other.objectives for other in others if other.objectives != self.objectives]:
            raise SpecError("objectives", different[0], f"fronts over the same objectives join, here {self.objectives}")
        every = [self, *others]
        parts = [(np.ascontiguousarray(one.values).ravel(), one._numbers) for one in every]
        report = SearchReport.joined([one.report for one in every])
        return Front(self._space, self.objectives, _core._join_pareto(list(self.objectives), parts), report)

    def __repr__(self) -> str:
        return f"Front({len(self)} rows over {', '.join(self.objectives)})"


class SweepSpace(ReducingSpace):
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
        US dollars per device-hour by accelerator name; others take their typical price of one kind, if it is known.
    price_kind
        ``on-demand``, ``reserved``, ``cost-of-ownership``, or ``auto``: the one known for most of the devices, of
        several the first. `SweepSpace.price_kind` says which.

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
        self,
        models: Any,
        accelerators: Any,
        *,
        prices: Mapping[str, float] | None = None,
        price_kind: str = "auto",
        **axes: Any,
    ) -> None:
        for name in axes:
            if name not in _AXES:
                raise SpecError(name, repr(axes[name]), f"is no axis; the axes are {', '.join(_AXES)}")
        given = {**_AXES, **axes, "models": models, "accelerators": accelerators}
        # Whatever a path or a name stands for is read now: a pickled space needs no files.
        given["models"] = [_core.Model.load(model) for model in _several("models", given["models"], _core.Model)]
        devices = _several("accelerators", given["accelerators"], _core.Accelerator)
        given["accelerators"] = devices = [_core.Accelerator.load(device) for device in devices]
        calibrations = given["calibration"]
        several = isinstance(calibrations, (list, tuple))
        loaded = [calibration_source(one) for one in (calibrations if several else [calibrations])]
        given["calibration"] = loaded if several else loaded[0]
        self._price_kind = choose_kind(devices, prices, price_kind)
        given["usd_per_hour"] = [price for price, _ in device_prices(devices, prices, self._price_kind)]
        self._axes = given
        self._space = _core._Space(given)

    @classmethod
    def _of(cls, axes: dict[str, Any], price_kind: str) -> SweepSpace:
        space = cls.__new__(cls)
        space._axes = axes
        space._price_kind = price_kind
        space._space = _core._Space(axes)
        return space

    def __reduce__(self) -> tuple[Any, ...]:
        return SweepSpace._of, (self._axes, self._price_kind)

    @property
    def price_kind(self) -> str:
        """Kind of the prices that the caller did not give: ``on-demand``, ``reserved`` or ``cost-of-ownership``."""
        return self._price_kind

    @property
    def notes(self) -> list[str]:
        """What sets the accelerators apart beside themselves: kernels of different libraries, in one sentence."""
        note = self._space.mixed_libraries()
        return [] if note is None else [note]

    def description(self) -> dict[str, str]:
        """Write every axis down, models and devices with a hash of their contents: equal texts are equal rows."""
        return describe(self._axes)

    def differences(self, other: SweepSpace) -> str:
        """Name the axes in which another space differs; empty where it is the same."""
        return differences(self.description(), other.description())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SweepSpace) and self.description() == other.description()

    def __hash__(self) -> int:
        return hash(tuple(self.description().values()))

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
        if position >> 128:
            raise CountOverflowError("index", index, "rows are numbered below 2^128")
        return self._space.configuration(position)

    def run(
        self,
        columns: Sequence[str] | str = DEFAULT_COLUMNS,
        *,
        where: Sequence[str] | str = (),
        rows: Rows | None = None,
        max_bytes: int = MAX_BYTES,
        out: Columns | None = None,
        progress: Callable[[int, int], object] | None = None,
        num_threads: int | None = None,
    ) -> Columns:
        """Evaluate rows into columns: all of them, or those that pass every filter.

        Parameters
        ----------
        columns
            Names of results and axes; `roofsim.sweep.COLUMNS` lists them with units. ``row`` is the number of the row,
            which the result has as `Columns.rows` anyway.
        where
            Conditions that must all hold, as in `top_k`. A row that no engine would run passes conditions on axes and
            ``status``, and none on results.
        rows
            A range of row numbers; all rows by default.
        max_bytes
            Refuse results larger than this. A filtered result is refused when its rows pass the limit.
        out
            An earlier result of as many rows and the same columns, whose memory is overwritten and returned: the system
            takes longer to hand out fresh memory than the sweep takes to fill it. Of whole spaces only.
        progress
            Called with (rows done, rows in all) from the calling thread; what it raises stops the sweep.
        num_threads
            Threads; ``ROOFSIM_NUM_THREADS`` or all CPUs by default. Results do not depend on it.

        Raises
        ------
        SpecError
            For an unknown column, a result above ``max_bytes`` (with its size and the streaming alternatives), or an
            ``out`` of other rows or columns.
        KeyboardInterrupt
            On Ctrl-C, within a tenth of a second.
        """
        names = distinct("columns", columns)
        limit = integer("max_bytes", max_bytes, 0, (1 << 127) - 1)
        asked = request(where, rows, num_threads, progress)
        own = [name for name in names if name != ROW]
        kinds = self._space.kinds(own)
        codes = {name: self._space.names(name) for name, kind, _ in kinds if kind == "code"}
        if asked[0] or rows is not None:
            if out is not None:
                raise SpecError("out", repr(out), "holds whole spaces: give neither where nor rows")
            if not names:
                raise SpecError("columns", "[]", "must name at least one column")
            return named_columns(names, kinds, codes, _core._select(self._space, own, limit, asked))
        # The status alone costs nothing where only the numbers of the rows are asked for.
        count, _ = self._space.layout(own or ["status"] * len(names), limit)
        if out is None:
            arrays, null = memory(count, [kind for _, kind, _ in kinds])
        elif isinstance(out, Columns):
            arrays, null = out._memory(count, names)
        else:
            raise SpecError("out", repr(out), "must be the Columns of an earlier run")
        if own:
            self._space.run(own, arrays, null, asked[2], asked[3])
        else:
            null[:] = False
        found = named_columns(names, kinds, codes, (0, null, arrays))
        return found if out is None else out._become(found)

    def top_k(
        self,
        k: int,
        *,
        by: str,
        where: Sequence[str] | str = (),
        rows: Rows | None = None,
        method: str = "auto",
        progress: Callable[[int, int], object] | None = None,
        num_threads: int | None = None,
    ) -> TopK:
        """Return the ``k`` best rows by a column among those that pass every filter.

        Each column knows which direction is better. Ties go to the lower row. Filters are ``column``, ``not column`` or
        ``column OP value``, for example ``time_s <= 0.03``, ``fits``, ``bound == memory``. ``rows`` is a range of row
        numbers: results of parts join with `TopK.merge`.

        ``method`` is ``scan`` (every row is evaluated), ``search`` (rows that provably do not matter are left out) or
        ``auto``: whichever should be faster. The rows are the same; the result's ``report`` says what they took and
        why. Parts of a space (``rows``) are scanned. Rows whose value is unknown for want of a price or of a measured
        power do not rank: ``num_unranked`` counts them.
        """
        most = integer("k", k, 1, (1 << 64) - 1)
        column, asked = column_name("by", by), request(where, rows, num_threads, progress)
        if rows is not None:
            found, report = _core._top_k(self._space, most, column, asked), SearchReport.of_part(method, asked[1])
        else:
            search, reason = searches(method, self._space, most, [column])
            if search:
                found, counts = _core._search_top_k(self._space, most, column, asked[0], asked[2], asked[3])
                report = SearchReport.of_search(counts, reason)
            else:
                found = self._space.top_k(most, column, asked[0], asked[2], asked[3])
                report = SearchReport.of_scan(self.num_configurations, reason)
        return TopK(self, column, most, found, report.without(self._space, [column], asked[1]))

    def pareto(
        self,
        objectives: Sequence[str],
        *,
        where: Sequence[str] | str = (),
        rows: Rows | None = None,
        method: str = "auto",
        progress: Callable[[int, int], object] | None = None,
        num_threads: int | None = None,
    ) -> Front:
        """Return the rows that no other row beats in every objective (two to four columns), among those that pass.

        Of rows that are equal in every objective the lowest stays. ``rows`` is a range of row numbers: fronts of parts
        join with `Front.merge`. ``method`` is as in `top_k`.
        """
        names = column_names("objectives", objectives)
        asked = request(where, rows, num_threads, progress)
        if rows is not None:
            found, report = _core._pareto(self._space, names, asked), SearchReport.of_part(method, asked[1])
        else:
            search, reason = searches(method, self._space, 1, names)
            if search:
                found, counts = _core._search_pareto(self._space, names, asked[0], asked[2], asked[3])
                report = SearchReport.of_search(counts, reason)
            else:
                found = self._space.pareto(names, asked[0], asked[2], asked[3])
                report = SearchReport.of_scan(self.num_configurations, reason)
        return Front(self, tuple(names), found, report.without(self._space, names, asked[1]))

    def __repr__(self) -> str:
        return f"SweepSpace({self.num_configurations} configurations)"


COLUMNS: dict[str, tuple[str, str]] = {name: (direction, doc) for name, direction, doc in _core.COLUMNS}
"""Every column: which direction is better (names: none) and what it means, with its unit."""


def _several(field: str, value: Any, single: type) -> list[Any]:
    """Return one value or several as a list."""
    if isinstance(value, (str, Mapping, os.PathLike, single)):
        return [value]
    try:
        return list(value)
    except TypeError:
        raise SpecError(field, repr(value), "must be one or a sequence of what can be loaded") from None
