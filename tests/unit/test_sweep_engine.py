"""The sweep engine: instruction sets, chunks that cut long axes, reused memory, huge k, rows that no step may have."""

from __future__ import annotations

import itertools
import signal
import subprocess
import sys

import numpy as np
import pytest

import roofsim as rs
from roofsim import _core
from roofsim.sweep import COLUMNS

MODELS = ["llama-3.1-8b", "mixtral-8x7b", "deepseek-v2.5", "gpt-oss-20b"]


def bits(space: rs.SweepSpace) -> dict[str, bytes]:
    table = space.run(list(COLUMNS))
    return {name: np.ma.getdata(table._columns[name][0]).tobytes() for name in COLUMNS}


def test_every_instruction_set_gives_the_same_bits(monkeypatch):
    # An odd number of contexts: every loop has a tail.
    space = rs.SweepSpace(
        MODELS,
        ["h100-sxm", "a100-sxm-80gb"],
        tensor_parallel_size=[1, 4],
        calibration=[None, "ideal"],
        batch_size=[1, 3, 64, 777],
        context_tokens=range(5, 3_000, 11),
        query_tokens=[1, 4],
    )
    found = {}
    for name in _core._Space.instruction_sets():
        monkeypatch.setenv("ROOFSIM_INSTRUCTION_SET", name)
        best = space.top_k(50, by="usd_per_mtok", where=["time_s <= 0.02"])
        front = space.pareto(["tokens_per_s_per_gpu", "tokens_per_s_per_user"])
        found[name] = (bits(space), best.indices, best.values, front.indices)
    assert "baseline" in found
    assert all(result == found["baseline"] for result in found.values())


def test_an_instruction_set_that_is_not_there_is_refused(monkeypatch):
    monkeypatch.setenv("ROOFSIM_INSTRUCTION_SET", "avx1024")
    with pytest.raises(rs.SpecError, match=r"ROOFSIM_INSTRUCTION_SET.*baseline") as caught:
        rs.SweepSpace("llama-3.1-8b", "h100-sxm").top_k(1, by="time_s")
    assert caught.value.value == "avx1024"


