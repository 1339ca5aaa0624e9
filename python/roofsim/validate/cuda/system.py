"""The device's constants: launches, transfers, bandwidth, burst and sustained rates, power."""

from __future__ import annotations

import itertools
import statistics
import time
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from ..points import Point
    from .bench import Bench

__all__ = ["measure_system"]

READ_BYTES = 2 << 30
BURST_GAP_SECONDS = 0.05
Row = dict[str, Any]


def _quantiles(samples: Sequence[float]) -> Row:
    ordered = sorted(samples)
    last = len(ordered) - 1
    return {
        "median_s": statistics.median(ordered),
        "p10_s": ordered[round(0.1 * last)],
        "p90_s": ordered[round(0.9 * last)],
        "repeats": len(ordered),
    }


def _tiny(bench: Bench) -> tuple[str, Callable[[], object]]:
    """Return the emptiest kernel there is: an empty Triton kernel, else a one-element addition."""
    try:
        from .triton_elementwise import empty

        empty()
        bench.torch.cuda.synchronize()
    except Exception:  # Triton absent or unable to compile: torch's own smallest kernel
        x = bench.torch.zeros(1, device="cuda")
        return "torch.add_", lambda: x.add_(1.0)
    return "triton.empty", empty


def _launch_eager(bench: Bench, _: Point) -> Iterator[Row]:
    """Host seconds a launch costs in a stream of launches, and launch to completion with a synchronisation."""
    torch = bench.torch
    ones = torch.zeros(1, device="cuda")
    kinds: list[tuple[str, Callable[[], object]]] = [_tiny(bench), ("torch.add_", lambda: ones.add_(1.0))]
    for name, call in dict(kinds).items():
        call()
        torch.cuda.synchronize()
        stream, single = [], []
        for _repeat in range(11):
            start = time.perf_counter()
            for _launch in range(200):
                call()
            stream.append((time.perf_counter() - start) / 200)
            torch.cuda.synchronize()
            start = time.perf_counter()
            call()
            torch.cuda.synchronize()
            single.append(time.perf_counter() - start)
        yield {"backend": name, **_quantiles(stream)}
        yield {"backend": f"{name}+synchronize", **_quantiles(single)}


def _launch_graph(bench: Bench, _: Point) -> Iterator[Row]:
    """Device seconds of one node more in a replayed graph, and the fixed cost of a replay."""
    name, call = _tiny(bench)
    intercept, slope = bench.stopwatch.slope(call, (1, 129), 21)
    yield {"backend": f"{name}:node", **_quantiles([slope])}
    yield {"backend": f"{name}:replay", **_quantiles([max(intercept, 0.0)])}


def _host_copy_ids(bench: Bench, point: Point) -> Iterator[Row]:
    """Copy the sampled ids of a batch to the host and wait for them, into pageable and pinned memory."""
    torch = bench.torch
    ids = torch.randint(0, 100_000, (point.integer("batch_size"),), device="cuda")
    for pinned in (False, True):
        host = torch.empty(ids.shape, dtype=ids.dtype, pin_memory=pinned)
        samples = []
        for repeat in range(33):
            start = time.perf_counter()
            host.copy_(ids, non_blocking=pinned)
            torch.cuda.synchronize()
            if repeat > 2:
                samples.append(time.perf_counter() - start)
        yield {"backend": "pinned" if pinned else "pageable", **_quantiles(samples)}


