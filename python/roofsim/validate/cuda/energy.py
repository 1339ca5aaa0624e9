"""Power and energy of a steady load and of the idle device, from the driver's energy counter.

The counter moves in ticks of up to a tenth of a second, so that readings are taken where it has just moved.
"""

from __future__ import annotations

import math
import statistics
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .bench import Bench
    from .nvml import Nvml

__all__ = ["idle_power_w", "steady_load"]

WARM_SECONDS = 0.25
LOAD_SECONDS = 0.75
TICK_SECONDS = 0.12  # the longest wait for the counter to move
IDLE_SECONDS = 0.4
MAX_REPLAYS = 600


def _tick(nvml: Nvml) -> tuple[float, float] | None:
    """Return (seconds, joules) at the moment at which the energy counter moves; None without a counter."""
    first = nvml.energy_j()
    if first is None:
        return None
    began = time.perf_counter()
    while (now := time.perf_counter()) - began < TICK_SECONDS:
        joules = nvml.energy_j()
        if joules is not None and joules != first:
            return now, joules
        time.sleep(0.0005)
    return now, first


def _power(before: tuple[float, float] | None, after: tuple[float, float] | None) -> float | None:
    if before is None or after is None or after[0] <= before[0]:
        return None
    return (after[1] - before[1]) / (after[0] - before[0])


def steady_load(bench: Bench, graph: Any, estimate_s: float) -> dict[str, Any]:
    """Replay a graph without pause for about a second.

    Parameters
    ----------
    bench
        The device in hand.
    graph
        The captured step.
    estimate_s
        Seconds of a replay, in a burst.

    Returns
    -------
    dict
        `sustained_s` (median seconds a replay once warm), `power_w` (mean of the steady part), `energy_j` (joules a
        replay), `sustained_sm_clock_mhz`, `temperature_c`, `throttle_reasons`.
    """
    torch, stream, nvml = bench.torch, bench.stopwatch.stream, bench.nvml
    warm = max(1, min(MAX_REPLAYS, math.ceil(WARM_SECONDS / estimate_s)))
    count = max(3, min(MAX_REPLAYS, math.ceil(LOAD_SECONDS / estimate_s)))
    events = [torch.cuda.Event(enable_timing=True) for _ in range(count + 1)]
    with torch.cuda.stream(stream):
        for _ in range(warm):
            graph.replay()
        events[0].record()
        for event in events[1:]:
            graph.replay()
            event.record()
    events[0].synchronize()
    began = time.perf_counter()
    before = _tick(nvml)
    clocks: list[float] = []
    while time.perf_counter() - began < count * estimate_s - 1.5 * TICK_SECONDS:
        clocks.append(nvml.clock_mhz() or 0.0)
        time.sleep(0.01)
    after = _tick(nvml)
    state = {"temperature_c": nvml.temperature_c(), "throttle_reasons": nvml.throttle_reasons()}
    events[-1].synchronize()
    samples = [float(a.elapsed_time(b)) * 1e-3 for a, b in zip(events[:-1], events[1:], strict=True)]
    sustained, power = statistics.median(samples), _power(before, after)
    return {
        "sustained_s": sustained,
        "power_w": power,
        "energy_j": None if power is None else power * sustained,
        "sustained_sm_clock_mhz": statistics.median(clocks) if clocks else None,
        **state,
    }


def idle_power_w(bench: Bench) -> float | None:
    """Return the mean power of the idle device with its memory held, measured once a run and then remembered."""
    if "idle_power_w" not in bench.constants:
        bench.torch.cuda.synchronize()
        time.sleep(0.3)
        before = _tick(bench.nvml)
        time.sleep(IDLE_SECONDS)
        bench.constants["idle_power_w"] = _power(before, _tick(bench.nvml))
    return bench.constants["idle_power_w"]
