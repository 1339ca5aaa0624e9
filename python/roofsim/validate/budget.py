"""The seconds that a run may take: which points still fit, and which were left out for want of time."""

from __future__ import annotations

import time
from collections import Counter, deque
from typing import TYPE_CHECKING

from .points import class_of

if TYPE_CHECKING:
    from .points import Point

__all__ = ["QUICK_SECONDS", "Budget"]

QUICK_SECONDS = 60.0
"""What a quick run takes at most, interpreter start included."""
REMEMBERED = 4
"""A point is taken to last as long as the longest of so many before it in its class."""


class Budget:
    """Says of each point whether it can still be measured in time.

    Parameters
    ----------
    deadline
        `time.monotonic()` at which the last point must have ended; None for no limit.

    Examples
    --------
    >>> from roofsim.validate import Point
    >>> budget = Budget(time.monotonic() + 10.0)
    >>> long, short = Point("step", {"dtype": "bf16"}), Point("gemm", {"dtype": "bf16"})
    >>> budget.took(long, 11.0)
    >>> budget.allows(long), budget.allows(short), dict(budget.left_out)
    (False, True, {'step.bf16': 1})
    """

    def __init__(self, deadline: float | None) -> None:
        self.deadline = deadline
        self.left_out: Counter[str] = Counter()
        self._took: dict[str, deque[float]] = {}

    @property
    def spent(self) -> bool:
        """Whether no time is left at all."""
        return self.deadline is not None and time.monotonic() >= self.deadline

    def allows(self, point: Point) -> bool:
        """Whether the point can be expected to end in time; one that cannot is counted in `left_out`."""
        if self.deadline is None:
            return True
        expected = max(self._took.get(class_of(point), (0.0,)))
        if not self.spent and time.monotonic() + expected <= self.deadline:
            return True
        self.left_out[class_of(point)] += 1
        return False

    def took(self, point: Point, seconds: float) -> None:
        """Remember how long a point took."""
        self._took.setdefault(class_of(point), deque(maxlen=REMEMBERED)).append(seconds)
