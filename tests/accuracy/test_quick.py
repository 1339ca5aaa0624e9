"""What a quick run is worth: real quick files, and the quick plan cut from whole runs, scored on all other points."""

from __future__ import annotations

from pathlib import Path

import pytest

import roofsim as rs

pytest.importorskip("scipy", reason="the fit needs scipy (extra roofsim[calibrate])")

from roofsim.calibrate import read_files
from roofsim.calibrate.prior import relative
from roofsim.report.accuracy import fitted_scores

HERE = Path(__file__).parent
DEVICES = ["h100-sxm", "h200-sxm"]
PROMISED = 2.0
"""Points of mean error that a quick fit may be worse than the whole one."""


@pytest.mark.parametrize("device", DEVICES)
def test_a_real_quick_run_fits_as_promised(device):
    accelerator = rs.Accelerator.load(device)
    whole, _ = read_files(sorted((HERE / "measurements").glob(f"{device}-*.gz")))
    quick, _ = read_files([HERE / "quick" / f"{device}-torch-2.11.jsonl.gz"])
    measured = {row["point_id"] for row in quick.rows}
    rest = [row for row in whole.rows if row["point_id"] not in measured]
    prior = relative(accelerator)
    assert prior is not None
    assert prior.name != device
    scores = fitted_scores(accelerator, quick.rows, rest, prior)
    assert {"gemm.bf16", "gemm.fp8", "decode_attention.bf16", "prefill_step.bf16"} <= set(scores)
    for name, (few, all_points) in scores.items():
        assert few.mean <= all_points.mean + PROMISED, (device, name, few.mean, all_points.mean)
