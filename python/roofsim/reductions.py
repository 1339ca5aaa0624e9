"""What reductions of a sweep return: each small however many rows it saw, and joined with `merge`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from roofsim import _core
from roofsim.errors import SpecError
from roofsim.search import SearchReport

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from roofsim.sweep import SweepSpace

__all__ = ["Counts", "Groups", "Histogram", "QuantileSketch", "same_space"]

Key = Any
"""Values of the grouping columns: a tuple, or the value itself where there is one column."""

_T = TypeVar("_T")


def same_space(name: str, one: SweepSpace, others: Sequence[SweepSpace]) -> None:
    """Refuse to join results whose rows are numbered differently, naming what differs.

    Raises
    ------
    SpecError
        One of the spaces is another one.
    """
    for other in others:
        if other is not one and other != one:
            raise SpecError(name, "another space", f"results of one space join: {one.differences(other)}")


def _same(name: str, what: str, one: object, others: Sequence[object]) -> None:
    for other in others:
        if other != one:
            raise SpecError(name, repr(other), f"results of the same {what} join, here {one!r}")


def keyed(columns: Sequence[str], rows: list[tuple[tuple[Any, ...], _T]]) -> dict[Key, _T]:
    """Make a mapping of groups; a single column needs no tuples."""
    return {key[0] if len(columns) == 1 else key: value for key, value in rows}


class Groups(Mapping[Key, "list[tuple[float, int]]"]):
    """The best rows of every group: a mapping from the group's values to its (value, row) pairs, best first.

    Keys are in the order of the columns' values, tuples where several columns make the groups. Ties go to the lower
    row. Groups without a passing row are absent.

    Attributes
    ----------
    by : str
        The column that ranks.
    group_by : tuple of str
        The columns that make the groups.
    k : int
        Most rows of a group.
    num_unranked : int
        Rows that could not be ranked for want of a price or a measured power.
    report : SearchReport
        What finding them took.
    """

    def __init__(
        self,
        space: SweepSpace,
        by: str,
        group_by: tuple[str, ...],
        k: int,
        found: tuple[list[tuple[Any, ...]], NDArray[np.uint64], tuple[NDArray[np.float64], Any]],
        report: SearchReport,
    ) -> None:
        self._space = space
        self.by = by
        self.group_by = group_by
        self.k = k
        self.report = report
        keys, self._ends, (self._values, self._numbers) = found
        # Rows stay in arrays: a million lists would take longer to make than the sweep.
        self._places: dict[Key, int] = keyed(group_by, [(key, place) for place, key in enumerate(keys)])

    def _slice(self, key: Key) -> tuple[NDArray[np.float64], Any]:
        """Values and numbers of the rows of a group."""
        place = self._places[key]
        start, end = int(self._ends[place - 1]) if place else 0, int(self._ends[place])
        return self._values[start:end], self._numbers[start:end]

    def __getitem__(self, key: Key) -> list[tuple[float, int]]:
        values, numbers = self._slice(key)
        rows = numbers if isinstance(numbers, list) else numbers.tolist()
        return list(zip(values.tolist(), rows, strict=True))

    def __iter__(self) -> Iterator[Key]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    @property
    def num_unranked(self) -> int:
        """Rows that could not be ranked for want of a price or a measured power; ``report.unranked`` says which."""
        return self.report.num_unranked

    def to_dicts(self) -> list[dict[str, Any]]:
        """Return each row's configuration with its value and the group's, group by group."""
        found = []
        for key, rows in self.items():
            values = (key,) if len(self.group_by) == 1 else key
            group = dict(zip(self.group_by, values, strict=True))
            found += [{**self._space[row], **group, self.by: value} for value, row in rows]
        return found

    def merge(self, *others: Groups) -> Groups:
        """Join the groups of parts of one space that were reduced apart.

        Raises
        ------
        SpecError
            The others are of another space, column or grouping.
        """
        same_space("groups", self._space, [other._space for other in others])
        _same("groups", "column and grouping", (self.by, self.group_by), [(o.by, o.group_by) for o in others])
        everything = [self, *others]
        k = min(one.k for one in everything)
        keys = _ordered(self._space, self.group_by, (key for one in everything for key in one))
        joined = [
            _core._join_top_k(k, self.by, [one._slice(key) for one in everything if key in one._places]) for key in keys
        ]
        values = np.concatenate([found for found, _ in joined]) if joined else np.empty(0)
        ends = np.cumsum([len(found) for found, _ in joined], dtype=np.uint64)
        large = any(isinstance(rows, list) for _, rows in joined)
        numbers: Any = [int(row) for _, rows in joined for row in rows] if large else None
        if numbers is None:
            numbers = np.concatenate([rows for _, rows in joined]) if joined else np.empty(0, dtype=np.uint64)
        report = SearchReport.joined([one.report for one in everything])
        tuples = [key if len(self.group_by) != 1 else (key,) for key in keys]
        return Groups(self._space, self.by, self.group_by, k, (tuples, ends, (values, numbers)), report)

    def __repr__(self) -> str:
        return f"Groups({len(self)} by {', '.join(self.group_by)}: the best {self.k} by {self.by})"


class Counts(Mapping[Key, int]):
    """Rows that pass, by the values of columns: a mapping from values to the number of rows.

    Keys are as in `Groups`; ``None`` stands for null, the value of a result where no engine would run the row.
    Without columns there is one key, the empty tuple.

    Attributes
    ----------
    by : tuple of str
        The columns.
    """

    def __init__(self, space: SweepSpace, by: tuple[str, ...], counts: dict[Key, int]) -> None:
        self._space = space
        self.by = by
        self._counts = counts

    def __getitem__(self, key: Key) -> int:
        return self._counts[key]

    def __iter__(self) -> Iterator[Key]:
        return iter(self._counts)

    def __len__(self) -> int:
        return len(self._counts)

    @property
    def total(self) -> int:
        """All rows that pass."""
        return sum(self._counts.values())

    def to_dicts(self) -> list[dict[str, Any]]:
        """Return one row per key: the values by column, and ``count``."""
        rows = []
        for key, count in self._counts.items():
            values = (key,) if len(self.by) == 1 else key
            rows.append({**dict(zip(self.by, values, strict=True)), "count": count})
        return rows

    def merge(self, *others: Counts) -> Counts:
        """Join the counts of parts of one space that were reduced apart.

        Raises
        ------
        SpecError
            The others are of another space or other columns.
        """
        same_space("counts", self._space, [other._space for other in others])
        _same("counts", "columns", self.by, [other.by for other in others])
        everything = [self, *others]
        keys = _ordered(self._space, self.by, (key for one in everything for key in one))
        counts = {key: sum(one.get(key, 0) for one in everything) for key in keys}
        return Counts(self._space, self.by, counts)

    def __repr__(self) -> str:
        return f"Counts({self._counts})"


def _ordered(space: SweepSpace, columns: Sequence[str], keys: Iterable[Key]) -> list[Key]:
    """Sort keys as the core does: values rise, names as coded, null last."""
    kinds = {name: kind for name, kind, _ in space._space.kinds(list(columns))}
    codes = {name: _first_codes(space._space.names(name)) for name, kind in kinds.items() if kind == "code"}

    def place(key: Key) -> tuple[tuple[bool, float], ...]:
        values = zip(columns, key if isinstance(key, tuple) else (key,), strict=True)
        return tuple((x is None, 0.0 if x is None else codes[name][x] if name in codes else x) for name, x in values)

    return sorted(set(keys), key=place)


def _first_codes(names: Sequence[str]) -> dict[str, int]:
    return {name: code for code, name in reversed(list(enumerate(names)))}


class Histogram:
    """Rows per bin. A bin holds its lower edge and not its upper one; the last bin holds both, as in NumPy.

    Attributes
    ----------
    column : str
        The column.
    edges : ndarray of shape (bins + 1,)
        Rising edges, in the column's unit.
    counts : ndarray of shape (bins,)
        Rows of each bin.
    below, above : int
        Rows outside of the edges.
    null : int
        Rows that pass and have no value.
    """

    def __init__(
        self, space: SweepSpace, column: str, edges: NDArray[np.float64], found: tuple[Sequence[int], int, int, int]
    ) -> None:
        self._space = space
        self.column = column
        self.edges = edges
        self.counts = np.asarray(found[0], dtype=np.uint64)
        self.below, self.above, self.null = found[1:]

    @property
    def total(self) -> int:
        """All rows that pass and have a value."""
        return int(self.counts.sum()) + self.below + self.above

    def merge(self, *others: Histogram) -> Histogram:
        """Join the histograms of parts of one space that were reduced apart.

        Raises
        ------
        SpecError
            The others are of another space, another column or other edges.
        """
        same_space("histogram", self._space, [other._space for other in others])
        _same("histogram", "column", self.column, [other.column for other in others])
        _same("histogram", "edges", self.edges.tolist(), [other.edges.tolist() for other in others])
        every = [self, *others]
        counts = np.stack([one.counts for one in every]).sum(axis=0).tolist()
        outside = (sum(one.below for one in every), sum(one.above for one in every), sum(one.null for one in every))
        return Histogram(self._space, self.column, self.edges, (counts, *outside))

    def __repr__(self) -> str:
        return f"Histogram({self.column}: {self.total} rows in {len(self.counts)} bins)"


class QuantileSketch:
    """Quantiles of a column from one scan, each within a relative error of 2^-12 (0.024%) of a row's exact value.

    Rows are counted by the leading 23 bits of the value (sign, exponent, 11 bits of the fraction); a quantile is the
    middle of its bin. The bound holds for values of at least 2.3e-308 in size; smaller ones count as they are.

    Attributes
    ----------
    column : str
        The column.
    count : int
        Rows that pass and have a value.
    null : int
        Rows that pass and have none.
    relative_error : float
        The bound, 2^-12.
    """

    relative_error: float = _core._SKETCH_RELATIVE_ERROR

    def __init__(self, column: str, cells: list[tuple[int, int]], null: int) -> None:
        self.column = column
        self._cells = cells
        self.count = sum(rows for _, rows in cells)
        self.null = null

    def quantile(self, q: float) -> float | None:
        """Return the value that a share ``q`` of the rows does not exceed; ``None`` without rows.

        Raises
        ------
        SpecError
            ``q`` is no number between 0 and 1.
        """
        return _core._sketch_quantiles(self._cells, share_list([q]))[0]

    def merge(self, *others: QuantileSketch) -> QuantileSketch:
        """Join the sketches of rows that were seen apart, of one space or of several.

        Raises
        ------
        SpecError
            The others are of another column.
        """
        _same("sketch", "column", self.column, [other.column for other in others])
        cells = _core._join_sketches([self._cells, *(other._cells for other in others)])
        return QuantileSketch(self.column, cells, self.null + sum(other.null for other in others))

    def __repr__(self) -> str:
        return f"QuantileSketch({self.column}: {self.count} rows)"


def share_list(q: Any) -> list[float]:
    """Return shares between 0 and 1 as a list.

    Raises
    ------
    SpecError
        For anything else.
    """
    try:
        shares = [float(share) for share in (q if np.ndim(q) else [q]) if not isinstance(share, (bool, str))]
        whole = len(shares) == np.size(q)
    except (TypeError, ValueError):
        whole = False
    if not whole or not all(0 <= share <= 1 for share in shares):
        raise SpecError("q", repr(q), "must be numbers between 0 and 1")
    return shares
