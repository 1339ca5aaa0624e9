"""Search instead of a scan: when it is taken, and what a reduction of a sweep took."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Literal

from roofsim import _core
from roofsim.errors import SpecError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["METHODS", "SearchReport"]

METHODS = ("auto", "scan", "search")
"""Ways to reduce a space; all give the same rows."""


@dataclasses.dataclass(frozen=True)
class SearchReport:
    """What finding the rows of a reduction took.

    Attributes
    ----------
    method : str
        ``scan`` or ``search``.
    num_configurations : int
        Rows of the space.
    num_evaluated : int
        Rows evaluated one by one; all of them in a scan.
    num_bounded : int
        Boxes of rows that were bounded, each at the cost of at most two rows.
    num_compiled : int
        Deployments compiled by a search, some of them again; 0 in a scan.
    """

    method: Literal["scan", "search"]
    num_configurations: int
    num_evaluated: int
    num_bounded: int = 0
    num_compiled: int = 0

    @classmethod
    def of_scan(cls, num_configurations: int) -> SearchReport:
        """Return the report of a scan: every row is evaluated."""
        return cls("scan", num_configurations, num_configurations)

    @classmethod
    def of_search(cls, counts: tuple[int, int, int, int]) -> SearchReport:
        """Return the report of a search from the counts of the core."""
        return cls("search", *counts)

    @classmethod
    def of_part(cls, method: object, rows: tuple[int, int] | None) -> SearchReport:
        """Return the report of a scan of a range of rows; a search of one is refused."""
        if _known(method) == "search":
            raise SpecError("method", "'search'", "must be scan or auto where rows are given: a part is scanned")
        start, stop = rows or (0, 0)
        return cls.of_scan(max(0, stop - start))

    @classmethod
    def joined(cls, reports: Sequence[SearchReport]) -> SearchReport:
        """Return the report of parts that were joined: counts add up."""
        counts = [dataclasses.astuple(report)[1:] for report in reports]
        method: Literal["scan", "search"] = "search" if any(r.method == "search" for r in reports) else "scan"
        return cls(method, *map(sum, zip(*counts, strict=True)))


def _known(method: object) -> str:
    """Return a method that is known."""
    if method not in METHODS:
        raise SpecError("method", repr(method), f"must be one of {', '.join(METHODS)}")
    return str(method)


def searches(method: object, space: _core._Space, kept: int, objectives: Sequence[str]) -> bool:
    """Whether a reduction that keeps ``kept`` rows shall search; refuses a method that is not known."""
    if _known(method) != "auto":
        return method == "search"
    return kept < 1 << 63 and _core._prefers_search(space, kept, list(objectives))


def searches_groups(method: object, space: _core._Space, k: int, by: str, group_by: Sequence[str]) -> bool:
    """Whether the ``k`` best rows of every group shall be searched; refuses a method that is not known."""
    if _known(method) != "auto":
        return method == "search"
    return k < 1 << 63 and _core._prefers_group_search(space, k, by, group_by)
