"""Public measurements of whole servers: the errors stated in docs/serving.md are recomputed, and bounded."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "serving"))
import comparison


@pytest.fixture(scope="module")
def rows() -> list[dict]:
    return [row for row in comparison.compared() if "why" not in row]


def test_page_is_fresh() -> None:
    assert comparison.PAGE.read_text(encoding="utf-8") == comparison.page()


def test_most_points_are_represented(rows: list[dict]) -> None:
    assert len(rows) > 0.9 * len(comparison.points())
    assert {row["why"] for row in comparison.compared() if "why" in row} <= {
        "more requests than the KV cache holds: they queue for memory",
        "prompts do not fit between the decodes under the token budget",
    }


def test_errors_stay_below_the_rivals(rows: list[dict]) -> None:
    unseen = [row for row in rows if row["model"] not in comparison.FITTED]
    for some in (rows, unseen):
        assert comparison.errors(some, "tpot")[0] < 25
        assert comparison.errors(some, "ttft")[0] < 50


def test_no_server_beats_the_bare_roofline() -> None:
    bare = [row for row in comparison.compared("ideal") if "why" not in row]
    assert max(row["tpot"] for row in bare) <= 0.01  # lengths are known to a percent at best


def test_every_point_has_sound_facts() -> None:
    for point in comparison.points():
        assert float(point["ttft_ms"]) > 0 < float(point["tpot_ms"])
        assert int(point["tensor_parallel"]) * int(point["data_parallel"]) in {1, 2, 4, 8}
        assert point["source"] in {"inferencex", "aiconfigurator"}
