"""What a replayed collective costs beyond the library's own loop is recovered from measurements."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import roofsim as rs
from roofsim.calibrate.graphs import GRAPH_S, graph_seconds
from roofsim.errors import SpecError
from roofsim.validate.record import load_measurements


def row(device, op, size, ranks, **other):
    seconds = device.collective(op, num_bytes=size, num_devices=ranks).time_s
    return {"family": "collective", "op": op, "num_bytes": size, "ranks": ranks, "median_s": seconds} | other


@pytest.mark.parametrize("seconds", [0.0, 3e-6, 7.25e-6])
def test_the_constant_is_recovered_whatever_the_calibration_holds(seconds):
    h100 = rs.Accelerator.load("h100-sxm")
    truth = h100.with_calibration(h100.calibration.with_constants({GRAPH_S: seconds}))
    rows = [
        row(truth, op, size, ranks, timed="graph")
        for op in ("all_reduce", "all_to_all") for size in (1 << 14, 1 << 20, 1 << 26) for ranks in (2, 8)
    ]  # fmt: skip
    # Launches one by one, and failures, say nothing of graphs.
    rows += [
        row(truth, "all_reduce", 1 << 20, 2, timed="launches") | {"median_s": 1.0},
        row(truth, "all_reduce", 1 << 20, 2, timed="graph", error="hung") | {"median_s": 1.0},
    ]
    assert graph_seconds(h100, rows) == pytest.approx(seconds, abs=1e-8)


def test_a_call_costs_the_constant_more_whatever_its_kind_and_size():
    h100 = rs.Accelerator.load("h100-sxm")
    plain, slow = (h100.with_calibration(h100.calibration.with_constants({GRAPH_S: s})) for s in (0.0, 4e-6))
    for op in ("all_reduce", "all_gather", "reduce_scatter", "all_to_all", "point_to_point"):
        for size in (1 << 10, 1 << 28):
            more = row(slow, op, size, 4)["median_s"] - row(plain, op, size, 4)["median_s"]
            assert more == pytest.approx(4e-6, rel=1e-6)


def test_files_without_graphs_are_refused():
    h100 = rs.Accelerator.load("h100-sxm")
    with pytest.raises(SpecError, match="timed in a graph") as caught:
        graph_seconds(h100, [row(h100, "all_reduce", 1 << 20, 2, timed="launches")])
    assert caught.value.field == "replayed"


def test_the_box_holds_what_the_measurements_say():
    folder = Path(__file__).parents[1] / "accuracy" / "collectives"
    _, rows = load_measurements(folder / "h100-sxm-x2-nccl-2.28.jsonl.gz")
    for name in ("h100-sxm", "h200-sxm"):
        device = rs.Accelerator.load(name)
        held = json.loads(device.calibration.to_json())["collective"]["graph_s"]
        assert held == graph_seconds(device, rows) > 0
