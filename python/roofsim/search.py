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

ASKED = "asked for"
"""The reason of a method that was named."""

_MOST = (1 << 63) - 1


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
        Deployments compiled by a search; 0 in a scan.
    reason : str
        Why this method; reports that differ in it alone are equal.
    num_unranked : int
        Rows without a value in a column that ranks, because nobody gave a price or measured the power: filters aside,
        rows that no engine would run among them.
    without_price, without_power : tuple of str
        Accelerators whose rows those are: nobody gave a price, or a calibration has no measured power.
    """

    method: Literal["scan", "search"]
    num_configurations: int
    num_evaluated: int
    num_bounded: int = 0
    num_compiled: int = 0
    reason: str = dataclasses.field(default="", compare=False)
    num_unranked: int = 0
    without_price: tuple[str, ...] = ()
    without_power: tuple[str, ...] = ()

    @property
    def unranked(self) -> str:
        """Why rows could not be ranked, accelerator by accelerator; empty where every row could."""
        why = [f"no price is known of {', '.join(self.without_price)}"] if self.without_price else []
        why += [f"a calibration of {', '.join(self.without_power)} has no measured power"] if self.without_power else []
        return "; ".join(why)

    @classmethod
    def of_scan(cls, num_configurations: int, reason: str = "") -> SearchReport:
        """Return the report of a scan: every row is evaluated."""
        return cls("scan", num_configurations, num_configurations, reason=reason)

    @classmethod
    def of_search(cls, counts: tuple[int, int, int, int], reason: str = "") -> SearchReport:
        """Return the report of a search from the counts of the core."""
        return cls("search", *counts, reason=reason)

    @classmethod
    def of_part(cls, method: object, rows: tuple[int, int] | None) -> SearchReport:
        """Return the report of a scan of a range of rows; a search of one is refused."""
        if _known(method) == "search":
            raise SpecError("method", "'search'", "must be scan or auto where rows are given: a part is scanned")
        start, stop = rows or (0, 0)
        return cls.of_scan(max(0, stop - start), "a range of rows is scanned")

    @classmethod
    def joined(cls, reports: Sequence[SearchReport]) -> SearchReport:
        """Return the report of parts that were joined: counts add up."""
        counted = ("num_configurations", "num_evaluated", "num_bounded", "num_compiled", "num_unranked")
        counts = {name: sum(getattr(report, name) for report in reports) for name in counted}
        method: Literal["scan", "search"] = "search" if any(r.method == "search" for r in reports) else "scan"
        reason = "; ".join(dict.fromkeys(report.reason for report in reports if report.reason))
        price = {name for report in reports for name in report.without_price}
        power = {name for report in reports for name in report.without_power}
        return cls(
            method, **counts, reason=reason, without_price=tuple(sorted(price)), without_power=tuple(sorted(power))
        )

    def without(self, space: _core._Space, columns: Sequence[str], rows: tuple[int, int] | None) -> SearchReport:
        """Return the report with the rows of a space, or of a range, that these columns cannot rank."""
        count, priceless, powerless = _core._unranked(space, list(columns), rows)
        return dataclasses.replace(
            self, num_unranked=count, without_price=tuple(priceless), without_power=tuple(powerless)
        )


def _known(method: object) -> str:
    """Return a method that is known."""
    if method not in METHODS:
        raise SpecError("method", repr(method), f"must be one of {', '.join(METHODS)}")
    return str(method)


def searches(method: object, space: _core._Space, kept: int, objectives: Sequence[str]) -> tuple[bool, str]:
    """Whether a reduction that keeps ``kept`` rows shall search, and why; refuses a method that is not known."""
    if _known(method) != "auto":
        return method == "search", ASKED
    return _core._prefers_search(space, min(kept, _MOST), list(objectives))


def searches_groups(method: object, space: _core._Space, k: int, by: str, group_by: Sequence[str]) -> tuple[bool, str]:
    """Whether the ``k`` best rows of every group shall be searched, and why; refuses a method that is not known."""
    if _known(method) != "auto":
        return method == "search", ASKED
    return _core._prefers_group_search(space, min(k, _MOST), by, group_by)
