"""Law 9: sweep and step agree bit for bit, reductions equal brute force, nothing depends on threads or axis order."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import roofsim as rs
from property.spaces import FILTERS, NUMERIC, spaces
from roofsim import testing
from roofsim.sweep import COLUMNS


def listed(axis: Any) -> list[Any]:
    return list(axis) if isinstance(axis, (list, range)) else [axis]


@settings(max_examples=25)
@given(spaces(), st.randoms(use_true_random=False))
def test_rows_are_steps_bit_for_bit(axes, random):
    space = rs.SweepSpace(**axes)
    rows = sorted(random.sample(range(len(space)), min(len(space), 60)))
    testing.check_sweep_equals_step(space, axes["models"], axes["accelerators"], axes["calibration"], rows)


@settings(max_examples=25)
@given(spaces(), st.integers(1, 40), st.sampled_from(NUMERIC), st.lists(st.sampled_from(FILTERS), max_size=2))
def test_top_k_is_sorting(axes, k, by, where):
    testing.check_top_k(rs.SweepSpace(**axes), k, by, where)


@settings(max_examples=25)
@given(
    spaces(calibrated=False),
    st.lists(st.sampled_from(NUMERIC[:-1]), min_size=2, max_size=4, unique=True),
    st.lists(st.sampled_from(FILTERS), max_size=2),
)
def test_pareto_is_comparing_every_pair(axes, objectives, where):
    space = rs.SweepSpace(**axes)
    if len(space) <= 3_000:
        testing.check_pareto(space, objectives, where)


@settings(max_examples=15)
@given(spaces(), st.integers(2, 9))
def test_nothing_depends_on_the_number_of_threads(axes, threads):
    space = rs.SweepSpace(**axes)
    columns = list(COLUMNS)
    one, many = space.run(columns, num_threads=1), space.run(columns, num_threads=threads)
    for name in columns:
        assert np.array_equal(np.ma.getmaskarray(one[name]), np.ma.getmaskarray(many[name])), name
        same = one[name].data == many[name].data
        assert (same | (one[name].data != one[name].data)).all(), name
    for by in ("time_s", "tokens_per_s_per_gpu"):
        single, parallel = (space.top_k(9, by=by, num_threads=n) for n in (1, threads))
        assert (single.indices, single.values) == (parallel.indices, parallel.values)
    fronts = [space.pareto(["tokens_per_s_per_gpu", "tokens_per_s_per_user"], num_threads=n) for n in (1, threads)]
    assert fronts[0].indices == fronts[1].indices


@settings(max_examples=15)
@given(spaces(), st.randoms(use_true_random=False))
def test_the_order_of_an_axis_changes_the_order_of_rows_only(axes, random):
    shuffled = dict(axes)
    for name in ("tensor_parallel_size", "weight_dtype", "batch_size", "context_tokens", "query_tokens"):
        values = listed(axes[name])
        shuffled[name] = random.sample(values, len(values))
    columns = ["time_s", "time_low_s", "fits", "status", "max_sequences", "tokens_per_s_per_gpu", "bound"]
    one, other = rs.SweepSpace(**axes), rs.SweepSpace(**shuffled)
    if len(one) > 500:  # every row is written out
        return
    tables = [space.run(columns) for space in (one, other)]
    found = [sorted(_rows(space, table, columns)) for space, table in zip((one, other), tables, strict=True)]
    assert found[0] == found[1]


def _rows(space: rs.SweepSpace, table: Any, columns: list[str]) -> list[str]:
    rows = []
    for row in range(len(space)):
        values = ["null" if table[name][row] is np.ma.masked else repr(table[name][row]) for name in columns]
        rows.append(f"{sorted(space[row].items())} {values}")
    return rows


@settings(max_examples=25)
@given(spaces())
def test_configurations_are_the_product_of_the_axes_in_signature_order(axes):
    space = rs.SweepSpace(**axes)
    names = list(axes)
    product = list(itertools.product(*(range(len(listed(axis))) for axis in axes.values())))
    assert space.num_configurations == len(space) == len(product)
    table = space.run(["tensor_parallel_size", "weight_dtype", "batch_size", "context_tokens", "query_tokens",
                       "block_size", "gpu_memory_utilization", "capacity_mode", "kv_cache_dtype"])  # fmt: skip
    for row in range(0, len(product), max(1, len(product) // 50)):
        c = space[row]
        for name, position in zip(names, product[row], strict=True):
            if name not in ("models", "accelerators", "calibration"):
                assert c[name] == listed(axes[name])[position], (row, name)
        for name in table:
            assert c[name] == table[name][row], (row, name)
        assert space[row - len(product)] == c


@settings(max_examples=25)
@given(spaces())
def test_rows_that_no_engine_runs_are_masked_and_never_rank(axes):
    space = rs.SweepSpace(**axes)
    table = space.run(["time_s", "fits", "status", "max_sequences", "weight_bytes", "bound", "batch_size"])
    bad = np.asarray(table["status"] != "ok")
    for name in ("time_s", "fits", "max_sequences", "weight_bytes", "bound"):
        assert np.array_equal(np.ma.getmaskarray(table[name]), bad), name
    assert not np.ma.getmaskarray(table["batch_size"]).any()
    ranked = set(space.top_k(len(space), by="batch_size").indices)
    assert ranked == set(np.flatnonzero(~bad).tolist())
    assert space.top_k(5, by="time_s", where=["status != ok"]).indices == []


@settings(max_examples=25)
@given(spaces(), st.sampled_from(FILTERS))
def test_a_filter_and_its_opposite_part_the_rows(axes, text):
    space = rs.SweepSpace(**axes)
    opposite = {"<": ">=", ">": "<=", "<=": ">", ">=": "<", "==": "!=", "!=": "=="}
    words = text.split()
    if len(words) == 3:
        other = f"{words[0]} {opposite[words[1]]} {words[2]}"
    else:
        other = words[-1] if words[0] == "not" else f"not {text}"
    count = len(space)
    passing = [set(space.top_k(count, by="time_s", where=where).indices) for where in ([text], [other], [])]
    assert passing[0] | passing[1] == passing[2]
    assert not passing[0] & passing[1]


def test_ties_go_to_the_lower_row():
    space = rs.SweepSpace(models="llama-3.1-8b", accelerators=["h100-sxm", "h100-sxm"], batch_size=[4, 4, 2, 4],
                          context_tokens=[100, 100])  # fmt: skip
    assert space.top_k(3, by="batch_size").indices == [0, 1, 2]
    assert space.top_k(8, by="time_s").indices == [4, 5, 12, 13, 0, 1, 2, 3]
    assert space.pareto(["batch_size", "time_s"]).indices == [0, 4]


def test_more_rows_than_a_chunk_and_a_count_beyond_the_interpreter():
    space = rs.SweepSpace(models="llama-3.1-8b", accelerators="h100-sxm", batch_size=range(1, 201),
                          context_tokens=range(1, 20_000, 100), query_tokens=[1, 2])  # fmt: skip
    table = space.run(["time_s", "batch_size", "context_tokens", "query_tokens"])
    assert table.num_rows == 200 * 200 * 2
    expected = np.repeat(np.arange(1, 201), 400)
    assert np.array_equal(table["batch_size"].data, expected)
    best = space.top_k(10, by="time_s")
    order = np.argsort(np.where(np.ma.getmaskarray(table["time_s"]), np.inf, table["time_s"].data), kind="stable")
    assert best.indices == order[:10].tolist()
    huge = rs.SweepSpace(models=["llama-3.1-8b"] * 64, accelerators=["h100-sxm"] * 64, batch_size=range(1, 1 << 30),
                         context_tokens=range(1, 1 << 30), query_tokens=range(1, 1 << 20))  # fmt: skip
    assert huge.num_configurations == 64 * 64 * ((1 << 30) - 1) ** 2 * ((1 << 20) - 1)
    with pytest.raises(rs.CountOverflowError, match="len"):
        len(huge)
    assert huge[huge.num_configurations - 1]["query_tokens"] == (1 << 20) - 1
    with pytest.raises(IndexError):
        huge[huge.num_configurations]


@st.composite
def long_lines(draw: st.DrawFn) -> rs.SweepSpace:
    """Tens of thousands of rows in lines of many blocks, where a search skips most of them."""
    axes: dict[str, Any] = {
        "models": draw(testing.models()),
        "accelerators": draw(testing.accelerators()),
        "tensor_parallel_size": draw(st.sampled_from([[1], [1, 2, 3]])),
        "calibration": ["ideal", draw(testing.calibrations())] if draw(st.booleans()) else ["ideal"],
        "batch_size": draw(st.sampled_from([range(1, 9), [5, 2, 9, 2], range(300, 1, -99), [1, 4096, 1]])),
        "context_tokens": draw(
            st.sampled_from([range(1, 3_001), range(4_000, 1, -2), range(129, 200_000, 97), [9, 8] * 700])
        ),
        "query_tokens": draw(st.sampled_from([[1], [1], [2, 1]])),
    }
    return rs.SweepSpace(**axes)


@settings(max_examples=25)
@given(
    long_lines(),
    st.sampled_from([1, 2, 50, 3_000]),
    st.sampled_from(NUMERIC),
    st.lists(st.sampled_from([*FILTERS, "context_tokens > 700", "context_tokens == 8"]), max_size=2),
)
def test_a_search_that_skips_blocks_equals_the_full_scan(space, k, by, where):
    testing.check_top_k(space, k, by, where)


@settings(max_examples=15)
@given(
    long_lines(),
    st.lists(st.sampled_from(NUMERIC[:-1]), min_size=2, max_size=2, unique=True),
    st.lists(st.sampled_from(FILTERS), max_size=1),
)
def test_a_front_of_long_lines_equals_the_full_scan(space, objectives, where):
    names = [*objectives, "status"]
    allowed = np.zeros(len(space), dtype=bool)
    allowed[space.top_k(len(space), by=objectives[0], where=where).indices] = True
    table = space.run(names)
    signed = [np.asarray(table[n].data, dtype=float) * (-1 if COLUMNS[n][0] == "higher" else 1) for n in objectives]
    rows = np.flatnonzero(allowed)
    order = rows[np.lexsort((rows, signed[1][rows], signed[0][rows]))]
    front, best = [], np.inf
    for row in order:
        # Sorted by the first objective, then the second, then the row: only a better second objective survives.
        if signed[1][row] < best:
            best = signed[1][row]
            front.append(int(row))
    assert space.pareto(objectives, where=where).indices == sorted(front)
