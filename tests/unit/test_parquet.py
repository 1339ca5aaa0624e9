"""Parquet on disk: one call's rows, readable when it is stopped, completed by the next call, never mixed up."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

import roofsim as rs

if TYPE_CHECKING:
    from pathlib import Path

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

NAMES = ["row", "time_s", "bound", "fits", "status", "accelerator", "batch_size"]


@pytest.fixture(scope="module")
def space() -> rs.SweepSpace:
    return rs.SweepSpace("llama-3.1-8b", ["h100-sxm", "l40s"], tensor_parallel_size=[1, 3], batch_size=range(1, 101),
                         context_tokens=range(256, 8193, 256))  # fmt: skip


def read(path: Path) -> list[dict[str, object]]:
    return pq.read_table(path).to_pylist()


def expected(space: rs.SweepSpace, where: list[str]) -> list[dict[str, object]]:
    return pa.table(space.run(NAMES, where=where, rows=(0, len(space)))).to_pylist()


@pytest.mark.parametrize("where", [[], ["fits", "bound == compute"], ["batch_size > 1000"]], ids=repr)
@pytest.mark.parametrize("row_group_rows", [700, 10**6])
def test_the_directory_holds_the_rows_that_pass(space, tmp_path, where, row_group_rows):
    found = space.write_parquet(tmp_path / "out", NAMES, where=where, row_group_rows=row_group_rows)
    rows = expected(space, where)
    assert read(tmp_path / "out") == rows
    assert (found.num_rows, found.resumed) == (len(rows), 0)
    assert [file.name for file in found.files] == sorted(path.name for path in (tmp_path / "out").glob("*.parquet"))
    for file in found.files:
        sizes = [
            pq.ParquetFile(file).metadata.row_group(at).num_rows for at in range(pq.ParquetFile(file).num_row_groups)
        ]
        assert all(size <= row_group_rows for size in sizes)
        assert all(size == row_group_rows for size in sizes[:-1])
    again = space.write_parquet(tmp_path / "out", NAMES, where=where, row_group_rows=row_group_rows)
    assert (again.files, again.num_rows, again.resumed) == (found.files, len(rows), len(space))


@pytest.mark.parametrize("where", [[], ["fits"]], ids=repr)
def test_a_stopped_run_is_readable_and_the_next_one_completes_it(space, tmp_path, where):
    class StopError(Exception):
        pass

    def stop(done: int, total: int) -> None:
        assert 0 <= done <= total == len(space)
        if done > 4000:
            raise StopError

    with pytest.raises(StopError):
        space.write_parquet(tmp_path / "out", NAMES, where=where, row_group_rows=1000, progress=stop)
    rows, partial = expected(space, where), read(tmp_path / "out")
    assert 0 < len(partial) < len(rows)
    assert partial == rows[: len(partial)]
    assert not list((tmp_path / "out").glob(".*.tmp"))
    seen: list[int] = []
    found = space.write_parquet(
        tmp_path / "out", NAMES, where=where, row_group_rows=1000, progress=lambda done, _: seen.append(done)
    )
    assert read(tmp_path / "out") == rows
    assert 0 < found.resumed < len(space)
    assert min(seen) >= found.resumed
    assert max(seen) == len(space)


def test_parts_that_other_processes_write_make_the_whole(space, tmp_path):
    half = len(space) // 2 + 17
    space.write_parquet(tmp_path / "out", NAMES, rows=(half, len(space)), row_group_rows=1000)
    space.write_parquet(tmp_path / "out", NAMES, rows=(0, half - 5), row_group_rows=1000)
    found = space.write_parquet(tmp_path / "out", NAMES, row_group_rows=1000)
    assert found.resumed == len(space) - 5
    assert read(tmp_path / "out") == expected(space, [])


def test_another_sweep_is_refused_by_what_differs(space, tmp_path):
    space.write_parquet(tmp_path / "out", NAMES, where="fits")
    other = rs.SweepSpace("llama-3.1-8b", ["h100-sxm", "l40s"], tensor_parallel_size=[1, 3], batch_size=range(1, 101),
                          context_tokens=range(256, 8193, 512))  # fmt: skip
    for call, named in (
        (lambda: other.write_parquet(tmp_path / "out", NAMES, where="fits"), "context_tokens: 256 to 7936 by 512 here"),
        (lambda: space.write_parquet(tmp_path / "out", ["row"], where="fits"), "columns"),
        (lambda: space.write_parquet(tmp_path / "out", NAMES), 'where: [] here, ["fits"] there'),
    ):
        with pytest.raises(rs.SpecError, match="holds another sweep") as caught:
            call()
        assert caught.value.field == "path"
        assert named in caught.value.rule
    same = rs.SweepSpace(["llama-3.1-8b"], ["h100-sxm", "l40s"], tensor_parallel_size=(1, 3),
                         batch_size=list(range(1, 101)), context_tokens=range(256, 8193, 256))  # fmt: skip
    assert same.write_parquet(tmp_path / "out", NAMES, where="fits").resumed == len(space)


def test_what_is_not_ours_is_left_alone(space, tmp_path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "precious.txt").write_text("x")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "_roofsim.json").write_text("{")
    for name in ("file", "folder", "broken"):
        with pytest.raises(rs.SpecError) as caught:
            space.write_parquet(tmp_path / name, NAMES)
        assert caught.value.field == "path"
    assert (tmp_path / "folder" / "precious.txt").read_text() == "x"
    with pytest.raises(rs.SpecError) as caught:
        space.write_parquet(tmp_path / "new", NAMES, compression="zip")
    assert caught.value.field == "compression"
    with pytest.raises(rs.SpecError):
        space.write_parquet(tmp_path / "never", ["speed"])
    assert not (tmp_path / "never").exists()


def test_the_manifest_says_what_the_directory_is_of(space, tmp_path):
    space.write_parquet(tmp_path / "out", NAMES, where=["fits", "time_s < 1"])
    manifest = json.loads((tmp_path / "out" / "_roofsim.json").read_text())
    assert manifest["columns"] == NAMES
    assert manifest["where"] == ["fits", "time_s < 1"]
    assert manifest["space"] == space.description()
    assert len(manifest["fingerprint"]) == 64


LONG = """
import sys, roofsim as rs
space = rs.SweepSpace("llama-3.1-8b", ["h100-sxm"] * 8, batch_size=range(1, 4097), context_tokens=range(64, 131073, 64))
print("ready", flush=True)
space.write_parquet(sys.argv[1], ["row", "time_s"], row_group_rows=1 << 16)
"""


@pytest.mark.skipif(os.name != "posix", reason="signals as on Linux")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=["Ctrl-C", "killed"])
def test_whatever_stops_a_long_write_leaves_whole_files(tmp_path, number):
    path = tmp_path / "out"
    with subprocess.Popen(
        [sys.executable, "-c", LONG, str(path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as run:
        assert run.stdout is not None
        run.stdout.readline()
        deadline = time.monotonic() + 60
        while not list(path.glob("*.parquet")) and time.monotonic() < deadline:
            time.sleep(0.02)
        run.send_signal(number)
        _, errors = run.communicate(timeout=60)
    assert run.returncode != 0
    assert number == signal.SIGKILL or b"KeyboardInterrupt" in errors
    files = list(path.glob("*.parquet"))
    assert files
    for file in files:
        # Several are written at a time: each holds the rows that its name says, and what lies between is not done yet.
        first, stop = map(int, file.stem.removeprefix("part-").split("-"))
        assert pq.read_table(file, columns=["row"])["row"].to_pylist() == list(range(first, stop))
    assert number == signal.SIGKILL or not list(path.glob(".*.tmp"))


def test_a_damaged_part_is_named_before_any_work(tmp_path):
    space = rs.SweepSpace("llama-3.1-8b", "h100-sxm", batch_size=range(1, 101))
    (part,) = space.write_parquet(tmp_path, ["time_s"], rows=(0, 50)).files
    part.write_bytes(b"")
    with pytest.raises(rs.SpecError, match=part.name):
        space.write_parquet(tmp_path, ["time_s"])
    assert list(tmp_path.glob("*.parquet")) == [part]
    part.unlink()
    assert space.write_parquet(tmp_path, ["time_s"]).num_rows == 100


def test_a_wrong_codec_claims_no_directory(space, tmp_path):
    with pytest.raises(rs.SpecError, match="compression = foo"):
        space.write_parquet(tmp_path / "out", NAMES, compression="foo")
    assert not (tmp_path / "out").exists()


def test_what_is_no_directory_of_a_sweep_is_called_what_it_is(tmp_path):
    space = rs.SweepSpace("llama-3.1-8b", "h100-sxm")
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(rs.SpecError, match=r"holds other files and no _roofsim\.json"):
        space.write_parquet(tmp_path)
    with pytest.raises(rs.SpecError, match="is a file"):
        space.write_parquet(tmp_path / "notes.txt")


def test_what_a_run_killed_at_once_left_is_no_obstacle(space, tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    gone = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    stale = folder / f"._roofsim.json.{int(gone.stdout)}.tmp"
    stale.write_text("{")
    alive = folder / f"._roofsim.json.{os.getppid()}.tmp"
    alive.write_text("{")
    assert space.write_parquet(folder, NAMES).num_rows == space.num_configurations
    assert not stale.exists()
    assert alive.exists()
    assert space.write_parquet(folder, NAMES).resumed == space.num_configurations


@pytest.mark.parametrize("name", [".part-mine.tmp", ".part-0.tmp"])
def test_names_like_ours_are_left_alone(space, tmp_path, name):
    space.write_parquet(tmp_path / "out", NAMES, rows=(0, 10))
    (tmp_path / "out" / name).write_text("x")
    space.write_parquet(tmp_path / "out", NAMES)
    assert (tmp_path / "out" / name).read_text() == "x"


def test_files_are_the_same_on_any_number_of_threads(space, tmp_path):
    held = []
    for threads in (1, 2, 5):
        told: list[tuple[int, int]] = []

        def tell(done: int, total: int, told: list[tuple[int, int]] = told) -> None:
            told.append((done, total))

        path = tmp_path / str(threads)
        parts = space.write_parquet(path, NAMES, row_group_rows=7, num_threads=threads, progress=tell)
        held.append({file.name: file.read_bytes() for file in parts.files})
        assert told == sorted(told)
        assert told[-1] == (space.num_configurations, space.num_configurations)
    assert len(held[0]) > 5
    assert held[0] == held[1] == held[2]


@pytest.mark.parametrize("where", [[], ["fits"]], ids=repr)
def test_a_full_disk_is_an_error_that_leaves_whole_files(tmp_path, where):
    """No file may grow beyond a limit: what was written before stays readable, nothing half is left."""
    path = tmp_path / "out"
    code = f"""
import resource, signal, roofsim as rs
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
space = rs.SweepSpace("llama-3.1-8b", "h100-sxm", batch_size=range(1, 1025), context_tokens=range(64, 8193, 64))
space.write_parquet({str(path)!r}, ["row", "time_s"], where={where!r}, rows=(0, 1024), row_group_rows=16)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
try:
    space.write_parquet({str(path)!r}, ["row", "time_s"], where={where!r}, row_group_rows=4096)
except rs.SpecError as error:
    print(error.field)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "path"
    rows = sum(pq.read_metadata(file).num_rows for file in path.glob("*.parquet"))
    assert rows >= 1024
    assert not list(path.glob(".*"))
