"""Columns of a sweep: NumPy arrays with nulls, and an Arrow stream of the same memory."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from roofsim import _core
from roofsim.errors import SpecError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

__all__ = ["ROW", "Columns", "memory", "row_numbers"]

ROW = "row"
"""The column that holds the number of a row, wherever columns are asked for by name."""

MAY_BE_UNKNOWN = frozenset({"usd_per_mtok", "energy_j"})
"""Columns that are null, too, where nobody knows the price or the power of a device."""

ARROW_BATCH_ROWS = 1 << 20
"""Rows of one record batch of a stream; batches are slices of the same memory."""

DTYPES: dict[str, type[np.generic]] = {"float": np.float64, "count": np.uint64, "flag": np.bool_, "code": np.uint32}
"""What a kind of column is in NumPy."""

LINE_BYTES = 64
"""A cache line: the core stores whole ones, past the caches."""


def memory(rows: int, kinds: Iterable[str]) -> tuple[list[NDArray[Any]], NDArray[np.bool_]]:
    """Return fresh memory for columns of these kinds and for the null flags, from where a cache line begins.

    NumPy allocates: it asks the system for huge pages, which the first write to fresh memory needs to be fast.
    """

    def array(dtype: type[np.generic]) -> NDArray[Any]:
        size = rows * np.dtype(dtype).itemsize
        raw = np.empty(size + LINE_BYTES, dtype=np.uint8)
        start = -raw.ctypes.data % LINE_BYTES
        return raw[start : start + size].view(dtype)

    return [array(DTYPES[kind]) for kind in kinds], array(np.bool_)


def row_numbers(first: int, rows: int) -> NDArray[np.uint64]:
    """Return the numbers of neighbouring rows from a first one on."""
    numbers = np.arange(rows, dtype=np.uint64)
    numbers += np.uint64(first)
    return numbers


class Columns(Mapping[str, "np.ma.MaskedArray[Any, Any]"]):
    """The result of a sweep: one masked array per column, rows in the order of the space.

    A row that no engine would run is masked in every result column; its axes and its ``status`` stand. Below a mask
    ``.data`` holds NaN in a column of floats, 0 in one of counts, false in one of flags and the empty name in
    ``bound``. Numbers are shared with the core without a copy; names (``bound``, ``status``, models) become
    fixed-width strings when asked for.

    polars, pandas, DuckDB and pyarrow take it as it is (the Arrow PyCapsule interface): masked is null, names are
    dictionaries.

    Examples
    --------
    >>> import roofsim as rs
    >>> columns = rs.SweepSpace("llama-3.1-8b", "h100-sxm", batch_size=[1, 64]).run(["time_s", "fits"])
    >>> columns["fits"].tolist(), columns.num_rows
    ([True, True], 2)
    """

    def __init__(
        self,
        columns: list[tuple[str, NDArray[Any], list[str] | None, bool]],
        null: NDArray[np.bool_],
        rows: NDArray[np.uint64] | int = 0,
    ) -> None:
        self._null = null
        self._rows = rows
        self._exported = False
        self._columns = {name: self._named(array, names, nullable) for name, array, names, nullable in columns}

    def _named(
        self, array: NDArray[Any], names: list[str] | None, nullable: bool
    ) -> tuple[NDArray[Any], list[str] | None, bool]:
        if names is not None and nullable and self._any_null:
            # A null row has no name: not the first one, which its code would stand for.
            array[self._null] = len(names)
            names = [*names, ""]
        return array, names, nullable

    def _memory(self, rows: int, names: list[str]) -> tuple[list[NDArray[Any]], NDArray[np.bool_]]:
        """Arrays to write a result of so many rows and these columns into."""
        if self.num_rows != rows or list(self) != names or ROW in names:
            rule = f"must hold {rows} rows of the columns {', '.join(names)}, in this order"
            raise SpecError("out", repr(self), rule)
        if self._exported:
            raise SpecError("out", repr(self), "must not be in use as an Arrow stream, whose readers rely on it")
        arrays = [array for array, _, _ in self._columns.values()]
        if not all(array.flags.writeable and array.flags.c_contiguous for array in [*arrays, self._null]):
            raise SpecError("out", repr(self), "must hold arrays that can be written to")
        return arrays, self._null

    def _become(self, other: Columns) -> Columns:
        """Take over another result, which was written into this one's memory."""
        self._null, self._rows, self._columns = other._null, other._rows, other._columns
        self.__dict__.pop("_any_null", None)
        return self

    def __getitem__(self, name: str) -> np.ma.MaskedArray[Any, Any]:
        if name not in self._columns:
            raise KeyError(name)
        array, names, _ = self._columns[name]
        values = array if names is None else np.asarray(names, dtype=np.str_)[array]
        return np.ma.MaskedArray(values, mask=self._mask(name), copy=False)

    def _mask(self, name: str) -> Any:
        array, _, nullable = self._columns[name]
        if name in MAY_BE_UNKNOWN:
            return np.isnan(array)
        return self._null if nullable and self._any_null else np.ma.nomask

    @functools.cached_property
    def _any_null(self) -> bool:
        return bool(self._null.any())

    def codes(self, name: str) -> tuple[NDArray[np.uint32], list[str]]:
        """Return a categorical column as codes and the names they stand for, without making strings.

        Raises
        ------
        SpecError
            The column holds numbers, or there is none of this name.
        """
        if name not in self._columns:
            raise SpecError("column", name, f"is not among the columns {', '.join(self._columns)}")
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
        """Rows of the result."""
        return len(self._null)

    @property
    def rows(self) -> NDArray[np.uint64]:
        """The number in the space of each row of the result."""
        if isinstance(self._rows, int):
            self._rows = row_numbers(self._rows, self.num_rows)
        return self._rows

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        """Export as an Arrow stream without copying numbers; no other schema is offered."""
        self._exported = True
        columns = []
        for name, (array, names, nullable) in self._columns.items():
            mask = self._mask(name)
            null = None if mask is np.ma.nomask else mask
            if names is not None and null is not None:
                # In Arrow a null needs no name of its own.
                array, names = np.where(null, 0, array).astype(np.uint32), names[:-1]
            columns.append((name, array, names, null, nullable))
        return _core._columns_stream(columns, ARROW_BATCH_ROWS)

    def __repr__(self) -> str:
        return f"Columns({self.num_rows} rows: {', '.join(self)})"
