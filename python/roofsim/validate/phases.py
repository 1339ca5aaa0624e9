"""Where the seconds of a run go: named phases from the start of the command on."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

__all__ = ["BEGAN", "Phases", "process_began"]

BEGAN = "ROOFSIM_VALIDATE_BEGAN"
"""Environment variable: when the command that this process measures for was started, seconds of the epoch."""


def process_began() -> float:
    """Return when this process was started, seconds of the epoch; now, where the system does not tell."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        # Field 22 of proc_pid_stat(5): clock ticks from the boot; the name before it may hold spaces.
        ticks = float(Path("/proc/self/stat").read_text(encoding="ascii").rpartition(")")[2].split()[19])
        uptime = float(Path("/proc/uptime").read_text(encoding="ascii").split()[0])
        return time.time() - max(0.0, uptime - ticks / os.sysconf("SC_CLK_TCK"))
    return time.time()


class Phases:
    """Seconds by phase, in the order in which they came; each ends where the next one begins.

    Parameters
    ----------
    began
        When the first phase began, seconds of the epoch; the start of this process or of the command before it when
        absent.

    Examples
    --------
    >>> import time
    >>> phases = Phases(time.time() - 2.0)
    >>> phases.end("start")
    >>> round(phases.seconds["start"])
    2
    """

    def __init__(self, began: float | None = None) -> None:
        if began is None:
            began = float(os.environ[BEGAN]) if BEGAN in os.environ else process_began()
        self.began = self._last = began
        self.seconds: dict[str, float] = {}

    def end(self, name: str) -> None:
        """End the phase that runs; equal names add up."""
        now = time.time()
        self.seconds[name] = self.seconds.get(name, 0.0) + now - self._last
        self._last = now
