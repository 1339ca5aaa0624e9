"""Names, signatures and attributes that outside scripts rely on."""

from __future__ import annotations

import inspect
import pickle
from typing import Any

import numpy as np
import pytest

import roofsim as rs

EMPTY = inspect.Parameter.empty


def signature(function: Any) -> dict[str, Any]:
    return {
        name: parameter.default
        for name, parameter in inspect.signature(function).parameters.items()
        if name not in ("self", "cls", "_cls")
    }


@pytest.fixture(scope="module")
def model() -> rs.Model:
    return rs.Model.load("llama-3.1-8b")


@pytest.fixture(scope="module")
def acc() -> rs.Accelerator:
    return rs.Accelerator.load("h100-sxm")


@pytest.fixture(scope="module")
def dep(model: rs.Model, acc: rs.Accelerator) -> rs.Deployment:
    return rs.Deployment(model, acc)


# --- model ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", ["llama-3.1-70b", "meta-llama/Llama-3.1-70B"])
def test_model_load_by_name(source):
    assert rs.Model.load(source).num_parameters == 70_553_706_496


def test_model_load_by_path_directory_and_dict(tmp_path):
    text = (
        '{"architectures": ["LlamaForCausalLM"], "hidden_size": 4096, "num_hidden_layers": 32, "vocab_size": 128256,'
        ' "num_attention_heads": 32, "num_key_value_heads": 8, "intermediate_size": 14336}'
    )
    (tmp_path / "config.json").write_text(text)
    import json

    for source in (tmp_path, str(tmp_path), tmp_path / "config.json", str(tmp_path / "config.json"), json.loads(text)):
        assert rs.Model.load(source).num_parameters == 8_030_261_248


def test_model_attributes(model):
    assert (model.num_parameters, model.num_active_parameters) == (8_030_261_248, 8_030_261_248)
    for value in (model.weight_bytes(), model.kv_bytes_per_token(), model.state_bytes(), model.kv_cache_bytes(7)):
        assert type(value) is int
    assert model.weight_bytes() == 2 * 8_030_261_248
    assert model.kv_bytes_per_token(kv_cache_dtype="fp8") == 65_536
    assert model.kv_cache_bytes(context_tokens=10, kv_cache_dtype="bf16") == 1_310_720
    assert signature(rs.Model.kv_bytes_per_token) == {"kv_cache_dtype": "bf16"}
    assert signature(rs.Model.kv_cache_bytes) == {"context_tokens": EMPTY, "kv_cache_dtype": "bf16"}


# --- accelerator ------------------------------------------------------------------------------------------------

NAMES = ["h100-sxm", "h100-pcie", "h200-sxm", "a100-sxm-80gb", "b200-sxm", "gb200", "l40s", "mi300x", "tpu-v5e"]


@pytest.mark.parametrize("name", NAMES)
def test_catalogue_names(name):
    assert rs.Accelerator.load(name).name == name


def test_accelerator_by_keywords_and_by_file(tmp_path):
    fields = {
        "name": "tomorrow",
        "memory_bytes": 10**12,
        "memory_bandwidth_bytes_per_s": 2e13,
        "peak_flops_per_s": {"bf16": 5e15},
    }
    acc = rs.Accelerator.load(**fields)
    assert acc == rs.Accelerator.load(fields)
    path = tmp_path / "tomorrow.json"
    path.write_text(acc.to_json())
    assert rs.Accelerator.load(path) == rs.Accelerator.load(str(path)) == acc


OP_SIGNATURES = {
    "gemm": {"m": EMPTY, "n": EMPTY, "k": EMPTY, "dtype": "bf16", "weight_dtype": None},
    "attention": {
        "batch_size": EMPTY,
        "query_tokens": EMPTY,
        "context_tokens": EMPTY,
        "num_heads": EMPTY,
        "num_kv_heads": EMPTY,
        "head_dim": EMPTY,
        "v_head_dim": None,
        "dtype": "bf16",
        "kv_cache_dtype": "bf16",
        "sliding_window": None,
    },
    "grouped_gemm": {
        "num_tokens": EMPTY,
        "num_experts": EMPTY,
        "experts_per_token": EMPTY,
        "n": EMPTY,
        "k": EMPTY,
        "dtype": "bf16",
        "active_experts": None,
    },
    "elementwise": {"read_bytes": EMPTY, "write_bytes": EMPTY},
    "collective": {"kind": EMPTY, "num_bytes": EMPTY, "num_devices": EMPTY},
}


@pytest.mark.parametrize("name", OP_SIGNATURES)
def test_operations_have_the_agreed_arguments(name):
    found = signature(getattr(rs.Accelerator, name))
    for argument, default in OP_SIGNATURES[name].items():
        assert found[argument] == default, argument
    extra = set(found) - set(OP_SIGNATURES[name])
    assert all(found[argument] is None for argument in extra)


