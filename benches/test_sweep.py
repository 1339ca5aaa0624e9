"""Configurations per second of the whole package, and of rivals in the same run with equal answers.

`scripts/bench.sh` runs this and writes RESULTS.md. Every benchmark says in `extra_info` how many configurations (or
bytes) one round has; benchmarks of one group have the same job.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import rivals

import roofsim as rs

MODELS = ["llama-3.1-70b", "mixtral-8x7b", "deepseek-v3.1"]
DEVICE, TENSOR_PARALLEL = "h200-sxm", 8
BATCHES, CONTEXTS = range(1, 1025), range(8, 131_073, 8)
WHERE = ["fits", f"time_s <= {rivals.LIMIT_S}"]
OBJECTIVES = ["tokens_per_s_per_gpu", "tokens_per_s_per_user"]
THREADS = [1, 2]
FULL_SCAN, BY_DEFAULT = "roofsim, full scan", "roofsim, as it answers by default (exact search)"


@pytest.fixture(scope="module")
def space() -> rs.SweepSpace:
    return rs.SweepSpace(
        MODELS, DEVICE, tensor_parallel_size=TENSOR_PARALLEL, batch_size=BATCHES, context_tokens=CONTEXTS
    )


def measure(benchmark, work, configurations, rounds=9):
    benchmark.extra_info["configurations"] = configurations
    return benchmark.pedantic(work, rounds=rounds, iterations=1, warmup_rounds=int(rounds > 2))


@pytest.mark.parametrize("threads", THREADS)
@pytest.mark.parametrize("k", [1, 100])
def test_top_k(benchmark, space, k, threads):
    benchmark.group = f"top-{k}" if k > 1 else "best-of"
    best = measure(
        benchmark, lambda: space.top_k(k, by=OBJECTIVES[0], where=WHERE, num_threads=threads, method="scan"), len(space)
    )
    assert len(best) == k


@pytest.mark.parametrize("threads", THREADS)
def test_pareto(benchmark, space, threads):
    benchmark.group = "Pareto, two objectives"
    front = measure(
        benchmark, lambda: space.pareto(OBJECTIVES, where=["fits"], num_threads=threads, method="scan"), len(space)
    )
    assert len(front) > 1


@pytest.mark.parametrize("threads", THREADS)
@pytest.mark.parametrize("memory", ["fresh", "reused"])
def test_three_columns(benchmark, memory, threads):
    benchmark.group = "three columns into NumPy"
    space = rs.SweepSpace(
        MODELS,
        DEVICE,
        tensor_parallel_size=TENSOR_PARALLEL,
        batch_size=range(1, 513),
        context_tokens=range(8, 65_537, 8),
    )
    columns = ["time_s", *OBJECTIVES]
    out = space.run(columns) if memory == "reused" else None
    table = measure(benchmark, lambda: space.run(columns, out=out, num_threads=threads), len(space), 5)
    benchmark.extra_info["bytes"] = len(space) * 25  # three numbers and the null flag
    assert table["time_s"][0] > 0


def store(kind: str, memory: np.ndarray) -> None:
    if kind == "memset":
        ctypes.memset(memory.ctypes.data, 0, memory.nbytes)
    else:
        memory.fill(1.0)


@pytest.mark.parametrize("threads", THREADS)
@pytest.mark.parametrize("kind", ["memset", "fill", "fill of fresh memory"])
def test_store_bandwidth(benchmark, kind, threads):
    """What the machine stores when it does nothing else: the ceiling of the columns above."""
    benchmark.group = "store bandwidth"
    numbers = 1 << 25
    reused = [np.ones(numbers // threads) for _ in range(threads)]

    def each(memory: np.ndarray) -> None:
        store(kind, np.empty(len(memory)) if "fresh" in kind else memory)

    with ThreadPoolExecutor(threads) as pool:
        measure(benchmark, lambda: list(pool.map(each, reused)), None, 7)
    benchmark.extra_info["bytes"] = numbers * 8


@pytest.mark.parametrize("calibration", ["calibrated", "ideal"])
@pytest.mark.parametrize("rival", [FULL_SCAN, BY_DEFAULT, "factored NumPy", "flat NumPy"])
def test_best_of_each_model(benchmark, rival, calibration):
    """One thread each, the same rows, the same answer; the flat rival takes a part of the rows."""
    if (rival, calibration) == ("flat NumPy", "calibrated"):
        pytest.skip("the flat rival knows the ideal law alone; with calibrated laws it would only be slower")
    benchmark.group = f"best-of, {calibration}, one thread"
    batches, contexts = (range(1, 17), range(8, 8_193, 8)) if rival == "flat NumPy" else (BATCHES, CONTEXTS)
    chosen = "ideal" if calibration == "ideal" else None
    cases = [rivals.Case(model, DEVICE, TENSOR_PARALLEL, chosen, batches, contexts) for model in MODELS]
    configurations = sum(len(case.space) for case in cases)
    rows = [case.rows_s() for case in cases]

    def work() -> list[tuple[float, int]]:
        if rival == FULL_SCAN:
            return [case.best() for case in cases]
        if rival == BY_DEFAULT:
            return [case.best("auto") for case in cases]
        if rival == "flat NumPy":
            return [rivals.flat_best(case) for case in cases]
        return [rivals.factored_best(case, table) for case, table in zip(cases, rows, strict=True)]

    try:
        answers = work()
    except rivals.UnknownLawError as unknown:
        pytest.skip(f"{unknown}: the rival must learn them")
    for case, (value, row) in zip(cases, answers, strict=True):
        expected = case.best()
        assert value == pytest.approx(expected[0], rel=1e-9)
        # Equal up to rounding may be another row: then that row must be as good.
        found = case.space[row]
        step = case.deployment.decode(batch_size=found["batch_size"], context_tokens=found["context_tokens"])
        assert found["batch_size"] / step.time_s / case.deployment.num_devices == pytest.approx(expected[0], rel=1e-9)
    measure(benchmark, work, configurations, 9 if rival in (FULL_SCAN, BY_DEFAULT) else 3)


@pytest.mark.parametrize("calibration", ["calibrated", "ideal"])
@pytest.mark.parametrize("rival", ["roofsim", "factored NumPy"])
@pytest.mark.parametrize("job", ["three columns", "histogram of time"])
def test_what_no_search_answers(benchmark, job, rival, calibration):
    """Every row counts, so that every row must be evaluated. One thread each, memory in use, the same values."""
    benchmark.group = f"{job}, {calibration}, one thread"
    chosen = "ideal" if calibration == "ideal" else None
    cases = [rivals.Case(m, DEVICE, TENSOR_PARALLEL, chosen, range(1, 257), range(8, 65_537, 8)) for m in MODELS]
    rows = [case.rows_s() for case in cases]
    columns, edges = ["time_s", *OBJECTIVES], np.linspace(0.0, 0.1, 101)
    ours = [case.space.run(columns) for case in cases]
    theirs = [[np.empty(len(case.space)) for _ in columns] for case in cases]

    def work() -> list[np.ndarray]:
        if job == "three columns" and rival == "roofsim":
            found = [case.space.run(columns, out=out, num_threads=1) for case, out in zip(cases, ours, strict=True)]
            return [table[name].data for table in found for name in columns]
        if job == "three columns":
            for case, table, out in zip(cases, rows, theirs, strict=True):
                rivals.factored_columns(case, table, out)
            return [array for out in theirs for array in out]
        if rival == "roofsim":
            return [case.space.histogram("time_s", edges, num_threads=1).counts for case in cases]
        return [rivals.factored_histogram(case, table, edges) for case, table in zip(cases, rows, strict=True)]

    try:
        answers = work()
    except rivals.UnknownLawError as unknown:
        pytest.skip(f"{unknown}: the rival must learn them")
    for at, case in enumerate(cases):
        time_s = case.space.run(["time_s"])["time_s"].data
        if job == "three columns":
            np.testing.assert_allclose(answers[3 * at], time_s, rtol=1e-9)
        else:
            # A row at an edge may fall on either side of it.
            assert np.abs(np.asarray(answers[at]) - np.histogram(time_s, edges)[0]).max() <= 2
    measure(benchmark, work, sum(len(case.space) for case in cases), 5)


@pytest.mark.parametrize("threads", THREADS)
@pytest.mark.parametrize("by", ["bound", "fits"])
def test_counts(benchmark, space, by, threads):
    benchmark.group = f"rows by {by}"
    counts = measure(benchmark, lambda: space.counts(by, num_threads=threads), len(space), 3)
    assert sum(counts.values()) == len(space)


@pytest.mark.parametrize("threads", THREADS)
@pytest.mark.parametrize("reader", ["NumPy", "Arrow"])
def test_record_batches(benchmark, reader, threads):
    """Three columns batch by batch; memory of earlier batches is used again."""
    benchmark.group = "three columns in record batches"
    arrow = pytest.importorskip("pyarrow") if reader == "Arrow" else None
    space = rs.SweepSpace(
        MODELS,
        DEVICE,
        tensor_parallel_size=TENSOR_PARALLEL,
        batch_size=range(1, 257),
        context_tokens=range(8, 65_537, 8),
    )
    batches = space.record_batches(["time_s", *OBJECTIVES], num_threads=threads)

    def work() -> int:
        if arrow is None:
            return sum(batch.num_rows for batch in batches)
        return sum(batch.num_rows for batch in arrow.RecordBatchReader.from_stream(batches))

    assert measure(benchmark, work, len(space), 3) == len(space)
    benchmark.extra_info["bytes"] = len(space) * 25


@pytest.mark.parametrize("contexts", [32, 128, 512])
def test_many_combinations_with_few_contexts(benchmark, contexts):
    """Best-of over 34,560 combinations of categorical axes: what tables cost shows here."""
    benchmark.group = "best-of over many combinations"
    step = 32_768 // contexts
    space = rs.SweepSpace(
        MODELS,
        ["h100-sxm", "h200-sxm", "b200-sxm"],
        tensor_parallel_size=[1, 2, 4, 8],
        pipeline_parallel_size=[1, 2],
        data_parallel_size=[1, 2],
        weight_dtype=["auto", "fp8"],
        kv_cache_dtype=["auto", "fp8"],
        calibration=[None, "ideal"],
        engine=["ideal", "vllm"],
        capacity_mode=["ideal", "runtime"],
        gpu_memory_utilization=[0.85, 0.9, 0.95],
        block_size=[16, 32],
        max_num_seqs=[256, 512],
        batch_size=range(1, 65),
        context_tokens=range(step, 32_769, step),
    )
    rows = space.num_configurations
    benchmark.extra_info["combinations"] = rows // (64 * contexts)
    best = measure(
        benchmark, lambda: space.top_k(1, by="usd_per_mtok", where=WHERE, num_threads=2, method="scan"), rows, 2
    )
    assert len(best) == 1


def test_decode(benchmark):
    benchmark.group = "one configuration"
    deployment = rs.Deployment(MODELS[0], DEVICE, tensor_parallel_size=TENSOR_PARALLEL)
    benchmark.extra_info["configurations"] = 1
    step = benchmark(deployment.decode, batch_size=32, context_tokens=4096)
    assert step.time_s > 0


MEMORY = """
import roofsim as rs
def status(name):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(name))
before = status("VmRSS:")
space = rs.SweepSpace({models}, "{device}", tensor_parallel_size={tp}, batch_size=range(1, 4_097),
                      context_tokens=range(1, 1_000_001), query_tokens=[1])
