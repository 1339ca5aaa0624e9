"""Power and energy of a steady load and of the idle device, from the driver's energy counter.

The counter moves in ticks of up to a tenth of a second, so that readings are taken where it has just moved.
"""

from __future__ import annotations

import itertools
import math
import statistics
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .bench import Bench
    from .nvml import Nvml

__all__ = ["idle_power_w", "steady_load"]

WARM_SECONDS = 0.2
LOAD_SECONDS = 0.6
AHEAD = 12  # replays that wait on the device while the host watches the counter
POLL_SECONDS = 0.0005
TICK_SECONDS = 0.12  # the longest wait for the counter to move
IDLE_SECONDS = 0.4
MAX_REPLAYS = 2000


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
        time.sleep(POLL_SECONDS)
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
    warm = max(2, min(MAX_REPLAYS, math.ceil(WARM_SECONDS / estimate_s)))
    count = warm + max(4, min(MAX_REPLAYS, math.ceil(LOAD_SECONDS / estimate_s)))
    events = [torch.cuda.Event(enable_timing=True) for _ in range(count)]
    ticks: list[tuple[float, float]] = []  # (seconds, joules) whenever the counter moved, once warm
    clocks: list[float] = []
    last: float | None = None
    state: dict[str, Any] = {}
    for index in range(count + AHEAD):
        if index < count:
            with torch.cuda.stream(stream):
                graph.replay()
                events[index].record()
        if index < AHEAD:
            continue
        while True:
            joules = nvml.energy_j()
            if joules is not None and last is not None and joules != last and index - AHEAD > warm:
                ticks.append((time.perf_counter(), joules))
                clocks.append(nvml.clock_mhz() or 0.0)
            last = joules
            if events[index - AHEAD].query():
                break
            time.sleep(POLL_SECONDS)
        if index == count - 1:
            state = {"temperature_c": nvml.temperature_c(), "throttle_reasons": nvml.throttle_reasons()}
    samples = [float(a.elapsed_time(b)) * 1e-3 for a, b in itertools.pairwise(events[warm:])]
    sustained = statistics.median(samples)
    power = _power(ticks[0], ticks[-1]) if len(ticks) > 1 else None
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
    power: float | None = bench.constants["idle_power_w"]
    return power