COST = ["time_s", "time_low_s", "time_high_s", "compute_s", "memory_s", "network_s", "overhead_s", "flops", "bytes"]
COST += ["arithmetic_intensity", "mfu", "mbu"]


def operations(acc: rs.Accelerator) -> dict[str, rs.OpCost]:
    return {
        "gemm": acc.gemm(m=8, n=64, k=32),
        "attention": acc.attention(
            batch_size=2, query_tokens=1, context_tokens=99, num_heads=8, num_kv_heads=2, head_dim=64
        ),
        "grouped_gemm": acc.grouped_gemm(num_tokens=4, num_experts=8, experts_per_token=2, n=64, k=32),
        "elementwise": acc.elementwise(read_bytes=1000, write_bytes=500),
        "collective": acc.collective("all_reduce", num_bytes=1 << 20, num_devices=8),
    }


def check_cost(cost: Any) -> None:
    for name in COST:
        assert type(getattr(cost, name)) is float, name
    assert cost.bound in ("compute", "memory", "network", "overhead")


def test_operations_return_costs(acc):
    for name, cost in operations(acc).items():
        assert isinstance(cost, rs.OpCost)
        assert cost.name == name
        check_cost(cost)
    assert operations(acc)["grouped_gemm"].flops == 2 * 4 * 2 * 64 * 32


@pytest.mark.parametrize("calibration", ["ideal", "calibrated", "object", "file", "mapping"])
def test_with_calibration(acc, calibration, tmp_path):
    import json

    text = acc.calibration.to_json()
    path = tmp_path / "mine.json"
    path.write_text(text)
    sources = {"object": acc.calibration, "file": str(path), "mapping": json.loads(text)}
    other = acc.with_calibration(sources.get(calibration, calibration))
    assert isinstance(other, rs.Accelerator)
    assert (other == acc) == (calibration != "ideal")


# --- deployment -------------------------------------------------------------------------------------------------

DEPLOYMENT: dict[str, Any] = {
    "tensor_parallel_size": 1,
    "pipeline_parallel_size": 1,
    "data_parallel_size": 1,
    "expert_parallel_size": 1,
    "weight_dtype": "auto",
    "kv_cache_dtype": "auto",
    "calibration": None,
    "engine": "ideal",
}
CAPACITY: dict[str, Any] = {
    "mode": "ideal",
    "gpu_memory_utilization": 0.9,
    "block_size": 16,
    "max_num_batched_tokens": 8192,
    "max_num_seqs": 1024,
}


def test_deployment_arguments_and_their_defaults(model, acc, dep):
    assert list(signature(rs.Deployment)) == ["model", "accelerator", *DEPLOYMENT]
    spelled = rs.Deployment(model, acc, **DEPLOYMENT)
    assert spelled.decode(batch_size=3, context_tokens=9).time_s == dep.decode(batch_size=3, context_tokens=9).time_s
    assert spelled.num_devices == 1


def test_the_accelerators_calibration_is_inherited(model, acc):
    ideal = rs.Deployment(model, acc.with_calibration("ideal"))
    assert ideal.calibration.name == "ideal"
    assert rs.Deployment(model, acc.with_calibration("ideal"), calibration="calibrated").calibration == acc.calibration


def test_steps(dep):
    step = dep.step([(1, 100), (7, 9)])
    assert isinstance(step, rs.StepCost)
    check_cost(step)
    assert {"batch_size", "context_tokens"} == set(signature(rs.Deployment.decode))
    assert list(signature(rs.Deployment.prefill)) == ["prompt_tokens", "batch_size", "cached_tokens"]
    chunk = dep.prefill(prompt_tokens=100, cached_tokens=60)
    assert chunk.time_s == dep.step([(40, 100)]).time_s
    names = [op.name for op in step.ops]
    assert {"qkv_proj", "o_proj", "gate_up_proj", "down_proj", "attention", "lm_head"} <= set(names)
    for op in step.ops:
        check_cost(op)
        assert op.count >= 1


def test_capacity(dep):
    assert list(signature(rs.Deployment.capacity)) == list(CAPACITY)
    found, spelled = dep.capacity(), dep.capacity(**CAPACITY)
    names = ["weight_bytes", "activation_bytes", "overhead_bytes", "kv_cache_bytes", "bytes_per_block", "num_blocks"]
    for name in [*names, "kv_tokens"]:
        assert type(getattr(found, name)) is int
        assert getattr(found, name) == getattr(spelled, name)
    assert (found.fits, found.reason) == (True, "")
    assert type(found.max_sequences(context_tokens=4096)) is int
    assert isinstance(dep.capacity("runtime"), rs.Capacity)