@pytest.mark.parametrize(
    ("contexts", "queries"),
    [
        (range(1, 5_000), [1]),
        (range(3, 2_000, 7), range(1, 9)),
        ([4_000, 9_000], range(1, 4_500)),
        ([2_048], range(1, 2_049)),
    ],
)
def test_axes_longer_than_a_chunk(contexts, queries):
    axes = {"batch_size": [2, 9], "context_tokens": contexts, "query_tokens": queries, "tensor_parallel_size": [1, 2]}
    space = rs.SweepSpace("llama-3.1-8b", "h100-sxm", **axes)
    table = space.run(["time_s", "batch_size", "context_tokens", "query_tokens", "status", "fits"], num_threads=3)
    product = np.asarray(list(itertools.product([1, 2], [2, 9], contexts, queries)))
    for at, name in enumerate(["batch_size", "context_tokens", "query_tokens"], start=1):
        assert np.array_equal(table[name].data, product[:, at]), name
    deployments = {tp: rs.Deployment("llama-3.1-8b", "h100-sxm", tensor_parallel_size=tp) for tp in (1, 2)}
    for row in range(0, len(space), max(1, len(space) // 200)):
        tp, b, s, q = (int(x) for x in product[row])
        if q > s:
            assert table["status"][row] == "query_exceeds_context"
        else:
            step = deployments[tp].prefill(prompt_tokens=s, batch_size=b, cached_tokens=s - q)
            assert table["time_s"][row] == step.time_s


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("query", [1, 37])
def test_row_times_of_neighbouring_batches_are_those_of_steps(model, query):
    """Row counts that are close together leave out most tiles of the GEMM law, and must not leave out the best."""
    axes = {"batch_size": range(1, 1_100), "context_tokens": [64], "query_tokens": query, "tensor_parallel_size": 4}
    for calibration in (None, "ideal"):
        space = rs.SweepSpace(model, "h100-sxm", calibration=calibration, **axes)
        deployment = rs.Deployment(model, "h100-sxm", calibration=calibration, tensor_parallel_size=4)
        found = space.run(["time_s"])["time_s"].data.tolist()
        expected = [
            deployment.prefill(prompt_tokens=64, batch_size=batch, cached_tokens=64 - query).time_s
            for batch in axes["batch_size"]
        ]
        assert found == expected


def test_rows_that_no_step_may_have_say_so():
    axes = {
        "batch_size": [1 << 19, 1 << 20, 1 << 30],
        "context_tokens": [1 << 20],
        "query_tokens": [1, 1 << 10, 1 << 11],
    }
    space = rs.SweepSpace("llama-3.1-8b", "h100-sxm", **axes)
    table = space.run(["time_s", "status", "fits", "mfu"])
    ok, many = "ok", "too_many_rows"
    assert table["status"].tolist() == [ok, ok, ok, ok, ok, many, ok, many, many]
    assert np.array_equal(np.ma.getmaskarray(table["time_s"]), table["status"] == many)
    assert sorted(space.top_k(9, by="time_s").indices) == [0, 1, 2, 3, 4, 6]
    deployment = rs.Deployment("llama-3.1-8b", "h100-sxm")
    for row in range(len(space)):
        c = space[row]
        cached = c["context_tokens"] - c["query_tokens"]
        if table["status"][row] == ok:
            step = deployment.prefill(
                prompt_tokens=c["context_tokens"], batch_size=c["batch_size"], cached_tokens=cached
            )
            assert step.time_s == table["time_s"][row]
        else:
            with pytest.raises(rs.SpecError, match="rows of one step"):
                deployment.prefill(prompt_tokens=c["context_tokens"], batch_size=c["batch_size"], cached_tokens=cached)


def test_as_many_best_rows_as_there_are():
    space = rs.SweepSpace("llama-3.1-8b", "h100-sxm", batch_size=range(1, 401), context_tokens=range(1, 1_001))
    table = space.run(["tokens_per_s_per_user"])
    order = np.argsort(-table["tokens_per_s_per_user"].data, kind="stable")
    for k in (len(space), len(space) - 1, 1 << 60):
        best = space.top_k(k, by="tokens_per_s_per_user", num_threads=2)
        assert best.indices == order[:k].tolist()
        assert best.values == table["tokens_per_s_per_user"].data[order[:k]].tolist()


def test_memory_of_an_earlier_result_is_reused():
    axes = {"batch_size": range(1, 50), "context_tokens": range(1, 3_000, 3)}
    one, other = (rs.SweepSpace("llama-3.1-8b", "h100-sxm", tensor_parallel_size=tp, **axes) for tp in (1, 2))
    names = ["time_s", "fits", "status"]
    expected = {name: np.asarray(column) for name, column in other.run(names).items()}
    earlier = one.run(names)
    memory = earlier["time_s"].data
    table = other.run(names, out=earlier)
    assert np.shares_memory(memory, table["time_s"].data)
    assert all(np.array_equal(np.asarray(table[name]), expected[name]) for name in names)
    for space, columns in ((other, names[:2]), (rs.SweepSpace("llama-3.1-8b", "h100-sxm"), names)):
        with pytest.raises(rs.SpecError, match="out"):
            space.run(columns, out=earlier)


@pytest.mark.skipif(sys.platform == "win32", reason="signals are sent the POSIX way")
@pytest.mark.parametrize(
    "call",
    ["top_k(1, by='time_s', where=['bound == network'])", "pareto(['mfu', 'mbu', 'time_s'])", "top_k(10**9, by='mbu')"],
)
def test_a_signal_stops_an_endless_sweep_over_very_long_lines(call):
    source = f"""
import roofsim as rs
space = rs.SweepSpace("deepseek-v2.5", "h200-sxm", tensor_parallel_size=8, batch_size=range(1, 1 << 20),
                      context_tokens=range(1, 20_000_000), query_tokens=range(1, 20_000))
def tell(done, total):
    print("running", flush=True)
space.{call[:-1]}, num_threads=2, progress=tell)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", source], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "running\n"
        process.send_signal(signal.SIGINT)
        # Without a stop it would run for years.
        _, errors = process.communicate(timeout=120)
        assert "KeyboardInterrupt" in errors
    finally:
        process.kill()


def test_memory_that_cannot_be_written_is_refused():
    space = rs.SweepSpace("llama-3.1-8b", "h100-sxm", batch_size=[1, 2])
    earlier = space.run(["time_s"])
    earlier["time_s"].data.flags.writeable = False
    for array, _, _ in earlier._columns.values():
        array.flags.writeable = False
    with pytest.raises(rs.SpecError, match="out"):
        space.run(["time_s"], out=earlier)
    with pytest.raises(rs.SpecError, match="out"):
        space.run(["time_s"], out={"time_s": 1})


def test_reused_memory_is_the_result_and_never_one_that_arrow_holds():
    pyarrow = pytest.importorskip("pyarrow")
    first = rs.SweepSpace("llama-3.1-8b", "h100-sxm", tensor_parallel_size=[1, 2], batch_size=[1, 2, 3])
    second = rs.SweepSpace("llama-3.1-8b", "h100-sxm", tensor_parallel_size=[1, 3], batch_size=[1, 2, 3])
    columns = first.run(["time_s", "bound"])
    assert second.run(["time_s", "bound"], out=columns) is columns
    fresh = second.run(["time_s", "bound"])
    for name in ("time_s", "bound"):
        assert columns[name].tolist() == fresh[name].tolist()
    pyarrow.table(columns).validate(full=True)
    with pytest.raises(rs.SpecError, match="out"):
        first.run(["time_s", "bound"], out=columns)


def test_memory_that_another_sweep_writes_is_refused():
    space = rs.SweepSpace("llama-3.1-8b", "h100-sxm", batch_size=range(1, 65), context_tokens=range(1, 4097))
    columns = space.run(["time_s"])
    refused = []

    def again(done: int, total: int) -> None:
        with pytest.raises(rs.SpecError, match="out = in use"):
            space.run(["time_s"], out=columns)
        refused.append(done)

    space.run(["time_s"], out=columns, progress=again)
    assert refused


def test_a_price_of_minus_zero_is_a_price_of_zero():
    space = rs.SweepSpace("llama-3.1-8b", "h100-sxm", batch_size=[1, 2, 3], prices={"h100-sxm": -0.0})
    values, rows = space.top_k(2, by="usd_per_mtok").to_numpy()
    assert (rows.tolist(), np.signbit(values).tolist()) == ([0, 1], [False, False])


def test_a_space_of_one_device_takes_every_name_of_a_calibration():
    for name in ("ideal", "calibrated", "sustained"):
        space = rs.SweepSpace("llama-3.1-8b", "h100-sxm", batch_size=[1, 256], query_tokens=64, calibration=name)
        deployment = rs.Deployment("llama-3.1-8b", "h100-sxm", calibration=name)
        context = int(space.run(["context_tokens"])["context_tokens"][0])
        times = [deployment.step([(64, context)] * batch).time_s for batch in (1, 256)]
        assert space.run(["time_s"])["time_s"].tolist() == times


def test_a_word_for_a_calibration_means_each_device_s_own():
    names = ["h100-sxm", "b200-sxm"]
    for word in ("calibrated", "sustained", "tensorrt-llm", "vllm"):
        space = rs.SweepSpace("llama-3.1-8b", names, batch_size=8, context_tokens=900, calibration=word)
        alone = [rs.Deployment("llama-3.1-8b", name, calibration=word) for name in names]
        times = [one.decode(batch_size=8, context_tokens=900).time_s for one in alone]
        assert space.run(["time_s"])["time_s"].tolist() == times
