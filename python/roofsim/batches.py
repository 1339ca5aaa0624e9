"""Rows of a sweep batch by batch: memory for one batch, whatever the size of the space."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from roofsim import _core
from roofsim.columns import ROW, Columns, row_numbers

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from roofsim.arguments import Request

__all__ = ["BATCH_ROWS", "MAX_BATCH_ROWS", "RecordBatches", "named_columns"]

BATCH_ROWS = 1 << 20
MAX_BATCH_ROWS = 1 << 28


def named_columns(
    names: Sequence[str],
    kinds: Sequence[tuple[str, str, bool]],
    codes: dict[str, list[str]],
    found: tuple[NDArray[np.uint64] | int, NDArray[np.bool_], list[NDArray[Any]]],
) -> Columns:
    """Put arrays of the core under their names, the row number among them where asked for."""
    rows, null, arrays = found
    if isinstance(rows, int) and ROW in names:
        rows = row_numbers(rows, len(null))
    columns: list[tuple[str, NDArray[Any], list[str] | None, bool]] = []
    place = iter(zip(arrays, kinds, strict=True))
    for name in names:
        if name == ROW:
            columns.append((ROW, np.asarray(rows), None, False))
        else:
            array, (known, kind, nullable) = next(place)
            columns.append((known, array, codes[known] if kind == "code" else None, nullable))
    return Columns(columns, null, rows)


class RecordBatches:
    """The rows of a sweep that pass, in batches: evaluated when they are asked for.

    Iterate over it for `Columns`, or hand it to polars, DuckDB or pyarrow as an Arrow stream; each time it starts
    anew. An Arrow reader looks up for Ctrl-C when it wants to; iteration does within a tenth of a second.

    Examples
    --------
    >>> import roofsim as rs
    >>> space = rs.SweepSpace("llama-3.1-8b", "h100-sxm", batch_size=range(1, 257), context_tokens=[1024, 8192])
    >>> sum(batch.num_rows for batch in space.record_batches(["time_s"], where="fits", batch_rows=100))
    311
    """

    def __init__(self, space: _core._Space, names: Sequence[str], batch_rows: int, request: Request) -> None:
        self._space = space
        self._names = list(names)
        self._own = [name for name in names if name != ROW]
        self._kinds = space.kinds(self._own)
        self._batch_rows = batch_rows
        self._request = request
        _core._Batches(space, self._own, batch_rows, self._quiet)  # refuses what is wrong now, not later

    @property
    def _quiet(self) -> Request:
        where, rows, threads, _ = self._request
        return where, rows, threads, None

    def open(self) -> tuple[_core._Batches, Any]:
        """Return the compiled batches and what turns one of them into `Columns`."""
        codes = {name: self._space.names(name) for name, kind, _ in self._kinds if kind == "code"}
        batches = _core._Batches(self._space, self._own, self._batch_rows, self._quiet)
        return batches, lambda found: named_columns(self._names, self._kinds, codes, found)

    def __iter__(self) -> Iterator[Columns]:
        """Yield one `Columns` per batch."""
        batches, columns = self.open()
        while (found := batches.next(self._request[3])) is not None:
            yield columns(found)

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        """Export as an Arrow stream that evaluates batch by batch; no other schema is offered."""
        return _core._batches_stream(self._space, self._names, self._batch_rows, self._quiet)

    def __repr__(self) -> str:
        return f"RecordBatches({', '.join(self._names)}; at most {self._batch_rows} rows each)"
