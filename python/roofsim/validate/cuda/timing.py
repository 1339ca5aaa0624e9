"""Cold-cache timing: a CUDA graph of launches over distinct operands, replayed between events."""

from __future__ import annotations

import contextlib
import math
import statistics
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .nvml import Nvml

__all__ = ["Call", "Stopwatch"]

Call = Callable[[], object]

TARGET_SECONDS = 250e-6  # of one replay: long against the events, short against the run's budget
MAX_LAUNCHES = 48
COLD_FACTOR = 2.5  # bytes touched between two uses of an operand, in L2 sizes
LONG_SECONDS = 2e-3
WAIT_CYCLES = 100_000  # about 50 us: the host enqueues the replays while the device waits


class Stopwatch:
    """Times kernels on one stream.

    Each call of a sequence works on its own operands and runs once a replay. Where the operands of a whole replay do
    not exceed the L2 by a factor, the L2 is swept by a read between replays, outside the timed interval.

    Parameters
    ----------
    torch
        The torch module.
    nvml
        Clock and power readings.
    l2_bytes
        Size of the L2 cache.
    """

    def __init__(self, torch: Any, nvml: Nvml, l2_bytes: int) -> None:
        self.torch = torch
        self.nvml = nvml
        self.l2_bytes = l2_bytes
        self.stream = torch.cuda.Stream()
        self.sweep = torch.randn(int(COLD_FACTOR * l2_bytes) // 4, dtype=torch.float32, device="cuda")
        self.replay_overhead_s = 0.0
        with contextlib.suppress(Exception):
            self.replay_overhead_s = self._replay_overhead()

    def launches(self, estimate_s: float, bytes_per_call: float) -> int:
        """Return how many distinct operand sets a replay takes: enough to dwarf the events, and cold where possible."""
        count = math.ceil(TARGET_SECONDS / max(estimate_s, 2e-6))
        cold = math.ceil(COLD_FACTOR * self.l2_bytes / max(bytes_per_call, 1.0))
        if count == 1 and cold > 1:
            return 2 if estimate_s < LONG_SECONDS else 1
        return max(1 if cold <= 1 and count == 1 else 2, min(MAX_LAUNCHES, count))

    def once(self, call: Call) -> float:
        """Run a call eagerly, twice, and return the seconds of the second run (launch latency included)."""
        torch = self.torch
        with torch.cuda.stream(self.stream):
            call()
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            call()
            end.record()
        end.synchronize()
        return float(start.elapsed_time(end)) * 1e-3

    def capture(self, calls: Sequence[Call]) -> Any:
        """Return a CUDA graph of the calls, in order, on one stream."""
        torch = self.torch
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.stream(self.stream):
            graph.capture_begin(capture_error_mode="thread_local")
            try:
                kept = [call() for call in calls]
            finally:
                graph.capture_end()
        del kept
        return graph

    def samples(self, graph: Any, repeats: int, *, flush: bool) -> tuple[list[float], float | None, float | None]:
        """Replay a captured graph; return seconds a replay, SM clock and power read while it ran."""
        torch = self.torch
        pairs = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(repeats)]
        with torch.cuda.stream(self.stream):
            torch.cuda._sleep(WAIT_CYCLES)
            graph.replay()
            for start, end in pairs:
                if flush:
                    self.sweep.sum()
                start.record()
                graph.replay()
                end.record()
        clock, power = self.nvml.clock_mhz(), self.nvml.power_w()
        self.stream.synchronize()
        return [float(start.elapsed_time(end)) * 1e-3 for start, end in pairs], clock, power

    def measure(self, calls: Sequence[Call], bytes_per_call: float, *, repeats: int = 7) -> dict[str, Any]:
        """Time calls on distinct operands with cold caches.

        Parameters
        ----------
        calls
            The same operation on distinct operands; each was or will be run eagerly once before the capture.
        bytes_per_call
            Bytes of one call's operands, which decides whether the L2 needs a sweep between replays.
        repeats
            Replays that are timed; at least 5.

        Returns
        -------
        dict
            `median_s`, `p10_s`, `p90_s` of one call, `repeats`, `rotations` (distinct operand sets), `swept` (the L2
            was swept between replays), `sm_clock_mhz`, `power_w`.
        """
        torch = self.torch
        with torch.cuda.stream(self.stream):
            calls[0]()
        flush = len(calls) * bytes_per_call < COLD_FACTOR * self.l2_bytes
        graph = self.capture(calls)
        try:
            samples, clock, power = self.samples(graph, repeats, flush=flush)
        finally:
            graph.reset()
        overhead = self.replay_overhead_s
        each = sorted(max(sample - overhead, 0.5 * sample) / len(calls) for sample in samples)
        return {
            "median_s": statistics.median(each),
            "p10_s": each[round(0.1 * (len(each) - 1))],
            "p90_s": each[round(0.9 * (len(each) - 1))],
            "repeats": len(each),
            "rotations": len(calls),
            "swept": flush,
            "sm_clock_mhz": clock,
            "power_w": power,
        }

    def slope(self, call: Call, counts: tuple[int, int] = (1, 33), repeats: int = 21) -> tuple[float, float]:
        """Return (intercept, slope) in seconds of a replay over the number of launches of `call` in its graph."""
        medians = []
        with self.torch.cuda.stream(self.stream):
            call()
        for count in counts:
            graph = self.capture([call] * count)
            samples, _, _ = self.samples(graph, repeats, flush=True)
            graph.reset()
            medians.append(statistics.median(samples))
        step = (medians[1] - medians[0]) / (counts[1] - counts[0])
        return medians[0] - counts[0] * step, step

    def _replay_overhead(self) -> float:
        """Return the seconds between the events of a replay that its launches do not explain."""
        tiny = self.torch.zeros(32, device="cuda")
        intercept, _ = self.slope(lambda: tiny.add_(1.0))
        return min(max(intercept, 0.0), 12e-6)
