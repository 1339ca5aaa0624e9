"""Groups of processes that measure collectives always end, with what they wrote; programs stand in for the ranks."""

from __future__ import annotations

import itertools
import time

import pytest

from roofsim.validate.cuda import collective
from roofsim.validate.plan_collective import collective_points

POINTS = collective_points(2)[:3]
WRITES = """
import json, os, sys, time
plan, result = json.load(open(sys.argv[1])), sys.argv[2]
if os.environ["RANK"] == "0":
    with open(result, "a") as sink:
        for point in plan[:{count}]:
            row = {{"id": point["id"], "median_s": 1e-5, "nvls": os.environ["NCCL_NVLS_ENABLE"]}}
            sink.write(json.dumps(row) + "\\n")
        sink.write({cut!r})
{end}
"""


@pytest.fixture
def ranks(tmp_path, monkeypatch):
    def program(count, end, cut=""):
        path = tmp_path / "rank.py"
        path.write_text(WRITES.format(count=count, end=end, cut=cut))
        monkeypatch.setattr(collective, "WORKER", path)

    return program


def test_a_group_that_ends_well_gives_every_point(ranks, monkeypatch):
    monkeypatch.delenv("NCCL_NVLS_ENABLE", raising=False)
    ranks(3, "")
    values, missing = collective.collective_rows(2, POINTS, limit_s=60)
    assert set(values) == {point.point_id for point in POINTS}
    assert missing is None
    assert {row["nvls"] for row in values.values()} == {"0"}


def test_a_group_that_hangs_is_ended_and_keeps_its_rows(ranks):
    ranks(1, "time.sleep(600)", cut='{"id": "cut sh')
    began = time.monotonic()
    values, missing = collective.collective_rows(2, POINTS, limit_s=4)
    assert time.monotonic() - began < 120
    assert set(values) <= {POINTS[0].point_id}
    assert "not measured within 4 s" in missing


def test_a_rank_that_dies_ends_the_group_and_says_why(ranks):
    ranks(2, "if os.environ['RANK'] == '1': sys.exit('no such link')\ntime.sleep(600)")
    values, missing = collective.collective_rows(2, POINTS, limit_s=300)
    assert len(values) <= 2
    assert "ended early" in missing
    assert "no such link" in missing


def test_a_point_is_the_whole_vector_and_sizes_double():
    sizes = sorted({point.params["num_bytes"] for point in collective_points(4)})
    assert sizes[0] == 16 << 10
    assert sizes[-1] == 256 << 20
    assert all(b == 2 * a for a, b in itertools.pairwise(sizes))
