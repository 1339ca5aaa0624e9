"""Every accelerator with every mixture: near the roofline; units count only where somebody measured what one does."""

from __future__ import annotations

import json

import pytest

import roofsim as rs
from roofsim.catalog import accelerator_names, calibration_names, model_names

MIXTURES = [m for m in map(rs.Model.load, model_names()) if m.num_active_parameters * 5 < m.num_parameters * 4]
DEVICES = [name for name in accelerator_names() if "bf16" in rs.Accelerator.load(name).peak_flops_per_s]
LARGEST_RATIO = 4.1
"""A large batch keeps a device busy: no known kernel library leaves three quarters of it idle. A tenth beside: the
GB300 borrows the fixed times of the B200, and has a ninth more peak to be idle with."""
MEASURED = {rs.Calibration.load(name).provenance["device"] for name in calibration_names()}
MEASURED_FAMILIES = {rs.Accelerator.load(device).family for device in MEASURED}


def deployments(model: rs.Model, device: str) -> list[rs.Deployment]:
    """Return the deployment by default and under `ideal`, with weights that the device multiplies."""
    acc = rs.Accelerator.load(device)
    for dtype in ("auto", "bf16"):
        try:
            return [rs.Deployment(model, acc, weight_dtype=dtype, calibration=c) for c in (None, "ideal")]
        except (rs.SpecError, rs.UnsupportedError):
            continue
    return []


@pytest.mark.parametrize("device", DEVICES)
def test_large_batches_of_mixtures_lie_near_the_roofline(device):
    tried = 0
    for model in MIXTURES:
        found = deployments(model, device)
        if not found:
            continue
        calibrated, ideal = found
        for ask in (
            lambda d: d.decode(batch_size=512, context_tokens=2048),
            lambda d: d.prefill(prompt_tokens=8192),
            lambda d: d.prefill(prompt_tokens=2048, batch_size=8),
        ):
            ratio = ask(calibrated).time_s / ask(ideal).time_s
            assert 1.0 <= ratio <= LARGEST_RATIO, (model.name, ratio)
            tried += 1
    assert tried > 0


@pytest.mark.parametrize("device", DEVICES)
def test_units_of_a_family_that_nobody_measured_do_not_count(device):
    acc = rs.Accelerator.load(device)
    spec = json.loads(acc.to_json())
    if not spec.get("num_compute_units"):
        return
    halved = rs.Accelerator.load(spec | {"num_compute_units": max(1, spec["num_compute_units"] // 2) + 1})
    shapes = {
        "gemm": {"m": 4096, "n": 4096, "k": 4096},
        "grouped_gemm": {"num_tokens": 4096, "num_experts": 8, "experts_per_token": 2, "n": 4096, "k": 4096},
        "attention": {
            "batch_size": 4,
            "query_tokens": 512,
            "context_tokens": 8192,
            "num_heads": 32,
            "num_kv_heads": 8,
            "head_dim": 128,
        },
    }
    times = [[getattr(a, op)(**shape).time_s for op, shape in shapes.items()] for a in (acc, halved)]
    if acc.family in MEASURED_FAMILIES:
        assert times[0] != times[1]
    else:
        assert times[0] == times[1]


@pytest.mark.parametrize("device", DEVICES)
def test_only_switched_links_of_measured_families_reduce_in_the_switch(device):
    acc = rs.Accelerator.load(device)
    link = json.loads(acc.to_json()).get("link")
    law = json.loads(acc.calibration.to_json())["collective"]
    if not link or not law.get("e_switch"):
        return
    plain = acc.with_calibration(acc.calibration.with_constants({"collective.e_switch": 0.0}))
    times = [
        one.collective("all_reduce", num_bytes=2**28, num_devices=link["num_devices"]).time_s for one in (acc, plain)
    ]
    if acc.family in MEASURED_FAMILIES and link["topology"] == "switch" and link["num_devices"] >= 8:
        assert times[0] < times[1]
    else:
        assert times[0] == times[1]