def _copy(bench: Bench, point: Point) -> Iterator[Row]:
    """Copy device memory; bytes count what is read and what is written."""
    size = point.integer("num_bytes")
    count = bench.stopwatch.launches(bench.estimate_s(0.0, 2.0 * size), 2.0 * size)
    count = min(count, max(1, bench.pool.scratch_block.numel() // size))
    bf16 = bench.torch.bfloat16
    pairs = [(bench.pool.take(bf16, size // 2), bench.pool.scratch(bf16, size // 2)) for _ in range(count)]
    calls = [partial(y.copy_, x) for x, y in pairs]
    yield {"backend": "torch.copy_", "bytes": 2.0 * size, **bench.stopwatch.measure(calls, 2.0 * size)}


def _reader(bench: Bench, size: int) -> tuple[str, Callable[[Any], Any]]:
    """Return a function that reads a float32 tensor once."""
    from .triton_elementwise import read_sum

    programs = bench.sms * (16 if size >= 64 << 20 else 4)
    out = bench.torch.empty(programs, dtype=bench.torch.float32, device="cuda")
    return "triton.read_sum", lambda x: read_sum(x, out)


def _floats(bench: Bench, size: int) -> Any:
    """Return float32 data of `size` bytes: the random bf16 block, read as pairs (finite or not, time is the same)."""
    torch = bench.torch
    return bench.pool.take(torch.bfloat16, size // 2).view(torch.float32)


def _read(bench: Bench, point: Point) -> Iterator[Row]:
    """Read device memory once, with a reduction."""
    size = point.integer("num_bytes")
    count = bench.stopwatch.launches(bench.estimate_s(0.0, size), size)
    arrays = [_floats(bench, size) for _ in range(count)]
    name, read = _reader(bench, size)
    kernels = {name: read, "torch.sum": lambda x: x.sum()}
    for backend, kernel in kernels.items():
        try:
            timing = bench.stopwatch.measure([partial(kernel, x) for x in arrays], size)
            yield {"backend": backend, "bytes": float(size), **timing}
        except Exception as error:  # one reader failing leaves the other
            bench.release()
            yield {"backend": backend, "error": f"{type(error).__name__}: {error}"[:240]}


def _workload(bench: Bench, point: Point) -> tuple[str, list[Callable[[], object]], Row]:
    """Return the steady work of a burst or sustained point: a GEMM, or reads of memory."""
    if point.text("op").startswith("gemm"):
        from .gemm import GEMM_KERNELS, _operands, gemm_call

        dtype, (m, n, k) = point.text("dtype"), (point.integer(name) for name in "mnk")
        sets = [_operands(bench, dtype, m, n, k) for _ in range(2)]
        kernel = gemm_call(bench, dtype)
        return GEMM_KERNELS[dtype], [partial(kernel, *s) for s in sets], {"flops": 2.0 * m * n * k}
    name, read = _reader(bench, READ_BYTES)
    arrays = [_floats(bench, READ_BYTES) for _ in range(2)]
    return name, [partial(read, x) for x in arrays], {"bytes": float(READ_BYTES)}


def _timed(bench: Bench, calls: Sequence[Callable[[], object]], count: int) -> list[float]:
    """Run `count` calls back to back; return the device seconds of each."""
    torch = bench.torch
    events = [torch.cuda.Event(enable_timing=True) for _ in range(count + 1)]
    with torch.cuda.stream(bench.stopwatch.stream):
        torch.cuda._sleep(200_000)
        events[0].record()
        for i in range(count):
            calls[i % len(calls)]()
            events[i + 1].record()
    events[-1].synchronize()
    return [a.elapsed_time(b) * 1e-3 for a, b in itertools.pairwise(events)]


def _burst(bench: Bench, point: Point) -> Iterator[Row]:
    """Short bursts with pauses between them: the clock has not come down yet."""
    name, calls, work = _workload(bench, point)
    _timed(bench, calls, 2)
    samples, clocks = [], []
    for _ in range(12):
        time.sleep(BURST_GAP_SECONDS)
        samples += _timed(bench, calls, 6)[1:]
        clocks.append(bench.nvml.clock_mhz() or 0.0)
    readings = {"sm_clock_mhz": statistics.median(clocks) or None, "power_w": None}
    yield {"backend": name, **work, **_quantiles(samples), **readings}


def _sustained(bench: Bench, point: Point) -> Iterator[Row]:
    """Steady load; the second half is recorded, with its mean power from the energy counter."""
    name, calls, work = _workload(bench, point)
    seconds = point.integer("milliseconds") * 1e-3
    each = statistics.median(_timed(bench, calls, 4))
    chunk = max(4, round(0.05 / each))
    samples: list[float] = []
    clocks: list[float] = []
    began = time.perf_counter()
    half: tuple[float, float | None] | None = None
    while (now := time.perf_counter()) - began < 2 * seconds:
        if half is None and now - began >= seconds:
            half = (now, bench.nvml.energy_j())
            samples, clocks = [], []
        samples += _timed(bench, calls, chunk)[1:]
        clocks.append(bench.nvml.clock_mhz() or 0.0)
    end, energy = time.perf_counter(), bench.nvml.energy_j()
    power = bench.nvml.power_w()
    mean = None
    if half is not None and half[1] is not None and energy is not None:
        mean = (energy - half[1]) / (end - half[0])
    readings = {"sm_clock_mhz": statistics.median(clocks) or None, "power_w": mean or power, "power_reading_w": power}
    # joules of one call, from the counter alone: the reading above is an average over the past second
    work["energy_j"] = None if mean is None else mean * statistics.median(samples)
    state = {"temperature_c": bench.nvml.temperature_c(), "throttle_reasons": bench.nvml.throttle_reasons()}
    yield {"backend": name, **work, **_quantiles(samples), **readings, **state}


def _power_idle(bench: Bench, point: Point) -> Iterator[Row]:
    """Mean power of the idle device, its context and memory held, from the energy counter."""
    bench.torch.cuda.synchronize()
    time.sleep(0.3)
    seconds = point.integer("milliseconds") * 1e-3
    before, start = bench.nvml.energy_j(), time.perf_counter()
    time.sleep(seconds)
    after, end = bench.nvml.energy_j(), time.perf_counter()
    reading = bench.nvml.power_w()
    mean = None if before is None or after is None else (after - before) / (end - start)
    power = {"power_w": mean or reading, "power_reading_w": reading, "sm_clock_mhz": bench.nvml.clock_mhz()}
    power["energy_j"] = None if before is None or after is None else after - before
    yield {"backend": "nvml", **_quantiles([end - start]), **power}


def measure_system(bench: Bench, point: Point) -> Iterator[Mapping[str, Any]]:
    """Measure one constant of the device."""
    makers: dict[str, Callable[[Bench, Point], Iterator[Row]]] = {
        "launch_eager": _launch_eager,
        "launch_graph": _launch_graph,
        "host_copy_ids": _host_copy_ids,
        "copy": _copy,
        "read": _read,
        "gemm_burst": _burst,
        "read_burst": _burst,
        "gemm_sustained": _sustained,
        "read_sustained": _sustained,
        "power_idle": _power_idle,
    }
    op = point.text("op")
    if op not in makers:
        raise ValueError(f"op = {op!r}: must be among {sorted(makers)}")
    yield from makers[op](bench, point)
