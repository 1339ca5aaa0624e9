"""Law 9: a search is a scan: the same rows, the same bits, the same ties, on any space and for any question."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import roofsim as rs
from roofsim import testing

RANKED = ["time_s", "tokens_per_s", "tokens_per_s_per_gpu", "tokens_per_s_per_user", "usd_per_mtok", "time_high_s"]
RANKED += ["time_low_s", "ideal_s", "memory_s", "compute_s", "network_s", "overhead_s", "flops", "bytes", "mfu", "mbu"]
RANKED += ["arithmetic_intensity", "fits", "max_sequences", "num_devices", "batch_size", "context_tokens"]
RANKED += ["query_tokens", "weight_bytes"]

COLUMNS_BY_SIZE = {
    "time_s": st.floats(1e-5, 10.0),
    "time_high_s": st.floats(1e-5, 10.0),
    "tokens_per_s_per_user": st.floats(0.1, 1e4),
    "tokens_per_s_per_gpu": st.floats(1.0, 1e6),
    "usd_per_mtok": st.floats(0.001, 100.0),
    "mfu": st.floats(0.0, 1.0),
    "memory_s": st.floats(1e-5, 1.0),
    "batch_size": st.integers(1, 400),
    "context_tokens": st.integers(1, 40_000),
    "query_tokens": st.integers(1, 200),
    "max_sequences": st.integers(0, 1000),
    "flops": st.floats(1e6, 1e15),
    "bytes": st.floats(1e6, 1e13),
    "time_low_s": st.floats(1e-5, 10.0),
    "ideal_s": st.floats(1e-5, 10.0),
    "compute_s": st.floats(1e-6, 1.0),
    "network_s": st.floats(0.0, 0.1),
    "overhead_s": st.floats(0.0, 0.1),
    "mbu": st.floats(0.0, 1.0),
    "arithmetic_intensity": st.floats(0.1, 1000.0),
    "tokens_per_s": st.floats(1.0, 1e7),
    "energy_j": st.floats(1e-3, 1e5),
    "kv_cache_bytes": st.integers(0, 10**12),
    "weight_bytes": st.integers(0, 10**12),
    "num_devices": st.integers(1, 8),
    "tensor_parallel_size": st.integers(1, 4),
}
NAMED = ["fits", "not fits", "bound == memory", "bound != memory", "bound == compute", "bound == overhead"]
NAMED += ["status == ok", "status != ok"]


@st.composite
def filters(draw: st.DrawFn) -> str:
    """A condition on any column, at a value that splits some spaces and rules others out."""
    if draw(st.booleans()):
        return draw(st.sampled_from(NAMED))
    name = draw(st.sampled_from(list(COLUMNS_BY_SIZE)))
    return f"{name} {draw(st.sampled_from(['<=', '>=', '<', '>', '==', '!=']))} {draw(COLUMNS_BY_SIZE[name])!r}"


@st.composite
def numeric_axis(draw: st.DrawFn, most: int, length: int) -> Any:
    """A range, a list in any order, or a list whose values stand in it again and again."""
    kind = draw(st.sampled_from(["range", "list", "repeated"]))
    if kind == "range":
        start, count = draw(st.integers(1, most // 2)), draw(st.integers(1, length))
        step = draw(st.integers(1, max(1, most // 2 // count)))
        return range(start, start + count * step, step)
    values = draw(st.lists(st.integers(1, most), min_size=1, max_size=length if kind == "list" else 3))
    return values if kind == "list" else draw(st.permutations(values * draw(st.integers(2, 8))))


@st.composite
def spaces(draw: st.DrawFn) -> dict[str, Any]:
    """Axes of a space with few combinations and long numeric axes."""
    return {
        "models": draw(st.lists(testing.models(), min_size=1, max_size=2)),
        "accelerators": draw(st.lists(testing.accelerators(), min_size=1, max_size=2)),
        "tensor_parallel_size": draw(st.sampled_from([1, [1, 2], [2, 3, 2]])),
        "pipeline_parallel_size": draw(st.sampled_from([1, [1, 2]])),
        "expert_parallel_size": draw(st.sampled_from([1, [1, 2]])),
        "kv_cache_dtype": draw(st.sampled_from(["auto", ["bf16", "fp8"]])),
        "calibration": draw(st.sampled_from(["ideal", None])) or draw(testing.calibrations()),
        "engine": draw(st.sampled_from(["ideal", "vllm"])),
        "capacity_mode": draw(st.sampled_from(["ideal", "runtime"])),
        "batch_size": draw(numeric_axis(600, 30)),
        "context_tokens": draw(numeric_axis(40_000, 40)),
        "query_tokens": draw(st.sampled_from([1, [1, 7, 1], range(1, 300, 90)])),
    }


@settings(max_examples=60)
@given(
    spaces(),
    st.one_of(st.integers(1, 60), st.just(10**6)),
    st.sampled_from(RANKED),
    st.lists(st.sampled_from(RANKED), min_size=2, max_size=4, unique=True),
    st.lists(filters(), max_size=3),
)
def test_a_search_is_a_scan(axes, k, by, objectives, where):
    space = rs.SweepSpace(**axes)
    if len(space) <= 30_000:  # the fronts of a scan are compared point by point
        testing.check_search(space, k, by, objectives, where)


@settings(max_examples=20)
@given(
    spaces(), st.lists(st.sampled_from(RANKED), min_size=2, max_size=4, unique=True), st.lists(filters(), max_size=2)
)
def test_a_front_is_comparing_every_pair(axes, objectives, where):
    space = rs.SweepSpace(**axes)
    if len(space) <= 3_000:
        testing.check_pareto(space, objectives, where)


@settings(max_examples=20)
@given(spaces(), st.lists(st.sampled_from(RANKED), min_size=2, max_size=4, unique=True), st.data())
def test_fronts_of_parts_join_to_the_front(axes, objectives, data):
    space = rs.SweepSpace(**axes)
    if len(space) > 30_000:
        return
    cut = data.draw(st.integers(0, len(space)))
    parts = [space.pareto(objectives, rows=rows) for rows in (range(cut), range(cut, len(space)))]
    whole = space.pareto(objectives, num_threads=data.draw(st.integers(1, 3)))
    joined = parts[1].merge(parts[0])
    assert joined.indices == whole.indices
    assert (joined.values == whole.values).all()


GROUPING = ["model", "accelerator", "tensor_parallel_size", "pipeline_parallel_size", "expert_parallel_size"]
GROUPING += ["num_devices", "weight_dtype", "kv_cache_dtype", "calibration", "engine", "capacity_mode"]
GROUPING += ["data_parallel_size", "gpu_memory_utilization", "block_size", "max_num_batched_tokens", "max_num_seqs"]
WITHIN = ["batch_size", "context_tokens", "query_tokens", "fits", "bound", "status"]
"""Columns that tell rows of one combination apart."""


@st.composite
def grouped_spaces(draw: st.DrawFn) -> dict[str, Any]:
    """Axes of a space in which combinations share groups: equal models under one name, other values twice."""
    axes = draw(spaces())
    for name in ("models", "accelerators"):
        if draw(st.booleans()):
            axes[name] = [*axes[name], axes[name][0]]
    return axes | {
        "engine": draw(st.sampled_from(["ideal", ["ideal", "vllm"], ["vllm", "vllm"]])),
        "gpu_memory_utilization": draw(st.sampled_from([0.9, [0.9, 0.5]])),
        "max_num_seqs": draw(st.sampled_from([1024, [8, 1024, 8]])),
    }


@settings(max_examples=60)
@given(
    grouped_spaces(),
    st.one_of(st.integers(1, 60), st.just(10**6)),
    st.sampled_from(RANKED),
    st.lists(st.one_of(st.sampled_from(GROUPING), st.sampled_from(WITHIN)), min_size=1, max_size=3, unique=True),
    st.lists(filters(), max_size=3),
    st.integers(1, 3),
)
def test_a_search_of_groups_is_a_scan(axes, k, by, group_by, where, threads):
    space = rs.SweepSpace(**axes)
    if space.num_configurations > 300_000:
        return
    question = {"by": by, "k": k, "where": where, "num_threads": threads}
    scan, search = (space.best_per_group(group_by, method=method, **question) for method in ("scan", "search"))
    assert list(search.items()) == list(scan.items())
    assert (scan.report.method, search.report.method) == ("scan", "search")
    assert scan.report.num_evaluated == search.report.num_configurations == space.num_configurations


@settings(max_examples=10)
@given(spaces(), st.integers(2, 5))
def test_a_search_does_not_depend_on_the_number_of_threads(axes, threads):
    space = rs.SweepSpace(**axes)
    for by in ("time_s", "tokens_per_s_per_gpu"):
        one, many = (space.top_k(9, by=by, method="search", num_threads=n) for n in (1, threads))
        assert (one.indices, one.values) == (many.indices, many.values)


LARGE = {"batch_size": range(1, 4097), "context_tokens": range(1, 131_073)}


def test_a_large_space_is_searched_by_itself_and_looks_at_few_rows():
    space = rs.SweepSpace("llama-3.1-8b", ["h100-sxm", "l40s"], tensor_parallel_size=[1, 2, 4], **LARGE)
    best = space.top_k(3, by="tokens_per_s_per_gpu", where=["fits", "time_s <= 0.02"], num_threads=1)
    report = best.report
    assert report.method == "search"
    assert report.num_configurations == 6 * 4096 * 131_072
    assert 0 < report.num_evaluated < 100_000
    assert report.num_bounded < 100_000
    assert report.num_compiled >= 6
    for value, row in zip(best.values, best.to_dicts(), strict=True):
        deployment = rs.Deployment("llama-3.1-8b", row["accelerator"], tensor_parallel_size=row["tensor_parallel_size"])
        step = deployment.decode(batch_size=row["batch_size"], context_tokens=row["context_tokens"])
        assert step.time_s <= 0.02
        assert value == row["batch_size"] / step.time_s / row["tensor_parallel_size"]


def test_a_large_space_is_searched_by_groups():
    names = ["h100-sxm", "l40s", "a100-sxm-80gb"]
    axes = {"tensor_parallel_size": [1, 2, 4, 8], "block_size": [16, 32] * 80, **LARGE}
    space = rs.SweepSpace("llama-3.1-8b", names, **axes)
    assert space.num_configurations > 10**12
    where = ["fits", "time_s <= 0.02"]
    best = space.best_per_group("accelerator", by="tokens_per_s_per_gpu", k=2, where=where, num_threads=1)
    report = best.report
    assert report.method == "search"
    assert list(best) == names
    assert 0 < report.num_evaluated < 1_000_000
    assert report.num_bounded < 1_000_000
    for name, rows in best.items():
        own = rs.SweepSpace("llama-3.1-8b", name, **axes)
        alone = own.top_k(2, by="tokens_per_s_per_gpu", where=where, num_threads=1)
        assert alone.values == [value for value, _ in rows]
        assert alone.configurations() == [space[row] for _, row in rows]


def test_a_large_space_is_searched_by_batch_size():
    axes = {"batch_size": range(1, 257), "context_tokens": range(1, 131_073)}
    space = rs.SweepSpace("llama-3.1-8b", ["h100-sxm", "l40s"], tensor_parallel_size=[1, 2, 4], **axes)
    best = space.best_per_group("batch_size", by="tokens_per_s_per_user", where="context_tokens >= 4096", num_threads=1)
    assert best.report.method == "search"
    assert list(best) == list(range(1, 257))
    assert best.report.num_evaluated < space.num_configurations // 100
    for batch_size in (1, 77, 256):
        own = rs.SweepSpace(
            "llama-3.1-8b",
            ["h100-sxm", "l40s"],
            tensor_parallel_size=[1, 2, 4],
            batch_size=batch_size,
            context_tokens=range(4096, 4200),
        )
        alone = own.top_k(1, by="tokens_per_s_per_user", method="scan")
        ((value, row),) = best[batch_size]
        assert [value] == alone.values
        assert [space[row]] == alone.configurations()


def test_reports_say_why():
    space = rs.SweepSpace("llama-3.1-8b", "h100-sxm", **LARGE)
    small = rs.SweepSpace("llama-3.1-8b", "h100-sxm", batch_size=range(1, 65))
    assert "rule out" in space.top_k(1, by="time_s").report.reason
    assert "64 rows" in small.top_k(1, by="time_s").report.reason
    assert small.top_k(1, by="time_s", method="scan").report.reason == "asked for"
    assert small.pareto(["time_s", "batch_size"], method="search").report.reason == "asked for"
    assert "range of rows" in small.top_k(1, by="time_s", rows=range(4)).report.reason
    short = rs.SweepSpace("llama-3.1-8b", "h100-sxm", block_size=[16, 32] * 2**14, batch_size=range(1, 65))
    assert "64 rows of each combination" in short.top_k(1, by="time_s", where="batch_size > 64").report.reason


@pytest.mark.parametrize("method", ["scan", "search"])
def test_rows_that_cannot_be_ranked_are_counted(method: str):
    names = ["h100-sxm", "a100-sxm-80gb", "l40s"]
    axes: dict[str, Any] = {"tensor_parallel_size": [1, 2], "calibration": ["ideal", None], "batch_size": range(1, 6)}
    space = rs.SweepSpace("llama-3.1-8b", names, **axes)
    priced = [rs.Accelerator.load(name).usd_per_hour("on-demand") is not None for name in names]
    best = space.top_k(1000, by="usd_per_mtok", method=method)
    assert best.num_unranked == 20 * priced.count(False)
    assert all((name in best.report.unranked) == (not known) for name, known in zip(names, priced, strict=True))
    assert len(best) + best.num_unranked == len(space)
    assert space.top_k(5, by="time_s", method=method).num_unranked == 0
    front = space.pareto(["energy_j", "tokens_per_s"], method=method)
    assert front.num_unranked >= 30, "a bound has no power"
    assert "power" in front.report.unranked
    groups = space.best_per_group("batch_size", by="energy_j", k=1000, method=method)
    assert sum(map(len, groups.values())) + groups.num_unranked == len(space)
    assert groups.num_unranked == front.num_unranked


def test_rows_of_parts_that_cannot_be_ranked_add_up():
    device = rs.Accelerator.load("h100-sxm")
    space = rs.SweepSpace("llama-3.1-8b", [device, "l40s"], calibration=["ideal", None], batch_size=range(1, 20))
    whole = space.top_k(3, by="energy_j")
    parts = [space.top_k(3, by="energy_j", rows=rows) for rows in (range(23), range(23, 60), range(60, len(space)))]
    joined = parts[0].merge(*parts[1:])
    assert joined.num_unranked == whole.num_unranked > 0
    assert joined.report.unranked == whole.report.unranked
    ranked = space.run(["energy_j"])["energy_j"]
    assert joined.num_unranked == np.ma.count_masked(ranked) or joined.num_unranked == int(np.isnan(ranked).sum())


def test_rankings_are_arrays_and_lists():
    space = rs.SweepSpace("llama-3.1-8b", "h100-sxm", batch_size=range(1, 65))
    best = space.top_k(9, by="tokens_per_s")
    values, rows = best.to_numpy()
    assert (values.dtype, rows.dtype) == (np.float64, np.uint64)
    assert (values.tolist(), rows.tolist()) == (best.values, best.indices)
    front = space.pareto(["time_s", "batch_size"])
    values, rows = front.to_numpy()
    assert values.shape == (len(front), 2) == (64, 2)
    assert rows.tolist() == front.indices == list(range(64))
    wide = rs.SweepSpace("llama-3.1-8b", "h100-sxm", **LARGE, block_size=[16] * 2**20, max_num_seqs=[1024] * 2**20)
    total = wide.num_configurations
    late = [wide.top_k(2, by="context_tokens", rows=range(total - n, total)) for n in (3, 6)]
    assert total > 2**64
    assert late[0].merge(late[1]).indices == late[0].indices == [total - 1, total - 2]
    assert late[0].to_numpy()[1].tolist() == late[0].indices
    ends = [wide.pareto(["time_s", "context_tokens"], rows=range(total - n, total)) for n in (3, 6)]
    assert ends[0].merge(ends[1]).indices == ends[1].indices == list(range(total - 6, total))


def test_a_ranking_of_very_many_rows_is_a_sort():
    space = rs.SweepSpace("llama-3.1-8b", "h100-sxm", batch_size=range(1, 129), context_tokens=range(1, 8193))
    best = space.top_k(10**6, by="tokens_per_s", num_threads=2)
    values, rows = best.to_numpy()
    column = np.asarray(space.run(["tokens_per_s"])["tokens_per_s"])
    order = np.lexsort((np.arange(len(space)), -column))[: 10**6]
    assert np.array_equal(rows, order.astype(np.uint64))
    assert np.array_equal(values, column[order])


def test_equal_combinations_are_compiled_once():
    axes = {"batch_size": range(1, 257), "context_tokens": range(1, 8193)}
    names = ["h100-sxm"] * 5
    space = rs.SweepSpace("llama-3.1-8b", names, block_size=[16, 32], tensor_parallel_size=[1, 2, 1], **axes)
    report = space.top_k(40, by="tokens_per_s", method="search", num_threads=1).report
    assert report.num_compiled == 2


def test_contexts_beyond_a_window_tie_without_being_looked_at():
    config = {
        "architectures": ["MistralForCausalLM"],
        "hidden_size": 1024,
        "num_hidden_layers": 4,
        "num_attention_heads": 16,
        "num_key_value_heads": 4,
        "intermediate_size": 4096,
        "vocab_size": 32000,
        "sliding_window": 4096,
        "torch_dtype": "bfloat16",
    }
    space = rs.SweepSpace(config, "h100-sxm", batch_size=range(1, 4097), context_tokens=range(4096, 131_072))
    best = space.top_k(50, by="tokens_per_s", where="fits", method="search", num_threads=1)
    assert len(set(best.values)) == 1
    assert best.report.num_evaluated < 1_000_000
    first = best.indices[0]
    assert best.indices == list(range(first, first + 50)), "ties go to the lower row"


def test_a_small_space_is_scanned():
    space = rs.SweepSpace("llama-3.1-8b", "h100-sxm", batch_size=range(1, 65))
    report = space.top_k(1, by="time_s").report
    assert report == rs.SearchReport("scan", 64, 64)
    assert space.pareto(["time_s", "tokens_per_s"]).report.method == "scan"


def test_a_part_of_a_cost_is_not_searched_by_itself():
    space = rs.SweepSpace("llama-3.1-8b", "h100-sxm", batch_size=range(1, 1025), context_tokens=range(1, 8193))
    assert space.top_k(1, by="memory_s").report.method == "scan"
    assert space.top_k(1, by="time_s").report.method == "search"


@pytest.mark.parametrize("method", ["fast", "", None, 1])
def test_an_unknown_method_is_refused(method):
    space = rs.SweepSpace("llama-3.1-8b", "h100-sxm")
    for call in (
        lambda: space.top_k(1, by="time_s", method=method),
        lambda: space.pareto(["time_s"], method=method),
        lambda: space.best_per_group("model", by="time_s", method=method),
    ):
        with pytest.raises(rs.SpecError) as caught:
            call()
        assert caught.value.field == "method"
        assert "scan" in str(caught.value)


@pytest.mark.parametrize("method", ["scan", "search", "auto"])
def test_a_bad_question_is_refused_the_same_way(method):
    space = rs.SweepSpace("llama-3.1-8b", "h100-sxm", **LARGE)
    for k in (0, -1, 1.5, "many"):
        with pytest.raises(rs.SpecError, match="k"):
            space.top_k(k, by="time_s", method=method)
    with pytest.raises(rs.SpecError, match="bound"):
        space.top_k(1, by="bound", method=method)
    with pytest.raises(rs.SpecError, match="objectives"):
        space.pareto(["time_s"], method=method)
    with pytest.raises(rs.SpecError, match="bound"):
        space.best_per_group("model", by="bound", method=method)
    with pytest.raises(rs.SpecError, match="twice"):
        space.best_per_group(["model", "model"], by="time_s", method=method)
    with pytest.raises(rs.SpecError, match="where"):
        space.top_k(1, by="time_s", where="time_s ~ 3", method=method)


def test_what_progress_raises_stops_a_search():
    def stop(done: int, total: int) -> None:
        raise RuntimeError(f"{done} of {total}")

    space = rs.SweepSpace("llama-3.1-8b", "h100-sxm", **LARGE)
    with pytest.raises(RuntimeError):
        space.top_k(1, by="time_s", method="search", progress=stop)


def test_spaces_of_any_size_are_counted_and_searched_while_rows_have_numbers():
    wide = {"tensor_parallel_size": [16] * 2**14, "pipeline_parallel_size": [1] * 2**14}
    space = rs.SweepSpace("llama-3.1-8b", "v100-sxm-32gb", **wide, block_size=[16] * 2**14, **LARGE)
    assert space.num_configurations == 2**42 * 4096 * 131_072 == 2**71
    assert space[2**71 - 1] == space[-1]
    assert space[-1]["context_tokens"] == 131_072
    with pytest.raises(rs.CountOverflowError):
        len(space)
    with pytest.raises(IndexError):
        space[2**71]
    larger = rs.SweepSpace(
        "llama-3.1-8b",
        "h100-sxm",
        **wide,
        block_size=[16] * 2**16,
        max_num_seqs=[8] * 2**22,
        max_num_batched_tokens=[8] * 2**22,
        **LARGE,
    )
    assert larger.num_configurations == 2**14 * 2**14 * 2**16 * 2**44 * 4096 * 131_072
    for call in (lambda: larger.top_k(1, by="time_s"), lambda: larger[5], lambda: larger.run(["time_s"])):
        with pytest.raises(rs.CountOverflowError):
            call()


def test_parts_are_scanned_and_their_reports_add_up():
    space = rs.SweepSpace("llama-3.1-8b", "h100-sxm", batch_size=range(1, 101), context_tokens=range(1, 101))
    parts = [space.top_k(3, by="time_s", rows=range(start, start + 5_000)) for start in (0, 5_000)]
    assert parts[0].merge(parts[1]).report == rs.SearchReport("scan", 10_000, 10_000)
    groups = [space.best_per_group("model", by="time_s", rows=range(start, start + 5_000)) for start in (0, 5_000)]
    assert groups[0].merge(groups[1]).report == rs.SearchReport("scan", 10_000, 10_000)
    with pytest.raises(rs.SpecError, match="method"):
        space.top_k(3, by="time_s", rows=range(5_000), method="search")
    with pytest.raises(rs.SpecError, match="method"):
        space.best_per_group("model", by="time_s", rows=range(5_000), method="search")


@pytest.mark.parametrize(
    ("axes", "where"),
    [
        ({"accelerators": "h100-sxm", "calibration": ["calibrated", None]}, "calibration == calibrated"),
        ({"accelerators": ["h100-sxm", "h100-sxm"]}, "accelerator == h100-sxm"),
    ],
)
def test_a_name_that_an_axis_holds_twice_is_found_twice(axes: dict[str, Any], where: str):
    space = rs.SweepSpace("llama-3.1-8b", **axes, batch_size=[1, 2, 3], context_tokens=[10, 20, 300])
    scan, search = (space.top_k(18, by="time_s", where=where, method=method) for method in ("scan", "search"))
    assert len(scan) == 18
    assert search.indices == scan.indices


METHODS = ("scan", "search")
OVERFLOWING = [1e308, 3e307, 1e300, 0.0, 1.0]


@settings(deadline=None, max_examples=30)
@given(
    st.lists(st.sampled_from(OVERFLOWING), min_size=2, max_size=2),
    st.integers(1, 300),
    st.sampled_from([[], ["fits"], ["usd_per_mtok < inf"], ["usd_per_mtok == inf"], ["usd_per_mtok > 1e307"]]),
    st.booleans(),
)
def test_what_overflows_ranks_alike_in_a_scan_and_in_a_search(prices, k, where, others_first):
    """A price may be so high that dollars are infinite: infinities tie, by row, whichever way they are found."""
    space = rs.SweepSpace(
        "llama-3.1-8b",
        ["h100-sxm", "l40s"],
        tensor_parallel_size=[1, 8],
        batch_size=[3, 1, 64, 2, 200],
        context_tokens=[4096, 1, 900, *range(100, 140)],
        prices=dict(zip(["h100-sxm", "l40s"], prices, strict=True)),
    )
    scan, search = (space.top_k(k, by="usd_per_mtok", where=where, method=m) for m in METHODS)
    assert (scan.values, scan.indices) == (search.values, search.indices)
    table = space.run(["usd_per_mtok", "time_s", "row"], where=where)
    order = sorted(zip(table["usd_per_mtok"].tolist(), table["row"].tolist(), strict=True))
    assert list(zip(scan.values, scan.indices, strict=True)) == order[:k]
    objectives = ["time_s", "usd_per_mtok"] if others_first else ["usd_per_mtok", "time_s"]
    fronts = [space.pareto(objectives, where=where, method=m) for m in METHODS]
    assert fronts[0].indices == fronts[1].indices
    assert fronts[0].values.tolist() == fronts[1].values.tolist()
    points = list(zip(*(table[name].tolist() for name in objectives), table["row"].tolist(), strict=True))
    kept = [c for a, b, c in points if not any(x <= a and y <= b and ((x, y) != (a, b) or z < c) for x, y, z in points)]
    assert fronts[0].indices == sorted(kept)
    by_group = [space.best_per_group("batch_size", by="usd_per_mtok", k=3, where=where, method=m) for m in METHODS]
    assert dict(by_group[0]) == dict(by_group[1])
