"""The half of `SweepSpace` that reduces and streams: methods whose memory does not grow with the rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np

from roofsim import _core
from roofsim.arguments import column as column_name
from roofsim.arguments import columns as column_names
from roofsim.arguments import distinct, integer, request, text
from roofsim.batches import BATCH_ROWS, MAX_BATCH_ROWS, RecordBatches
from roofsim.columns import ROW
from roofsim.errors import SpecError
from roofsim.parquet import ROW_GROUP_ROWS, ParquetParts, write_parts
from roofsim.reductions import Counts, Groups, Histogram, QuantileSketch, keyed, share_list
from roofsim.search import SearchReport, searches_groups

if TYPE_CHECKING:
    from collections.abc import Sequence
    from os import PathLike

    from numpy.typing import ArrayLike, NDArray

    from roofsim.arguments import Progress, Rows
    from roofsim.sweep import SweepSpace

__all__ = ["STREAM_COLUMNS", "ReducingSpace"]

STREAM_COLUMNS = (ROW, "time_s", "bound", "tokens_per_s_per_gpu", "fits", "status")
"""Columns of a stream when none are asked for; `space[row]` gives the configuration."""

MAX_BINS = 1 << 20


class ReducingSpace:
    """Reductions and streams of a space; see `SweepSpace`.

    Every method takes ``where`` (conditions that must all hold), ``rows`` (a range of row numbers; results of parts
    join with ``merge``), ``progress(done, total)`` and ``num_threads``. Results do not depend on threads or parts.
    """

    _space: _core._Space

    @property
    def _whole(self) -> SweepSpace:
        """The same object under the name of the only class that has this half."""
        return cast("SweepSpace", self)

    def best_per_group(
        self,
        group_by: Sequence[str] | str,
        *,
        by: str,
        k: int = 1,
        where: Sequence[str] | str = (),
        rows: Rows | None = None,
        method: str = "auto",
        progress: Progress | None = None,
        num_threads: int | None = None,
    ) -> Groups:
        """Return the ``k`` best rows by a column of every group among those that pass every filter.

        Parameters
        ----------
        group_by
            Columns that make the groups: axes, names (``bound``), ``fits`` or ``num_devices``.
        by
            The column that ranks; it knows which direction is better. Ties go to the lower row.
        k
            Most rows of a group.
        method
            As in `SweepSpace.top_k`.

        Raises
        ------
        SpecError
            For an unknown column, one that makes no groups, more than 2^20 groups, or ``method="search"`` with
            ``rows``.

        Examples
        --------
        >>> import roofsim as rs
        >>> space = rs.SweepSpace("llama-3.1-8b", ["h100-sxm", "l40s"], batch_size=range(1, 65))
        >>> best = space.best_per_group("accelerator", by="tokens_per_s_per_gpu", where="fits")
        >>> {name: space[rows[0][1]]["batch_size"] for name, rows in best.items()}
        {'h100-sxm': 64, 'l40s': 49}
        """
        columns = column_names("group_by", group_by)
        most = integer("k", k, 1, (1 << 64) - 1)
        column, asked = column_name("by", by), request(where, rows, num_threads, progress)
        if rows is not None:
            report = SearchReport.of_part(method, asked[1])
        else:
            search, reason = searches_groups(method, self._space, most, column, columns)
            if search:
                found, counts = _core._search_best_per_group(
                    self._space, most, column, columns, asked[0], asked[2], asked[3]
                )
                report = SearchReport.of_search(counts, reason)
            else:
                report = SearchReport.of_scan(self._whole.num_configurations, reason)
        if report.method == "scan":
            found = _core._best_per_group(self._space, most, column, columns, asked)
        report = report.without(self._space, [column], asked[1])
        return Groups(self._whole, column, tuple(columns), most, found, report)

    def counts(
        self,
        by: Sequence[str] | str = (),
        *,
        where: Sequence[str] | str = (),
        rows: Rows | None = None,
        progress: Progress | None = None,
        num_threads: int | None = None,
    ) -> Counts:
        """Count the rows that pass every filter by the values of columns.

        Rows that no engine would run count too, unless a filter asks for a result: they have a ``status``, and their
        results count as ``None``. Columns and errors are those of `best_per_group`.

        Examples
        --------
        >>> import roofsim as rs
        >>> space = rs.SweepSpace("llama-3.1-8b", "h100-sxm", tensor_parallel_size=[1, 3], batch_size=range(1, 11))
        >>> dict(space.counts("status"))
        {'ok': 10, 'heads_not_divisible': 10}
        """
        columns = column_names("by", by)
        found = _core._counts(self._space, columns, request(where, rows, num_threads, progress))
        return Counts(self._whole, tuple(columns), keyed(columns, found))

    def histogram(
        self,
        column: str,
        bins: int | ArrayLike = 10,
        *,
        range: tuple[float, float] | None = None,
        log: bool = False,
        where: Sequence[str] | str = (),
        rows: Rows | None = None,
        progress: Progress | None = None,
        num_threads: int | None = None,
    ) -> Histogram:
        """Count the rows that pass every filter by where a numeric column's value lies.

        Parameters
        ----------
        bins
            Rising edges, or the number of bins between the ends of ``range``, equally wide or, with ``log``, in ratio.
        range
            Lowest and highest edge; without it the least and largest value that pass (which takes four more scans).
            Around one value everywhere that is too large for half a unit to count, one bin between the next floats.

        Raises
        ------
        SpecError
            For a column of names, edges that do not rise, or a range that cannot be divided.
        """
        name = column_name("column", column)
        asked = request(where, rows, num_threads, progress)
        if np.ndim(bins) == 0:
            count = integer("bins", bins, 1, MAX_BINS)
            if range is None:
                ends = _core._quantiles(self._space, name, [0.0, 1.0], asked)
                nothing = (1.0, 10.0) if log else (0.0, 1.0)
                low, high = nothing if ends[0] is None or ends[1] is None else (ends[0], ends[1])
                if low == high:
                    low, high, count = _around(low, count, log)
            else:
                low, high = _ends(range)
            edges = _edges(low, high, count, log)
        else:
            edges = _given(bins)
        return Histogram(self._whole, name, edges, _core._histogram(self._space, name, edges.tolist(), asked))

    def quantiles(
        self,
        column: str,
        q: ArrayLike = (0.0, 0.25, 0.5, 0.75, 1.0),
        *,
        where: Sequence[str] | str = (),
        rows: Rows | None = None,
        progress: Progress | None = None,
        num_threads: int | None = None,
    ) -> NDArray[np.float64]:
        """Return exact quantiles of a numeric column over the rows that pass every filter.

        Each is the value of a row, the smallest whose share of rows is at least ``q`` (NumPy's ``inverted_cdf``);
        NaN where no row passes. Four scans, however many quantiles; see `quantile_sketch` for one.

        Raises
        ------
        SpecError
            For a column of names, or a ``q`` outside of 0 to 1.
        """
        shares = share_list(q)
        name = column_name("column", column)
        found = _core._quantiles(self._space, name, shares, request(where, rows, num_threads, progress))
        return np.asarray([np.nan if value is None else value for value in found], dtype=np.float64)

    def quantile_sketch(
        self,
        column: str,
        *,
        where: Sequence[str] | str = (),
        rows: Rows | None = None,
        progress: Progress | None = None,
        num_threads: int | None = None,
    ) -> QuantileSketch:
        """Return a sketch of a numeric column: any quantile within 0.024%, from one scan, joined with ``merge``.

        Raises
        ------
        SpecError
            For a column of names.
        """
        name = column_name("column", column)
        cells, null = _core._sketch(self._space, name, request(where, rows, num_threads, progress))
        return QuantileSketch(name, cells, null)

    def record_batches(
        self,
        columns: Sequence[str] | str = STREAM_COLUMNS,
        *,
        where: Sequence[str] | str = (),
        rows: Rows | None = None,
        batch_rows: int = BATCH_ROWS,
        progress: Progress | None = None,
        num_threads: int | None = None,
    ) -> RecordBatches:
        """Stream the rows that pass every filter, at most ``batch_rows`` at a time, in the order of the space.

        Iterate for `Columns`, or hand the result to polars, DuckDB or pyarrow. ``row`` among the columns is the number
        of the row. ``progress`` counts within one batch.

        Raises
        ------
        SpecError
            For an unknown column or filter, before any work.
        """
        names = distinct("columns", columns)
        if not names:
            raise SpecError("columns", "[]", "must name at least one column")
        most = integer("batch_rows", batch_rows, 1, MAX_BATCH_ROWS)
        return RecordBatches(self._space, names, most, request(where, rows, num_threads, progress))

    def write_parquet(
        self,
        path: str | PathLike[str],
        columns: Sequence[str] | str = STREAM_COLUMNS,
        *,
        where: Sequence[str] | str = (),
        rows: Rows | None = None,
        row_group_rows: int = ROW_GROUP_ROWS,
        compression: str = "zstd",
        progress: Progress | None = None,
        num_threads: int | None = None,
    ) -> ParquetParts:
        """Write the rows that pass every filter into a directory of Parquet files, in memory for a few row groups.

        A file appears when it is whole. What an interrupted run has written stays readable, and the same call goes
        on behind it; the result is that of one run. A directory of another space, other columns or filters is refused.

        Parameters
        ----------
        path
            The directory: ``pandas.read_parquet``, ``polars.read_parquet`` and ``pyarrow.dataset`` read it whole.
        row_group_rows
            Rows of a row group.
        compression
            What pyarrow knows: ``zstd``, ``snappy``, ``lz4``, ``gzip``, ``brotli`` or ``none``.

        Raises
        ------
        SpecError
            The directory holds something else (with the difference), or cannot be written.
        UnsupportedError
            pyarrow is not installed (``pip install 'roofsim[arrow]'``).
        KeyboardInterrupt
            On Ctrl-C, within a tenth of a second plus what writing the last row group takes; what is done is kept.
        """
        names = distinct("columns", columns)
        if not names:
            raise SpecError("columns", "[]", "must name at least one column")
        group = integer("row_group_rows", row_group_rows, 1, MAX_BATCH_ROWS)
        asked = request(where, rows, num_threads, progress)
        return write_parts(self._whole, path, names, asked, group, text("compression", compression))


def _around(value: float, count: int, log: bool) -> tuple[float, float, int]:
    """Edges around one value: NumPy's choice, half a unit to both sides; in ratio, a factor of two.

    Where that is less than the bins are apart in floats (from 2^53 on), one bin between the next floats.
    """
    low, high = (value / 2, value * 2) if log else (value - 0.5, value + 0.5)
    if np.isfinite([low, high]).all() and (np.diff(np.linspace(low, high, count + 1)) > 0).all():
        return low, high, count
    return float(np.nextafter(value, -np.inf)), float(np.nextafter(value, np.inf)), 1


def _ends(range_: Any) -> tuple[float, float]:
    try:
        low, high = (float(end) for end in range_)
    except (TypeError, ValueError):
        raise SpecError("range", repr(range_), "must be two numbers, the lowest and the highest edge") from None
    for place, end in enumerate((low, high)):
        if not np.isfinite(end):
            raise SpecError(f"range[{place}]", repr(end), "must be a finite number")
    if low >= high:
        raise SpecError("range", repr((low, high)), "the highest edge must be above the lowest")
    return low, high


def _edges(low: float, high: float, count: int, log: bool) -> NDArray[np.float64]:
    if log and low <= 0:
        raise SpecError("range", repr((low, high)), "edges in ratio (log=True) need a lowest edge above 0")
    with np.errstate(over="ignore", invalid="ignore"):
        edges = (np.geomspace if log else np.linspace)(low, high, count + 1)
        if not np.isfinite(edges).all():
            raise SpecError("range", repr((low, high)), "is too wide: the distance of its ends is no finite number")
    if not (np.diff(edges) > 0).all():
        raise SpecError("range", repr((low, high)), f"is too narrow for {count} bins: edges would be equal")
    return edges


def _given(bins: Any) -> NDArray[np.float64]:
    """Edges as the caller gave them; that there are enough and that they rise is checked by the core."""
    try:
        edges = np.asarray(bins, dtype=np.float64)
    except (TypeError, ValueError):
        raise SpecError("bins", repr(bins), "must be a number of bins or rising edges") from None
    if edges.ndim != 1:
        raise SpecError("bins", repr(bins), f"edges must be a flat sequence, not one of {edges.ndim} dimensions")
    return edges
