"""What the calibrations in the box say of points measured after they were fixed, as docs/calibration.md states it."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

import roofsim as rs

pytest.importorskip("scipy", reason="roofsim.calibrate needs scipy (extra roofsim[calibrate])")

from roofsim.calibrate import read_files
from roofsim.calibrate.observations import observe
from roofsim.calibrate.predict import costs
from roofsim.validate import load_measurements

ACCURACY = Path(__file__).parent
PAGE = ACCURACY.parents[1] / "docs" / "calibration.md"
RUNS = {
    "h100-sxm-torch-2.11": "h100-sxm",
    "h200-sxm-torch-2.11": "h200-sxm",
    "h100-sxm-torch-2.11-later": "h100-sxm",
}
"""Files and the device of each."""
CLASSES = {
    "gemm.bf16": "GEMM bf16, random shapes",
    "gemm.fp8": "GEMM fp8, random shapes",
    "gemm.int8": "GEMM int8",
    "grouped_gemm.bf16": "grouped GEMM bf16, random shapes",
}


def unseen(run: str, device: str) -> dict[str, tuple[int, float, float, float]]:
    """Per class, of groups that no fit saw: points, mean error, share in the bars and the bare roofline's error."""
    fitted = {one.name: set(one.groups) for one in observe(read_files(sorted(
        (ACCURACY / "measurements").glob(f"{device}-*.jsonl.gz")))[0].rows)}  # fmt: skip
    accelerator = rs.Accelerator.load(device)
    found = {}
    for one in observe(read_files([ACCURACY / "holdout" / f"{run}.jsonl.gz"])[0].rows):
        new = one.take(~np.isin(one.groups, list(fitted[one.name])))
        if len(new):
            cost, measured = costs(accelerator, new), new.measured_s
            error, bare = (100 * np.mean(np.abs(cost[key] / measured - 1)) for key in ("time_s", "ideal_s"))
            held = 100 * np.mean((cost["time_low_s"] <= measured) & (measured <= cost["time_high_s"]))
            found[one.name] = (len(new), float(error), float(held), float(bare))
    return found


@pytest.fixture(scope="module")
def measured() -> dict[str, dict[str, tuple[int, float, float, float]]]:
    return {run: unseen(run, device) for run, device in RUNS.items()}


def test_the_page_states_what_the_hold_out_gives(measured):
    text = PAGE.read_text(encoding="utf-8")
    for name, label in CLASSES.items():
        row = re.search(rf"^\| {re.escape(label)} \| (.*) \| (.*) \| (.*) \|$", text, re.MULTILINE)
        assert row, label
        for run, cell in zip(RUNS, row.groups(), strict=True):
            stated = [float(number) for number in cell.split(", ")]
            assert stated == pytest.approx(measured[run][name], abs=0.55), (run, name)


@pytest.mark.parametrize(("name", "limit"), [("gemm.bf16", 6.0), ("gemm.fp8", 6.0), ("grouped_gemm.bf16", 7.1)])
def test_new_random_shapes_are_predicted(measured, name, limit):
    for run in RUNS:
        points, error, _, bare = measured[run][name]
        assert points >= 30
        assert error <= limit < bare / 4, (run, error, bare)


@pytest.mark.parametrize("name", CLASSES)
def test_bars_hold_what_they_state(measured, name):
    counts, held = zip(*((measured[run][name][0], measured[run][name][2]) for run in RUNS), strict=True)
    # A handful of points of one run says nothing: such classes are judged on all runs together.
    if min(counts) < 30:
        held = (sum(share * count for share, count in zip(held, counts, strict=True)) / sum(counts),)
    assert min(held) >= 75, held


def test_the_page_states_what_two_joined_devices_give():
    """NCCL between two H100, replayed from graphs; constants of tables, one of other sizes."""
    header, rows = load_measurements(ACCURACY / "holdout" / "h100-sxm-x2-nccl-2.28.jsonl.gz")
    assert header["device"]
    accelerator = rs.Accelerator.load("h100-sxm")
    _, replayed = load_measurements(ACCURACY / "collectives" / "h100-sxm-x2-nccl-2.28.jsonl.gz")
    fitted = {row["num_bytes"] for row in replayed}
    errors: dict[str, list[float]] = {}
    for row in rows:
        cost = accelerator.collective(row["op"], num_bytes=row["num_bytes"], num_devices=row["ranks"])
        assert row["median_s"] > cost.ideal_s
        assert row["num_bytes"] not in fitted
        errors.setdefault(row["op"], []).append(100 * abs(cost.time_s / row["median_s"] - 1))
    found = {op: round(float(np.mean(each))) for op, each in errors.items()}
    stated = re.search(
        r"off by (\d+)% \(all-reduce\), (\d+)% \(all-gather\), (\d+)% \(reduce-scatter\) and (\d+)% \(all-",
        PAGE.read_text("utf-8"),
    )
    assert stated
    order = ("all_reduce", "all_gather", "reduce_scatter", "all_to_all")
    assert [int(number) for number in stated.groups()] == [found[op] for op in order]
    assert {len(each) for each in errors.values()} == {7}
