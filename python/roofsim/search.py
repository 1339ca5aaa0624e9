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


def searches(method: str, space: _core._Space, kept: object, objectives: Sequence[str]) -> bool:
    """Whether a reduction that keeps ``kept`` rows shall search; refuses a method that is not known."""
    if method not in METHODS:
        raise SpecError("method", repr(method), f"must be one of {', '.join(METHODS)}")
    if method != "auto":
        return method == "search"
    # What is no count is refused by the reduction itself.
    return isinstance(kept, int) and 0 < kept < 1 << 63 and _core._prefers_search(space, kept, list(objectives))
