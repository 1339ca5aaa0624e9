"""Law 9 for everything that is kept of a sweep: reductions equal NumPy on the columns, and parts join to the whole."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import roofsim as rs
from property.spaces import FILTERS, NUMERIC, spaces
from roofsim.sweep import COLUMNS

if TYPE_CHECKING:
    from collections.abc import Iterable

GROUPS = ["model", "accelerator", "tensor_parallel_size", "pipeline_parallel_size", "weight_dtype", "kv_cache_dtype"]
GROUPS += ["calibration", "capacity_mode", "gpu_memory_utilization", "block_size", "batch_size", "context_tokens"]
GROUPS += ["query_tokens", "bound", "status", "fits", "num_devices"]
AXIS_FILTERS = ["tensor_parallel_size < 4", "query_tokens >= 2", "batch_size != 3", "status != ok", "status == ok"]
WHERE = st.lists(st.sampled_from([*FILTERS, *AXIS_FILTERS]), max_size=2)
SHARES = st.lists(st.one_of(st.sampled_from([0.0, 0.5, 1.0]), st.floats(0, 1)), min_size=1, max_size=5)
OPERATORS = {"<=": np.less_equal, ">=": np.greater_equal, "==": np.equal, "!=": np.not_equal}
OPERATORS |= {"<": np.less, ">": np.greater}


class Table:
    """Every column of a space, and what brute force says of it."""

    def __init__(self, space: rs.SweepSpace) -> None:
        self.columns = space.run(list(COLUMNS))
        self.num_rows = len(space)

    def null(self, name: str) -> np.ndarray:
        return np.ma.getmaskarray(self.columns[name])

    def values(self, name: str) -> np.ndarray:
        return np.asarray(self.columns[name].data)

    def passing(self, where: list[str], *names: str) -> np.ndarray:
        """Rows that pass, null where no filter minds; with names, only those where these have a value."""
        kept = np.ones(self.num_rows, dtype=bool)
        for text in where:
            words = text.split()
            if len(words) == 3:
                name, symbol, literal = words
                value: Any = literal if self.values(name).dtype.kind == "U" else float(literal)
                kept &= OPERATORS[symbol](self.values(name), value) & ~self.null(name)
            else:
                kept &= (self.values(words[-1]) == (words[0] != "not")) & ~self.null(words[-1])
        for name in names:
            kept &= ~self.null(name)
        return kept

    def keys(self, by: list[str]) -> list[Any]:
        """The group of every row, null as None."""
        columns = [
            [None if null else x for x, null in zip(self.values(n).tolist(), self.null(n), strict=True)] for n in by
        ]
        return columns[0] if len(by) == 1 else list(zip(*columns, strict=True))


def pieces(total: int, cuts: list[float]) -> list[tuple[int, int]]:
    """The rows in parts, some of them empty."""
    ends = sorted({0, total, *(int(cut * total) for cut in cuts)})
    return [*itertools.pairwise(ends), (0, 0)]


def joined(arrays: Iterable[np.ma.MaskedArray[Any, Any]]) -> list[Any]:
    return [value for array in arrays for value in array.tolist()]


CUTS = st.lists(st.floats(0, 1), max_size=4)


@settings(max_examples=40)
@given(spaces(), WHERE, st.lists(st.sampled_from(sorted(COLUMNS)), min_size=1, max_size=4, unique=True), CUTS)
def test_a_filtered_run_is_the_rows_that_pass(axes, where, names, cuts):
    space = rs.SweepSpace(**axes)
    table = Table(space)
    kept = np.flatnonzero(table.passing(where))
    for threads in (1, 3):
        found = space.run([*names, "row"], where=where, rows=(0, len(space)), num_threads=threads)
        assert found.rows.tolist() == found["row"].tolist() == kept.tolist()
        for name in names:
            assert found[name].tolist() == table.columns[name][kept].tolist(), name
    parts = [space.run(names, where=where, rows=piece) for piece in pieces(len(space), cuts)]
    assert np.concatenate([part.rows for part in parts]).tolist() == kept.tolist()
    for name in names:
        assert joined(part[name] for part in parts) == table.columns[name][kept].tolist(), name


@settings(max_examples=25)
@given(spaces(), WHERE, st.lists(st.sampled_from([*COLUMNS, "row"]), min_size=1, max_size=4, unique=True))
def test_batches_are_the_filtered_run(axes, where, names):
    space = rs.SweepSpace(**axes)
    whole = space.run(names, where=where, rows=(0, len(space)))
    for batch_rows in (1 + len(space) // 7, 10**6):
        batches = list(space.record_batches(names, where=where, batch_rows=batch_rows))
        assert all(1 <= batch.num_rows <= batch_rows for batch in batches)
        for name in names:
            assert joined(batch[name] for batch in batches) == whole[name].tolist(), name


@settings(max_examples=40)
@given(spaces(), WHERE, st.lists(st.sampled_from(GROUPS), min_size=1, max_size=3, unique=True), CUTS)
def test_counts_are_counting(axes, where, by, cuts):
    space = rs.SweepSpace(**axes)
    table = Table(space)
    keys, kept = table.keys(by), table.passing(where)
    expected: dict[Any, int] = {}
    for row in np.flatnonzero(kept):
        expected[keys[row]] = expected.get(keys[row], 0) + 1
    for threads in (1, 2, 5):
        found = space.counts(by, where=where, num_threads=threads)
        assert dict(found) == expected
    assert found.total == space.counts(where=where).total == int(kept.sum())
    parts = [space.counts(by, where=where, rows=piece) for piece in pieces(len(space), cuts)]
    assert dict(parts[0].merge(*parts[1:])) == expected


@settings(max_examples=40)
@given(
    spaces(),
    WHERE,
    st.lists(st.sampled_from(GROUPS), min_size=1, max_size=3, unique=True),
    st.sampled_from(NUMERIC),
    st.integers(1, 4),
    CUTS,
)
def test_the_best_of_groups_is_sorting_each_group(axes, where, by, column, k, cuts):
    space = rs.SweepSpace(**axes)
    table = Table(space)
    keys = table.keys(by)
    sign = -1 if COLUMNS[column][0] == "higher" else 1
    rows = np.flatnonzero(table.passing(where, column) & (table.values("status") == "ok"))
    values = table.values(column).astype(np.float64)
    expected: dict[Any, list[tuple[float, int]]] = {}
    for row in rows[np.argsort(sign * values[rows], kind="stable")]:
        group = expected.setdefault(keys[row], [])
        if len(group) < k:
            group.append((float(values[row]), int(row)))
    for threads in (1, 2, 5):
        found = space.best_per_group(by, by=column, k=k, where=where, num_threads=threads)
        assert dict(found) == expected
    assert list(found) == [key for key in space.counts(by) if key in expected]
    parts = [space.best_per_group(by, by=column, k=k, where=where, rows=p) for p in pieces(len(space), cuts)]
    assert dict(parts[-1].merge(*parts[:-1])) == expected


@settings(max_examples=40)
@given(spaces(), WHERE, st.sampled_from(NUMERIC), st.integers(1, 9), st.booleans(), CUTS)
def test_histograms_are_numpys(axes, where, column, bins, log, cuts):
    space = rs.SweepSpace(**axes)
    table = Table(space)
    kept = table.passing(where)
    values = table.values(column).astype(np.float64)[kept & ~table.null(column)]
    found = space.histogram(column, bins, where=where, num_threads=1, log=log and bool((values > 0).all()))
    if len(values):
        assert (found.counts == np.histogram(values, found.edges)[0]).all()
    assert found.total == len(values)
    assert (found.below, found.above) == (0, 0)
    assert found.null == int(kept.sum()) - len(values)
    # Edges that are values of rows, and rows outside of them.
    inner = np.unique(values)[1:-1:2]
    if len(inner) >= 2:
        for threads in (1, 4):
            parts = [
                space.histogram(column, inner, where=where, rows=piece, num_threads=threads)
                for piece in pieces(len(space), cuts)
            ]
            together = parts[0].merge(*parts[1:])
            assert (together.counts == np.histogram(values, inner)[0]).all()
            assert together.below == int((values < inner[0]).sum())
            assert together.above == int((values > inner[-1]).sum())


@settings(max_examples=40)
@given(spaces(), WHERE, st.sampled_from(NUMERIC), SHARES, CUTS)
def test_quantiles_are_numpys_and_the_sketch_is_within_its_bound(axes, where, column, q, cuts):
    space = rs.SweepSpace(**axes)
    table = Table(space)
    values = table.values(column).astype(np.float64)[table.passing(where, column)]
    parts = [space.quantile_sketch(column, where=where, rows=piece) for piece in pieces(len(space), cuts)]
    sketch = parts[0].merge(*parts[1:])
    assert sketch.count == len(values)
    for threads in (1, 3):
        found = space.quantiles(column, q, where=where, num_threads=threads)
        if len(values) == 0:
            assert np.isnan(found).all()
            assert sketch.quantile(q[0]) is None
            continue
        assert found.tolist() == np.quantile(values, q, method="inverted_cdf").tolist()
        for share, exact in zip(q, found, strict=True):
            close = sketch.quantile(share)
            assert close is not None
            assert abs(close - exact) <= rs.QuantileSketch.relative_error * exact


@settings(max_examples=25)
@given(spaces(), WHERE, st.sampled_from(NUMERIC), st.integers(1, 30), CUTS)
def test_the_best_rows_of_parts_join_to_the_best_rows(axes, where, column, k, cuts):
    space = rs.SweepSpace(**axes)
    whole = space.top_k(k, by=column, where=where)
    parts = [space.top_k(k, by=column, where=where, rows=piece) for piece in pieces(len(space), cuts)]
    together = parts[0].merge(*parts[1:])
    assert (together.indices, together.values) == (whole.indices, whole.values)


@settings(max_examples=25)
@given(spaces(), WHERE, st.lists(st.sampled_from(NUMERIC[:-1]), min_size=2, max_size=4, unique=True), CUTS)
def test_fronts_of_parts_join_to_the_front(axes, where, objectives, cuts):
    space = rs.SweepSpace(**axes)
    whole = space.pareto(objectives, where=where)
    parts = [space.pareto(objectives, where=where, rows=piece) for piece in pieces(len(space), cuts)]
    together = parts[0].merge(*parts[1:])
    assert together.indices == whole.indices
    assert together.values.tolist() == whole.values.tolist()


def test_more_rows_than_a_chunk_in_groups_and_parts():
    space = rs.SweepSpace("llama-3.1-8b", "h100-sxm", batch_size=range(1, 201), context_tokens=range(1, 20_000, 100),
                          query_tokens=[1, 2])  # fmt: skip
    table = space.run(["time_s", "context_tokens", "fits"])
    time_s = np.where(np.ma.getmaskarray(table["time_s"]), np.inf, table["time_s"].data)
    slowest = space.best_per_group("context_tokens", by="time_s", where="fits")
    for context, ((value, row),) in slowest.items():
        rows = np.flatnonzero((table["context_tokens"] == context) & table["fits"].filled(False))
        assert (value, row) == (time_s[rows].min(), rows[np.argmin(time_s[rows])])
    assert space.counts("fits").total == len(space)
    thirds = [
        space.quantile_sketch("time_s", rows=range(at * 26_667, min(80_000, (at + 1) * 26_667))) for at in range(3)
    ]
    assert thirds[0].merge(*thirds[1:]).count == int((~np.ma.getmaskarray(table["time_s"])).sum())


def test_a_row_without_a_result_has_no_weight_bytes():
    # The same in every row of a combination, but null where the query is longer than the context.
    space = rs.SweepSpace("llama-3.1-8b", "h100-sxm", context_tokens=[8, 64], query_tokens=[1, 16])
    found = space.histogram("weight_bytes", 1)
    assert (found.total, found.null) == (3, 1)
    assert space.quantile_sketch("weight_bytes").null == 1


def test_results_of_different_spaces_do_not_join():
    one = rs.SweepSpace("llama-3.1-8b", "h100-sxm", batch_size=[1, 2])
    other = rs.SweepSpace("llama-3.1-8b", "h100-sxm", batch_size=[1, 3])
    same = rs.SweepSpace(["llama-3.1-8b"], ["h100-sxm"], batch_size=range(1, 3))
    assert one == same
    assert one.counts("fits").merge(same.counts("fits"))[True] == 4
    with pytest.raises(rs.SpecError, match=r"batch_size: 1 to 2 by 1 here, 1 to 3 by 2 there"):
        one.top_k(1, by="time_s").merge(other.top_k(1, by="time_s"))
    with pytest.raises(rs.SpecError, match="time_s"):
        one.top_k(1, by="time_s").merge(one.top_k(1, by="mfu"))


def test_names_that_several_models_share_are_told_apart():
    small = {"architectures": ["LlamaForCausalLM"], "hidden_size": 512, "num_hidden_layers": 2,
             "num_attention_heads": 8, "intermediate_size": 1024, "vocab_size": 1000}  # fmt: skip
    large = small | {"num_hidden_layers": 4}
    space = rs.SweepSpace([small, large, small], "h100-sxm")
    assert space.run(["model"])["model"].tolist() == ["model", "model#2", "model"]
    assert dict(space.counts("model")) == {"model": 2, "model#2": 1}
    assert space.top_k(9, by="weight_bytes", where="model == model").indices == [0, 2]
    assert space.top_k(9, by="weight_bytes", where="model != model").indices == [1]
    assert space[1]["model"] == "model#2"
    assert space.top_k(9, by="weight_bytes", where="model == model", rows=(1, 3)).indices == [2]


def test_sketch_error_is_what_it_says():
    assert rs.QuantileSketch.relative_error == 2**-12
    assert math.isclose(rs.QuantileSketch.relative_error, 0.00024, rel_tol=0.02)


def test_keys_of_parts_join_in_the_order_of_the_whole():
    space = rs.SweepSpace("llama-3.1-8b", "h100-sxm", batch_size=[1, 2, 3], context_tokens=[100, 200])
    for by in ("batch_size", ["bound", "batch_size"]):
        parts = [space.counts(by, rows=rows) for rows in ((2, 6), (0, 2))]
        assert list(parts[0].merge(parts[1])) == list(space.counts(by))
        groups = [space.best_per_group(by, by="time_s", rows=rows) for rows in ((2, 6), (0, 2))]
        assert list(groups[0].merge(groups[1])) == list(space.best_per_group(by, by="time_s"))
