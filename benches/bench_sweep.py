"""Configurations per second of the sweep against chunked NumPy with the same formulas, in the same run.

Run with `python benches/bench_sweep.py`; prints a Markdown table. The rival evaluates one deployment's calibrated
decode step: a table of row times per batch (taken from `Deployment.decode`, not counted as its time) plus the
attention law, chunk by chunk, then the filter and the best row. Equal answers are asserted before anything is timed.
"""

from __future__ import annotations

import json
import statistics
import time

import numpy as np

import roofsim as rs

MODEL, DEVICE, TP = "llama-3.1-70b", "h100-sxm", 4
BATCHES, CONTEXTS = range(1, 1025), range(4, 131_073, 4)
LIMIT_S = 0.03


def rates() -> dict[str, float]:
    """Constants of the attention law with the device's rates folded in."""
    device = rs.Accelerator.load(DEVICE)
    law = json.loads(device.calibration.to_json())
    attention = law["attention"]
    peak, units = device.peak_flops_per_s["bf16"], device.num_compute_units
    return {
        "memory": 1 / (device.memory_bandwidth_bytes_per_s * attention["e_m"] * law["step"]["memory_rate"]),
        "split": 1 / (peak * attention["split_e_c"] * law["step"]["compute_rate"]),
        "key": 512 / attention["stream_bytes_per_s"],
        "crowd": 1 / (attention["crowd_heads"] * units),
        **attention,
    }


def numpy_best(rows_s: np.ndarray, most: np.ndarray, chunk: int) -> tuple[float, int]:
    """Best tokens/s per device and its row, in chunks of whole lines."""
    r = rates()
    contexts = np.asarray(CONTEXTS, dtype=np.float64)
    heads, kv_heads, layers = 16, 2, 80
    best = (-np.inf, -1)
    lines = max(1, chunk // len(contexts))
    for first in range(0, len(BATCHES), lines):
        batch = np.asarray(BATCHES[first : first + lines], dtype=np.float64)[:, None]
        memory = batch * ((contexts + 1) * kv_heads * 512 + heads * 512) * r["memory"]
        compute = batch * 512 * kv_heads * 16 * contexts * r["split"]
        stream, first_block = contexts * r["key"], 128 * r["key"]
        one_pass = np.maximum(np.maximum(compute, stream), np.maximum(memory, 0.8 * (memory + stream)))
        split = np.maximum(np.maximum(compute, first_block), np.maximum(memory, 0.8 * (memory + first_block)))
        split = r["split_t0_s"] + r["split_c_s"] * np.sqrt(contexts) + r["split_rows_s"] / 16 + split
        crowding = r["crowd_s"] * (1 - 1 / (1 + batch * kv_heads * r["crowd"]))
        attention = crowding + r["pass_t0_s"] + np.minimum(one_pass, split)
        time_s = rows_s[first : first + lines, None] + layers * attention
        value = np.where((time_s <= LIMIT_S) & (batch <= most), batch / time_s / TP, -np.inf)
        at = int(np.argmax(value))
        if value.flat[at] > best[0]:
            best = (float(value.flat[at]), first * len(contexts) + at)
    return best


def seconds(work, repeats: int = 5) -> tuple[float, float]:
    """Median and spread of the times of a call."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times), max(times) - min(times)


def main() -> None:
    """Print the table."""
    space = rs.SweepSpace(MODEL, DEVICE, tensor_parallel_size=TP, batch_size=BATCHES, context_tokens=CONTEXTS)
    deployment = rs.Deployment(MODEL, DEVICE, tensor_parallel_size=TP)
    capacity = deployment.capacity()
    most = np.asarray([capacity.max_sequences(s) for s in CONTEXTS], dtype=np.float64)
    one = [deployment.decode(batch_size=b, context_tokens=4) for b in BATCHES]
    rows_s = np.asarray([s.time_s - sum(o.count * o.time_s for o in s.ops if o.name == "attention") for s in one])
    where = ["fits", f"time_s <= {LIMIT_S}"]
    found = space.top_k(1, by="tokens_per_s_per_gpu", where=where)
    value, row = numpy_best(rows_s, most, 1 << 18)
    assert row == found.indices[0], (row, found.indices)
    assert abs(value / found.values[0] - 1) < 1e-9
    count = space.num_configurations
    numpy_s, numpy_spread = seconds(lambda: numpy_best(rows_s, most, 1 << 18), 3)
    print("| what | threads | configurations/s | spread | of NumPy |")
    print("|---|---|---|---|---|")
    print(f"| chunked NumPy, best-of | 1 | {count / numpy_s:.3g} | {numpy_spread / numpy_s:.0%} | 1 |")
    objectives = ["tokens_per_s_per_gpu", "tokens_per_s_per_user"]
    jobs = {
        "best-of": lambda n: space.top_k(1, by="tokens_per_s_per_gpu", where=where, num_threads=n),
        "top-100": lambda n: space.top_k(100, by="tokens_per_s_per_gpu", where=where, num_threads=n),
        "Pareto, two objectives": lambda n: space.pareto(objectives, where=["fits"], num_threads=n),
        "three columns": lambda n: space.run(["time_s", *objectives], num_threads=n),
    }
    for name, job in jobs.items():
        for threads in (1, 2):
            took, spread = seconds(lambda job=job, threads=threads: job(threads))
            print(f"| {name} | {threads} | {count / took:.3g} | {spread / took:.0%} | {numpy_s / took:.1f} |")
    call, _ = seconds(lambda: [deployment.decode(batch_size=32, context_tokens=4096) for _ in range(10_000)])
    print(f"\n`Deployment.decode` from Python: {call / 10_000 * 1e6:.2f} microseconds a call.")


if __name__ == "__main__":
    main()