# --- sweep ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def space() -> rs.SweepSpace:
    return rs.SweepSpace(
        models=["llama-3.1-8b"],
        accelerators=["h100-sxm"],
        tensor_parallel_size=[1, 2, 4, 8],
        weight_dtype=["bf16", "fp8"],
        kv_cache_dtype=["auto", "fp8"],
        batch_size=range(1, 5),
        context_tokens=range(256, 1025, 256),
        query_tokens=[1],
    )


def test_every_argument_of_deployment_and_capacity_is_an_axis():
    scalars = {**DEPLOYMENT, **CAPACITY}
    scalars["capacity_mode"] = scalars.pop("mode")
    space = rs.SweepSpace(models=["llama-3.1-8b"], accelerators=["h100-sxm"], **scalars)
    lists = rs.SweepSpace(models=["llama-3.1-8b"], accelerators=["h100-sxm"], **{k: [v, v] for k, v in scalars.items()})
    assert (len(space), len(lists)) == (1, 2 ** len(scalars))


def test_space(space):
    assert space.num_configurations == len(space) == 4 * 2 * 2 * 4 * 4
    assert space[5]["batch_size"] == 2
    columns = space.run(columns=["time_s", "bound", "tokens_per_s_per_gpu", "fits", "status"])
    assert list(columns) == ["time_s", "bound", "tokens_per_s_per_gpu", "fits", "status"]
    assert all(isinstance(columns[name], np.ma.MaskedArray) for name in columns)
    assert columns["time_s"].dtype == np.float64
    assert columns["fits"].dtype == np.bool_
    best = space.top_k(100, by="tokens_per_s_per_gpu", where=["time_s <= 0.03", "fits"])
    assert isinstance(best, rs.TopK)
    assert 1 <= len(best) <= 100
    front = space.pareto(["tokens_per_s_per_gpu", "tokens_per_s_per_user"], where=["fits"])
    assert isinstance(front, rs.Front)
    assert len(front) >= 1


def test_columns_are_an_arrow_stream(space):
    capsule = space.run().__arrow_c_stream__()
    assert type(capsule).__name__ == "PyCapsule"
    assert "arrow_array_stream" in repr(capsule)


# --- plan and errors --------------------------------------------------------------------------------------------


def test_plan():
    wanted = ["model", "accelerators", "input_tokens", "output_tokens", "ttft_s", "tpot_s", "objective", "max_devices"]
    wanted += ["max_num_batched_tokens", "weight_dtypes", "prices"]
    found = signature(rs.plan)
    assert [name for name in found if name in wanted] == wanted
    assert found["objective"] == "usd_per_mtok"
    assert (found["max_devices"], found["max_num_batched_tokens"]) == (8, 8192)
    assert (found["weight_dtypes"], found["prices"]) == (None, None)
    answer = rs.plan("llama-3.1-8b", accelerators=["h100-sxm"], input_tokens=1000, output_tokens=100, tpot_s=0.05)
    assert {"ttft_s", "tpot_s", "itl_max_s", "usd_per_mtok", "price_kind", "batch_size"} <= set(answer.best)


def test_errors():
    assert issubclass(rs.SpecError, (rs.RoofsimError))
    assert issubclass(rs.SpecError, ValueError)
    assert issubclass(rs.UnsupportedError, rs.RoofsimError)
    assert issubclass(rs.CountOverflowError, rs.RoofsimError)
    assert issubclass(rs.CountOverflowError, OverflowError)
    assert issubclass(rs.ValidationUnavailableError, rs.RoofsimError)


def test_an_unknown_architecture_is_refused_with_the_nearest_known_ones():
    with pytest.raises(rs.UnsupportedError, match="LlamaForCausalLM") as caught:
        rs.Model.load({"architectures": ["LlamaForCausalLMM"], "hidden_size": 8})
    assert caught.value.field == "architectures[0]"
    assert caught.value.value == "LlamaForCausalLMM"


def test_objects_pickle(model, acc):
    for thing in (model, acc, acc.calibration):
        assert pickle.loads(pickle.dumps(thing)) == thing  # noqa: S301 - our own bytes


@pytest.mark.parametrize("settings", [{}, {"weight_dtype": "int4", "kv_cache_dtype": "fp8", "calibration": "ideal"}])
def test_deployments_pickle(model, acc, settings):
    deployment = rs.Deployment(model, acc, tensor_parallel_size=2, engine="vllm", **settings)
    copy = pickle.loads(pickle.dumps(deployment))  # noqa: S301 - our own bytes
    assert repr(copy) == repr(deployment)
    here, there = (one.decode(batch_size=7, context_tokens=1000) for one in (deployment, copy))
    assert (here.time_s, here.time_high_s, here.bytes) == (there.time_s, there.time_high_s, there.bytes)
    assert copy.capacity("runtime").num_blocks == deployment.capacity("runtime").num_blocks