assert space.num_configurations > 10**10
found = space.{call}
assert len(found) > 0
print((status("VmHWM:") - before) // 1024)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc")
@pytest.mark.parametrize(
    "call",
    [
        "top_k(100, by='tokens_per_s_per_gpu', where=['fits'], method='scan')",
        f"pareto({OBJECTIVES}, where=['fits'], method='scan')",
    ],
)
def test_memory_of_a_streaming_reduction(benchmark, call):
    """1.2e10 configurations in a fresh process: peak memory above what the import took."""
    benchmark.group = "1.2e10 configurations, peak memory above the import"
    source = MEMORY.format(models=MODELS, device=DEVICE, tp=TENSOR_PARALLEL, call=call)
    done = measure(
        benchmark,
        lambda: subprocess.run([sys.executable, "-c", source], check=True, capture_output=True, text=True),
        3 * 4_096 * 1_000_000,
        1,
    )
    benchmark.extra_info["peak_mb"] = int(done.stdout)
    assert int(done.stdout) < 100


def test_what_this_is(benchmark):
    """Not a benchmark: puts the instruction sets of the machine into the report."""
    benchmark.group = "machine"
    benchmark.extra_info["instruction_sets"] = rs._core._Space.instruction_sets()
    benchmark.extra_info["load"] = os.getloadavg()[0]
    benchmark.pedantic(lambda: None, rounds=1)
