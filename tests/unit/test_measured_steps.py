"""Whole measured steps beside the core's: fp8 products, fp32 on a CPU, several operand types in one file."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

import roofsim as rs
from roofsim.calibrate.observations import observe
from roofsim.calibrate.steps import joined, measured_model, observe_steps, step_costs
from roofsim.validate import ARCHITECTURES, build_plan
from roofsim.validate.plan_step import FP8_MODELS, step_point
from roofsim.validate.runner import point_row

SIZES = ((1, 1, 2048), (32, 1, 2048), (1, 512, 512))


def rows(dtypes=("bf16", "fp8"), models=("llama-3.1-8b", "qwen3-8b"), layers=4):
    found = []
    for name in models:
        for dtype in dtypes:
            for batch, query, context in SIZES:
                point = step_point(ARCHITECTURES[name], layers, batch, query, context, sustained=False, dtype=dtype)
                found.append(point_row(point, {"backend": "graph", "median_s": 1e-3 * len(found) + 1e-3}))
    return found


def test_fp8_steps_quantise_the_products_of_layers_alone():
    a = ARCHITECTURES["llama-3.1-8b"]
    wide, narrow = (measured_model(a, a.num_hidden_layers, dtype) for dtype in ("bf16", "fp8"))
    assert wide.num_parameters == narrow.num_parameters
    layers = a.num_hidden_layers * a.layer_bytes()
    saved = wide.weight_bytes() - narrow.weight_bytes()
    assert layers / 2 * 0.999 < saved <= layers / 2  # a byte an element, less a scale a tensor
    assert {shape["dtype"] for shape in rs.Deployment(narrow, "h100-sxm").decode(batch_size=1, context_tokens=9).shapes
            if shape["family"] == "gemm"} == {"fp8", "bf16"}  # fmt: skip


def test_operand_types_are_classes_of_their_own_and_join_again():
    classes = observe_steps(rows())
    assert [one.name for one in classes] == [
        "decode_step.bf16", "prefill_step.bf16", "decode_step.fp8", "prefill_step.fp8",
    ]  # fmt: skip
    h100 = rs.Accelerator.load("h100-sxm")
    decodes = [one for one in classes if one.family == "decode_step"]
    whole = joined(decodes)
    assert len(whole) == sum(map(len, decodes))
    apart = np.concatenate([step_costs(h100, one)["time_s"] for one in decodes])
    assert np.array_equal(step_costs(h100, whole)["time_s"], apart)
    assert (step_costs(h100, decodes[1])["time_s"] < step_costs(h100, decodes[0])["time_s"]).all()


@pytest.mark.parametrize("query", [1, 7])
def test_fp32_steps_are_priced_as_fp32(query):
    point = {"model": "tiny", "dtype": "fp32", "batch_size": 4, "query_tokens": query, "context_tokens": 64}
    row = {"point_id": "a", "family": "step", **point, "backend": "numpy", "median_s": 1e-3, "error": None}
    cpu = rs.Accelerator(name="cpu", memory_bytes=1e9, memory_bandwidth_bytes_per_s=1e10,
                         peak_flops_per_s={"fp32": 1e11}).with_calibration("ideal")  # fmt: skip
    (one,) = observe_steps([row])
    cost = step_costs(cpu, one)
    (model,) = one.models
    assert cost["bytes"][0] >= 4 * (model.num_parameters - 2048 * 256)  # all but the table, of which rows are read
    assert math.isclose(cost["time_s"][0], max(cost["time_s"][0], cost["ideal_s"][0]))


def test_attention_is_quantised_for_narrow_products_unless_the_library_counts_it_with_them():
    models = {name: measured_model(ARCHITECTURES["llama-3.1-8b"], 2, name) for name in ("bf16", "fp8")}

    def quantising(model, calibration):
        step = rs.Deployment(model, "h100-sxm", calibration=calibration).decode(batch_size=8, context_tokens=100)
        return [op for op in step.ops if op.name == "attention_quantise"]

    (op,) = quantising(models["fp8"], "calibrated")
    assert op.count == 2
    launched = json.loads(rs.Accelerator.load("h100-sxm").calibration.to_json())["elementwise"]
    assert op.time_s > launched["launch_s"]
    assert (op.flops, op.bytes) == (0.0, 0.0)
    (bound,) = quantising(models["fp8"], "ideal")
    assert bound.time_s == 0.0
    assert quantising(models["bf16"], "calibrated") == []
    # Published tables time the products of these engines with the kernel that quantises.
    assert quantising(models["fp8"], "h100-sxm-tensorrt-llm") == []


def test_norms_and_activations_write_what_the_products_after_them_read():
    a = ARCHITECTURES["llama-3.1-8b"]
    moved = {}
    for dtype in ("bf16", "fp8"):
        step = rs.Deployment(measured_model(a, 2, dtype), "h100-sxm").decode(batch_size=3, context_tokens=50)
        moved[dtype] = {op.name: op.bytes for op in step.ops}
    assert moved["bf16"]["norm"] == 3 * 8 * a.hidden_size
    assert moved["fp8"]["norm"] == 3 * 7 * a.hidden_size
    assert moved["bf16"]["activation"] == 3 * 6 * a.intermediate_size
    assert moved["fp8"]["activation"] == 3 * 5 * a.intermediate_size
    assert moved["fp8"]["final_norm"] == moved["bf16"]["final_norm"]


def test_the_plan_holds_fp8_steps_of_dense_models_beside_their_bf16_ones():
    steps = [point for point in build_plan("cuda") if point.family == "step"]
    narrow = [point for point in steps if point.params["dtype"] == "fp8"]
    assert {point.params["model"] for point in narrow} == set(FP8_MODELS)
    assert not any(ARCHITECTURES[name].num_experts for name in FP8_MODELS)
    groups = [point.labels["shape_group"] for point in steps]
    assert [g for i, g in enumerate(groups) if i == 0 or groups[i - 1] != g] == list(dict.fromkeys(groups))
    quick = [point for point in build_plan("cuda", quick=True) if point.family == "step"]
    assert {point.params["query_tokens"] == 1 for point in quick if point.params["dtype"] == "fp8"} == {True, False}
    assert {point.point_id for point in quick} <= {point.point_id for point in steps}


def test_latent_points_are_passed_over_by_fits_and_fit_the_memory():
    points = [point for point in build_plan("cuda") if point.family == "latent_attention"]
    assert {point.params["form"] for point in points} == {"absorbed", "expanded"}
    assert all(point.params["query_tokens"] <= point.params["context_tokens"] for point in points)
    assert observe([point_row(point, {"backend": "x", "median_s": 1e-3}) for point in points]) == []
    assert not any(point.family == "latent_attention" for point in build_plan("cuda", quick=True))
