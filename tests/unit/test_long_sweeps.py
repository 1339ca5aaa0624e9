"""A long sweep is a good citizen: stops at once, reports, takes any integer of threads, forks, pickles, stays small."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import roofsim as rs

if TYPE_CHECKING:
    from collections.abc import Callable

posix = pytest.mark.skipif(os.name != "posix", reason="signals and fork as on Linux")


def space(**axes: Any) -> rs.SweepSpace:
    return rs.SweepSpace("llama-3.1-8b", "h100-sxm", **{"batch_size": range(1, 65)} | axes)


def pickled(thing: Any) -> Any:
    return pickle.loads(pickle.dumps(thing))  # noqa: S301 - our own bytes


def endless() -> rs.SweepSpace:
    return space(batch_size=range(1, 2**20), context_tokens=range(1, 2**20))


LONG: dict[str, Callable[..., object]] = {
    "run_where": lambda s, **k: s.run(["time_s"], where="time_s > 1e9", **k),
    "counts": lambda s, **k: s.counts("bound", **k),
    "best_per_group": lambda s, **k: s.best_per_group("bound", by="time_s", **k),
    "histogram": lambda s, **k: s.histogram("time_s", [0, 1], **k),
    "quantiles": lambda s, **k: s.quantiles("time_s", **k),
    "quantile_sketch": lambda s, **k: s.quantile_sketch("time_s", **k),
    "top_k": lambda s, **k: s.top_k(3, by="time_s", rows=(5, 10**11), **k),
    "pareto": lambda s, **k: s.pareto(["time_s", "batch_size"], rows=(5, 10**11), **k),
    "record_batches": lambda s, **k: list(s.record_batches(["time_s"], where="time_s > 1e9", **k)),
}


@pytest.mark.parametrize("name", LONG)
def test_what_the_progress_callback_raises_stops_it_and_comes_out_whole(name):
    class EnoughError(Exception):
        pass

    calls: list[tuple[int, int]] = []

    def progress(done: int, total: int) -> None:
        calls.append((done, total))
        if len(calls) == 3:
            raise EnoughError

    with pytest.raises(EnoughError):
        LONG[name](endless(), progress=progress)
    assert len(calls) == 3
    assert all(0 <= done <= total for done, total in calls)
    assert calls == sorted(calls)


@posix
@pytest.mark.parametrize("name", LONG)
def test_ctrl_c_stops_it(name):
    timer = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        LONG[name](endless())
    timer.join()


@pytest.mark.parametrize("name", LONG)
def test_the_gil_is_free_meanwhile(name):
    ticks: list[float] = []
    done = threading.Event()

    def count() -> None:
        while not done.is_set():
            ticks.append(time.monotonic())
            time.sleep(0.001)

    class EnoughError(Exception):
        pass

    def progress(_done: int, _total: int) -> None:
        if len(ticks) > 20:
            raise EnoughError

    thread = threading.Thread(target=count)
    thread.start()
    try:
        with pytest.raises(EnoughError):
            LONG[name](endless(), progress=progress)
    finally:
        done.set()
        thread.join()


@pytest.mark.parametrize("name", LONG)
@pytest.mark.parametrize("progress", [5, "loud"], ids=repr)
def test_a_progress_that_cannot_be_called_is_refused_at_once(name, progress):
    with pytest.raises(rs.SpecError) as caught:
        LONG[name](space(), progress=progress)
    assert caught.value.field == "progress"


@pytest.mark.parametrize("threads", [1, np.int64(2), np.uint8(3), np.array(2)], ids=repr)
@pytest.mark.parametrize("name", [name for name in LONG if name not in ("top_k", "pareto")])
def test_any_integer_is_a_number_of_threads(name, threads):
    LONG[name](space(), num_threads=threads)


@pytest.mark.parametrize("threads", [0, 1025, True, 2.0, "2", np.float64(2), np.array([1, 2]), np.True_], ids=repr)
def test_what_is_no_number_of_threads_is_refused(threads):
    with pytest.raises(rs.SpecError) as caught:
        space().counts("bound", num_threads=threads)
    assert caught.value.field == "num_threads"


def test_threads_from_the_environment(monkeypatch):
    for text, fine in (("1", True), ("3", True), ("0", False), ("many", False), ("-1", False)):
        monkeypatch.setenv("ROOFSIM_NUM_THREADS", text)
        if fine:
            assert space().counts().total == 64
            continue
        with pytest.raises(rs.SpecError) as caught:
            space().counts()
        assert caught.value.field == "ROOFSIM_NUM_THREADS"


def _child(queue: Any, work: rs.SweepSpace) -> None:
    queue.put((dict(work.counts("bound", num_threads=2)), work.top_k(3, by="time_s", num_threads=2).indices))


@posix
def test_a_forked_child_sweeps_too():
    work = space(context_tokens=range(64, 8193, 64))
    mine = (dict(work.counts("bound", num_threads=2)), work.top_k(3, by="time_s", num_threads=2).indices)
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_child, args=(queue, work))
    child.start()
    assert queue.get(timeout=60) == mine
    child.join(timeout=60)
    assert child.exitcode == 0


def test_everything_pickles():
    work = rs.SweepSpace(["llama-3.1-8b"], ["h100-sxm", "l40s"], batch_size=range(1, 9), calibration=["ideal", None],
                         prices={"l40s": 1.5})  # fmt: skip
    again = pickled(work)
    assert again == work
    assert hash(again) == hash(work)
    assert again.top_k(5, by="usd_per_mtok").indices == work.top_k(5, by="usd_per_mtok").indices
    columns = work.run()
    same = pickled(columns)
    assert all(same[name].tolist() == columns[name].tolist() for name in columns)
    for result in (
        work.top_k(3, by="time_s"),
        work.pareto(["time_s", "batch_size"]),
        work.best_per_group("accelerator", by="time_s"),
        work.counts("bound"),
        work.histogram("time_s"),
        work.quantile_sketch("time_s"),
    ):
        assert repr(pickled(result)) == repr(result)
    best = pickled(work.top_k(3, by="time_s"))
    assert best.to_dicts() == work.top_k(3, by="time_s").to_dicts()
    assert best.merge(work.top_k(3, by="time_s")).indices == best.indices


def test_a_filtered_run_that_is_too_large_says_how_large_and_what_else_there_is():
    with pytest.raises(rs.SpecError) as caught:
        endless().run(["time_s"], where="fits", max_bytes=10**6)
    assert caught.value.field == "result_bytes"
    assert int(caught.value.value) > 10**6
    assert "17 bytes each" in caught.value.rule
    for way in ("record_batches", "write_parquet", "top_k", "best_per_group", "max_bytes"):
        assert way in caught.value.rule
    assert space().run(["time_s"], where="batch_size > 60", max_bytes=4 * 17).num_rows == 4
    with pytest.raises(rs.SpecError):
        space().run(["time_s"], where="batch_size > 60", max_bytes=4 * 17 - 1)


BOUNDED = """
import resource, sys
import roofsim as rs
space = rs.SweepSpace("llama-3.1-8b", "h100-sxm", batch_size=range(1, 1025), context_tokens=range(64, 131073, 64))
space.counts("bound", rows=(0, 1000))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
space.counts("bound")
space.best_per_group("context_tokens", by="time_s")
space.quantiles("time_s")
for batch in space.record_batches(["time_s"], where="time_s < 0.01", batch_rows=1 << 14):
    pass
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10)
"""


@posix
def test_two_million_rows_take_little_memory():
    done = subprocess.run([sys.executable, "-c", BOUNDED], capture_output=True, text=True, timeout=300, check=True)
    assert int(done.stdout) < 64 << 20


@pytest.mark.parametrize("rows", [(0, 65), (5, 3), (-1, 3), range(0, 10, 2), 5, (1, 2, 3), (0.0, 1.0), "all"], ids=repr)
def test_rows_out_of_the_space_are_refused(rows):
    for call in (space().counts, space().run, lambda **k: space().top_k(1, by="time_s", **k)):
        with pytest.raises(rs.SpecError) as caught:
            call(rows=rows)
        assert caught.value.field == "rows"


BAD: dict[str, tuple[str, Callable[[], object]]] = {
    "group_by float": ("group_by", lambda: space().best_per_group("time_s", by="time_s")),
    "group_by unknown": ("group_by", lambda: space().best_per_group("speed", by="time_s")),
    "group_by twice": ("group_by", lambda: space().best_per_group(["fits", "fits"], by="time_s")),
    "group_by nothing": ("group_by", lambda: space().best_per_group([], by="time_s")),
    "group_by number": ("group_by", lambda: space().best_per_group(5, by="time_s")),
    "too many groups": ("group_by", lambda: endless().best_per_group(["batch_size", "context_tokens"], by="time_s")),
    "by names": ("by", lambda: space().best_per_group("fits", by="bound")),
    "k": ("k", lambda: space().best_per_group("fits", by="time_s", k=0)),
    "counts by float": ("by", lambda: space().counts("time_s")),
    "counts by unknown": ("by", lambda: space().counts("speed")),
    "histogram of names": ("column", lambda: space().histogram("bound", [0, 1])),
    "histogram of nothing": ("column", lambda: space().histogram("speed")),
    "no bins": ("bins", lambda: space().histogram("time_s", 0)),
    "bins float": ("bins", lambda: space().histogram("time_s", 2.5)),
    "bins text": ("bins", lambda: space().histogram("time_s", "many")),
    "edges fall": ("bins[1]", lambda: space().histogram("time_s", [1, 0])),
    "edges nan": ("bins[1]", lambda: space().histogram("time_s", [0, float("nan")])),
    "one edge": ("bins", lambda: space().histogram("time_s", [0])),
    "edges of a table": ("bins", lambda: space().histogram("time_s", [[0, 1], [2, 3]])),
    "too many bins": ("bins", lambda: space().histogram("time_s", (1 << 20) + 1)),
    "too many edges": ("bins", lambda: space().histogram("time_s", range((1 << 20) + 2))),
    "range nan": ("range[0]", lambda: space().histogram("time_s", 5, range=(float("nan"), 1))),
    "range infinite": ("range[1]", lambda: space().histogram("time_s", 5, range=(0, float("inf")))),
    "range too wide": ("range", lambda: space().histogram("time_s", 5, range=(-1e308, 1e308))),
    "range too narrow": ("range", lambda: space().histogram("time_s", 5, range=(1, 1 + 2**-52))),
    "range falls": ("range", lambda: space().histogram("time_s", 5, range=(1, 0))),
    "range number": ("range", lambda: space().histogram("time_s", 5, range=5)),
    "range in ratio": ("range", lambda: space().histogram("time_s", 5, range=(0, 1), log=True)),
    "q beyond": ("q", lambda: space().quantiles("time_s", 1.1)),
    "q nan": ("q", lambda: space().quantiles("time_s", float("nan"))),
    "q text": ("q", lambda: space().quantiles("time_s", "half")),
    "q of a sketch": ("q", lambda: space().quantile_sketch("time_s").quantile(-0.1)),
    "quantile of names": ("column", lambda: space().quantiles("status", 0.5)),
    "batch_rows": ("batch_rows", lambda: space().record_batches(batch_rows=0)),
    "batches of unknown": ("columns", lambda: space().record_batches(["speed"])),
    "batches of nothing": ("columns", lambda: space().record_batches([])),
    "batches where": ("where", lambda: space().record_batches(where="speed > 1")),
    "run of nothing": ("columns", lambda: space().run([], where="fits")),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_arguments_are_refused_by_name(name):
    field, call = BAD[name]
    with pytest.raises(rs.SpecError) as caught:
        call()
    assert caught.value.field == field
    assert caught.value.rule


def test_numpys_functions_are_looked_up_before_a_sweep():
    """Ctrl-C in their first use would be a panic."""
    code = (
        "import roofsim.sweep; from numpy._core import multiarray as m; "
        "print(any('RUST_NUMPY' in name for name in dir(m)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True"


@pytest.mark.parametrize("method", ["scan", "search"])
@pytest.mark.parametrize("name", ["top_k", "best_per_group", "pareto"])
def test_a_stop_after_the_last_row_is_heeded_while_results_are_joined(name, method):
    """Many rows, groups or points are left to sort then: whoever asks for a stop does not wait for them."""
    many = space(batch_size=range(1, 257), context_tokens=range(1, 1025), query_tokens=[1])
    asked = {
        "top_k": lambda **k: many.top_k(1 << 18, by="time_s", **k),
        "best_per_group": lambda **k: many.best_per_group(["batch_size", "context_tokens"], by="time_s", **k),
        "pareto": lambda **k: many.pareto(["tokens_per_s", "batch_size", "context_tokens", "mfu"], **k),
    }
    full: list[int] = []
    asked[name](progress=lambda done, total: full.append(done == total), method=method)
    last = len(full)
    assert full[-1]
    calls = 0

    class EnoughError(Exception):
        pass

    def stop(done: int, total: int) -> None:
        nonlocal calls
        if done == total:
            calls += 1
            raise EnoughError

    with pytest.raises(EnoughError):
        asked[name](progress=stop, method=method)
    assert calls == 1
    assert last


def test_names_may_have_blanks_around_them_everywhere():
    small = space(batch_size=[1, 2, 3])
    first = small.run([" time_s "])
    assert small.run(["time_s"], out=first) is first
    assert small.run([" time_s"], out=first) is first
    assert small.top_k(2, by=" time_s ").merge(small.top_k(1, by="time_s")).by == "time_s"
    assert small.pareto([" time_s", "mfu "]).objectives == ("time_s", "mfu")
    assert dict(small.counts(" fits ")) == dict(small.counts("fits"))
    assert small.run([" row ", "time_s"])["row"].tolist() == [0, 1, 2]
    with pytest.raises(rs.SpecError) as caught:
        small.run(["time_s", " time_s"])
    assert caught.value.field == "columns"


@pytest.mark.parametrize("by", ["time_s", ["fits", "fits"], ["batch_size", "context_tokens"]], ids=repr)
def test_counts_refuse_what_makes_no_groups_by_the_name_of_the_argument(by):
    large = space(batch_size=range(1, 2000), context_tokens=range(1, 2000))
    with pytest.raises(rs.SpecError) as caught:
        large.counts(by)
    assert caught.value.field == "by"
    with pytest.raises(rs.SpecError) as caught:
        large.best_per_group(by, by="time_s")
    assert caught.value.field == "group_by"


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("price", [1.0, 1e15, 1e16, 1e17, 1e60, 1e290])
def test_a_histogram_of_one_value_holds_it_however_large(price, log):
    one = rs.SweepSpace("llama-3.1-8b", "h100-sxm", prices={"h100-sxm": price})
    bars = one.histogram("usd_per_mtok", log=log)
    (value,) = one.run(["usd_per_mtok"])["usd_per_mtok"].tolist()
    assert (bars.below, bars.above, bars.null, bars.total) == (0, 0, 0, 1)
    assert bars.edges[0] < value < bars.edges[-1]
    if log or value < 1e14:
        assert len(bars.counts) == 10
    if not log and value > 1e16:
        assert len(bars.counts) == 1
