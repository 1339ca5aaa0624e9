"""A result in polars, pandas, DuckDB and pyarrow as it is: same rows, nulls where masked, names as names."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import roofsim as rs

NAMES = ["row", "time_s", "bound", "fits", "max_sequences", "status", "accelerator", "usd_per_mtok", "batch_size"]


@pytest.fixture(scope="module")
def space() -> rs.SweepSpace:
    # Rows that no engine runs (three ranks, queries beyond the context) and a device without a price.
    return rs.SweepSpace("llama-3.1-8b", ["h100-sxm", "l40s"], tensor_parallel_size=[1, 3], batch_size=range(1, 30),
                         context_tokens=[64, 4096], query_tokens=[1, 100])  # fmt: skip


@pytest.fixture(scope="module")
def columns(space: rs.SweepSpace) -> rs.Columns:
    return space.run(NAMES)


def listed(columns: rs.Columns) -> dict[str, list[Any]]:
    return {name: columns[name].tolist() for name in columns}


def producers(space: rs.SweepSpace) -> dict[str, Any]:
    return {
        "columns": space.run(NAMES),
        "filtered": space.run(NAMES, where=["batch_size < 20", "fits"]),
        "batches": space.record_batches(NAMES, batch_rows=100),
    }


@pytest.mark.parametrize("kind", ["columns", "filtered", "batches"])
def test_pyarrow(space, kind):
    pa = pytest.importorskip("pyarrow")
    producer = producers(space)[kind]
    table = pa.table(producer)
    table.validate(full=True)
    expected = listed(space.run(NAMES, where=["batch_size < 20", "fits"]) if kind == "filtered" else space.run(NAMES))
    assert table.to_pydict() == expected
    kinds = {field.name: str(field.type) for field in table.schema}
    assert kinds["time_s"] == kinds["usd_per_mtok"] == "double"
    assert kinds["row"] == kinds["max_sequences"] == "uint64"
    assert kinds["fits"] == "bool"
    assert kinds["bound"].startswith("dictionary<values=string, indices=int32")
    nullable = {field.name: field.nullable for field in table.schema}
    assert nullable == {name: name in ("time_s", "bound", "fits", "max_sequences", "usd_per_mtok") for name in NAMES}


@pytest.mark.parametrize("kind", ["columns", "filtered", "batches"])
def test_polars(space, kind):
    pl = pytest.importorskip("polars")
    frame = pl.DataFrame(producers(space)[kind])
    expected = listed(space.run(NAMES, where=["batch_size < 20", "fits"]) if kind == "filtered" else space.run(NAMES))
    assert frame.to_dict(as_series=False) == expected


def test_pandas(space, columns):
    pd = pytest.importorskip("pandas")
    if not hasattr(pd.DataFrame, "from_arrow"):
        pytest.skip("this pandas has no DataFrame.from_arrow")
    for producer in (columns, space.record_batches(NAMES, batch_rows=100)):
        frame = pd.DataFrame.from_arrow(producer)
        assert len(frame) == columns.num_rows
        assert frame["bound"].isna().tolist() == np.ma.getmaskarray(columns["bound"]).tolist()
        assert frame["status"].astype(str).tolist() == columns["status"].tolist()
        assert frame["time_s"].dropna().tolist() == columns["time_s"].compressed().tolist()


def test_duckdb(space, columns):
    duckdb = pytest.importorskip("duckdb")
    batches = space.record_batches(NAMES, batch_rows=100)
    query = "select accelerator, count(*), count(time_s), min(time_s) from {} group by accelerator order by accelerator"
    expected = []
    for name in ("h100-sxm", "l40s"):
        times = columns["time_s"][columns["accelerator"] == name]
        expected.append((name, len(times), int(times.count()), float(times.min())))
    for table in ("columns", "batches"):
        assert duckdb.sql(query.format(table)).fetchall() == expected
    assert batches is not None


def test_numbers_are_shared_not_copied(columns):
    pa = pytest.importorskip("pyarrow")
    array = pa.table(columns)["time_s"].chunk(0)
    assert array.buffers()[1].address == columns["time_s"].data.__array_interface__["data"][0]


def test_the_stream_keeps_the_memory_alive(space):
    pa = pytest.importorskip("pyarrow")
    table = pa.table(space.run(["time_s", "bound"]))
    expected = space.run(["time_s", "bound"])
    assert table["time_s"].to_pylist() == expected["time_s"].tolist()
    capsule = space.run(["time_s"]).__arrow_c_stream__()
    del capsule  # unread: released all the same


def test_batches_start_anew_and_never_hold_the_space():
    pa = pytest.importorskip("pyarrow")
    huge = rs.SweepSpace("llama-3.1-8b", "h100-sxm", batch_size=range(1, 4097), context_tokens=range(1, 2**20))
    batches = huge.record_batches(["row", "time_s"], where="batch_size > 4000", batch_rows=1000)
    for _ in range(2):
        reader = pa.RecordBatchReader.from_stream(batches)
        batch = reader.read_next_batch()
        assert 1 <= batch.num_rows <= 1000
        assert batch["row"][0].as_py() == 4000 * (2**20 - 1)
        reader.close()
        assert next(iter(batches)).rows[0] == 4000 * (2**20 - 1)


def test_below_a_mask_nothing_looks_like_a_result(columns):
    null = np.ma.getmaskarray(columns["time_s"])
    assert null.any()
    assert np.isnan(columns["time_s"].data[null]).all()
    assert set(columns["bound"].data[null]) == {""}
    assert not columns["fits"].data[null].any()
    assert not columns["max_sequences"].data[null].any()
    codes, names = columns.codes("bound")
    assert {names[code] for code in codes[null]} == {""}
    assert set(np.unique(codes[~null])) <= set(range(4))


def test_no_row_at_all(space):
    pa = pytest.importorskip("pyarrow")
    empty = space.run(NAMES, where="batch_size > 1000")
    assert empty.num_rows == 0
    assert pa.table(empty).num_rows == 0
    assert pa.table(space.record_batches(NAMES, where="batch_size > 1000")).num_rows == 0
    assert list(space.record_batches(NAMES, where="batch_size > 1000")) == []


def test_filters_on_axes_leave_out_no_row_that_passes():
    # Contexts of several chunks, in no order, and batches on both sides of the limits; chunks are left out unseen.
    contexts = [*range(9000, 0, -1), *range(9001, 20_001)]
    space = rs.SweepSpace("llama-3.1-8b", ["h100-sxm", "l40s"], batch_size=[300, 1, 7], context_tokens=contexts)
    every = space.run(["row", "time_s", "batch_size", "context_tokens", "accelerator"])
    for where, passes in (
        (["context_tokens > 19990"], every["context_tokens"] > 19990),
        (["context_tokens <= 5", "batch_size != 300"], (every["context_tokens"] <= 5) & (every["batch_size"] != 300)),
        (["accelerator == l40s", "batch_size >= 7"], (every["accelerator"] == "l40s") & (every["batch_size"] >= 7)),
        (["batch_size > 300"], every["batch_size"] > 300),
    ):
        expected = every["row"][passes].tolist()
        assert space.run(["row", "time_s"], where=where)["row"].tolist() == expected
        assert sum(rows.num_rows for rows in space.record_batches(["row"], where=where, batch_rows=100)) == len(
            expected
        )
        assert sum(space.counts([], where=where).values()) == len(expected)
        best = space.top_k(5, by="time_s", where=where, method="scan")
        times = every["time_s"][passes]
        assert list(best.values) == sorted(times.tolist())[:5]
