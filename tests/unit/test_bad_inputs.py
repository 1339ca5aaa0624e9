"""Bad inputs through the Python face: the right exception, with field, value and rule. Nothing leaks out."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pytest

import roofsim as rs

if TYPE_CHECKING:
    from collections.abc import Callable

DEVICE = "h100-sxm"
LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 512,
    "num_hidden_layers": 2,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "intermediate_size": 1024,
    "vocab_size": 1000,
}
SPEC = {
    "name": "box",
    "memory_bytes": 10**10,
    "memory_bandwidth_bytes_per_s": 1e12,
    "peak_flops_per_s": {"bf16": 1e14},
}


def dep(**arguments: Any) -> rs.Deployment:
    return rs.Deployment(LLAMA, DEVICE, **arguments)


def acc() -> rs.Accelerator:
    return rs.Accelerator.load(DEVICE)


def attention(**changes: Any) -> rs.OpCost:
    shape = {"batch_size": 1, "query_tokens": 1, "context_tokens": 8, "num_heads": 8, "num_kv_heads": 2, "head_dim": 64}
    return acc().attention(**shape | changes)


def grouped(**changes: Any) -> rs.OpCost:
    return acc().grouped_gemm(**{"num_tokens": 4, "num_experts": 8, "experts_per_token": 2, "n": 64, "k": 64} | changes)


def gemm(**changes: Any) -> rs.OpCost:
    return acc().gemm(**{"m": 1, "n": 1, "k": 1} | changes)


def space(**axes: Any) -> rs.SweepSpace:
    return rs.SweepSpace(**{"models": LLAMA, "accelerators": DEVICE} | axes)


def plan(**changes: Any) -> rs.Plan:
    return rs.plan(**{"model": LLAMA, "accelerators": DEVICE, "input_tokens": 100, "output_tokens": 100} | changes)


def calibration(**changes: Any) -> rs.Calibration:
    return rs.Calibration.load(json.loads(acc().calibration.to_json()) | changes)


# --- counts: everything that is no whole number in range is refused by name -------------------------------------

COUNTS: dict[str, Callable[[Any], object]] = {
    "tensor_parallel_size": lambda x: dep(tensor_parallel_size=x),
    "pipeline_parallel_size": lambda x: dep(pipeline_parallel_size=x),
    "data_parallel_size": lambda x: dep(data_parallel_size=x),
    "expert_parallel_size": lambda x: dep(expert_parallel_size=x),
    "batch_size": lambda x: dep().decode(batch_size=x, context_tokens=9),
    "context_tokens": lambda x: dep().capacity().max_sequences(x),
    "prompt_tokens": lambda x: dep().prefill(prompt_tokens=x),
    "query_tokens": lambda x: dep().step([(x, 9)]),
    "block_size": lambda x: dep().capacity(block_size=x),
    "max_num_batched_tokens": lambda x: dep().capacity(max_num_batched_tokens=x),
    "max_num_seqs": lambda x: dep().capacity(max_num_seqs=x),
    "m": lambda x: gemm(m=x),
    "n": lambda x: gemm(n=x),
    "k": lambda x: gemm(k=x),
    "num_heads": lambda x: attention(num_heads=x),
    "num_kv_heads": lambda x: attention(num_kv_heads=x),
    "head_dim": lambda x: attention(head_dim=x),
    "v_head_dim": lambda x: attention(v_head_dim=x),
    "sliding_window": lambda x: attention(sliding_window=x),
    "num_tokens": lambda x: grouped(num_tokens=x),
    "num_experts": lambda x: grouped(num_experts=x),
    "experts_per_token": lambda x: grouped(experts_per_token=x),
    "active_experts": lambda x: grouped(active_experts=x),
    "num_devices": lambda x: acc().collective("all_reduce", num_bytes=1, num_devices=x),
    "input_tokens": lambda x: plan(input_tokens=x),
    "output_tokens": lambda x: plan(output_tokens=x),
    "max_devices": lambda x: plan(max_devices=x),
}
NO_COUNTS = [True, False, 1.0, 1.5, "1", b"1", -1, 0, 2**64, math.nan, math.inf, [1, 2], np.float64(1.0), np.True_, 1j]


@pytest.mark.parametrize("value", NO_COUNTS, ids=repr)
@pytest.mark.parametrize("field", COUNTS)
def test_counts(field, value):
    with pytest.raises(rs.SpecError) as caught:
        COUNTS[field](value)
    assert caught.value.field == field
    assert caught.value.value in (repr(value), str(value))
    assert caught.value.rule


AXES = ["tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size", "expert_parallel_size", "block_size"]
AXES += ["max_num_batched_tokens", "max_num_seqs", "batch_size", "context_tokens", "query_tokens"]


@pytest.mark.parametrize("value", [x for x in NO_COUNTS if not isinstance(x, (list, bytes))], ids=repr)
@pytest.mark.parametrize("axis", AXES)
def test_counts_in_axes(axis, value):
    for given in (value, [1, value]):
        with pytest.raises(rs.SpecError) as caught:
            space(**{axis: given})
        assert caught.value.field == axis


@pytest.mark.parametrize("value", [np.int8(2), np.int64(2), np.uint64(2), np.array(2), np.array([2])[0]], ids=repr)
def test_numpy_integers_are_counts(value):
    one = dep(tensor_parallel_size=value).decode(batch_size=value, context_tokens=value)
    assert one.time_s == dep(tensor_parallel_size=2).decode(batch_size=2, context_tokens=2).time_s
    assert dep().step([(value, value)]).time_s == dep().step([(2, 2)]).time_s
    assert gemm(m=value).time_s == gemm(m=2).time_s
    assert space(batch_size=[value])[0]["batch_size"] == 2
    assert len(space(batch_size=np.arange(1, 4))) == 3


# --- everything else, one by one --------------------------------------------------------------------------------


class Bad(NamedTuple):
    call: Callable[[], object]
    field: str
    value: str | None = None
    error: type[rs.RoofsimError] = rs.SpecError


def calls(**bad: Bad) -> dict[str, Bad]:
    return bad


BAD = calls(
    query_beyond_context=Bad(lambda: dep().step([(10, 9)]), "query_tokens", "10"),
    context_too_long=Bad(lambda: dep().decode(batch_size=1, context_tokens=2**30 + 1), "context_tokens", "1073741825"),
    batch_too_large=Bad(lambda: dep().decode(batch_size=2**30 + 1, context_tokens=1), "batch_size"),
    too_many_rows=Bad(lambda: dep().prefill(prompt_tokens=2**20, batch_size=2**20), "query_tokens"),
    too_many_rows_in_a_list=Bad(lambda: dep().step([(2**29, 2**29)] * 3), "query_tokens"),
    all_cached=Bad(lambda: dep().prefill(prompt_tokens=9, cached_tokens=9), "cached_tokens", "9"),
    negative_cached=Bad(lambda: dep().prefill(prompt_tokens=9, cached_tokens=-1), "cached_tokens", "-1"),
    no_requests=Bad(lambda: dep().step([]), "requests"),
    requests_none=Bad(lambda: dep().step(None), "requests", "None"),
    requests_number=Bad(lambda: dep().step(5), "requests", "5"),
    requests_text=Bad(lambda: dep().step("12"), "requests"),
    requests_triples=Bad(lambda: dep().step([(1, 2, 3)]), "requests", "(1, 2, 3)"),
    requests_flat=Bad(lambda: dep().step([1, 2]), "requests", "1"),
    utilisation_zero=Bad(lambda: dep().capacity(gpu_memory_utilization=0.0), "gpu_memory_utilization", "0"),
    utilisation_above_one=Bad(lambda: dep().capacity(gpu_memory_utilization=1.01), "gpu_memory_utilization", "1.01"),
    utilisation_negative=Bad(lambda: dep().capacity(gpu_memory_utilization=-0.5), "gpu_memory_utilization", "-0.5"),
    utilisation_nan=Bad(lambda: dep().capacity(gpu_memory_utilization=math.nan), "gpu_memory_utilization", "nan"),
    utilisation_inf=Bad(lambda: dep().capacity(gpu_memory_utilization=math.inf), "gpu_memory_utilization", "inf"),
    utilisation_text=Bad(lambda: dep().capacity(gpu_memory_utilization="0.9"), "gpu_memory_utilization", "'0.9'"),
    utilisation_bool=Bad(lambda: dep().capacity(gpu_memory_utilization=True), "gpu_memory_utilization", "True"),
    utilisation_numpy_bool=Bad(lambda: dep().capacity(gpu_memory_utilization=np.True_), "gpu_memory_utilization"),
    mode=Bad(lambda: dep().capacity("exact"), "mode", "exact"),
    mode_number=Bad(lambda: dep().capacity(5), "mode", "5"),
    heads_not_divisible=Bad(lambda: dep(tensor_parallel_size=3), "tensor_parallel_size", "3"),
    too_many_stages=Bad(lambda: dep(pipeline_parallel_size=3), "pipeline_parallel_size", "3"),
    experts_of_a_dense_model=Bad(lambda: dep(expert_parallel_size=2), "expert_parallel_size", "2"),
    no_such_link=Bad(lambda: rs.Deployment(LLAMA, SPEC, tensor_parallel_size=2), "tensor_parallel_size", "2"),
    unknown_weights=Bad(lambda: dep(weight_dtype="int3"), "weight_dtype", "int3"),
    weights_number=Bad(lambda: dep(weight_dtype=8), "weight_dtype", "8"),
    weights_without_peak=Bad(lambda: rs.Deployment(LLAMA, SPEC, weight_dtype="fp8"), "weight_dtype", "fp8"),
    unknown_kv=Bad(lambda: dep(kv_cache_dtype="int4"), "kv_cache_dtype", "int4"),
    unknown_engine=Bad(lambda: dep(engine="sglang"), "engine", "sglang"),
    engine_none=Bad(lambda: dep(engine=None), "engine", "None"),
    engine_number=Bad(lambda: dep(engine=5), "engine", "5"),
    calibration_unknown=Bad(lambda: dep(calibration="perfect"), "calibration"),
    calibration_number=Bad(lambda: dep(calibration=5), "calibration", "5"),
    model_unknown=Bad(lambda: rs.Model.load("llama-9000"), "model"),
    model_empty=Bad(lambda: rs.Model.load(""), "model"),
    model_none=Bad(lambda: rs.Model.load(None), "model", "None"),
    model_bytes=Bad(lambda: rs.Model.load(b"llama"), "model"),
    model_list=Bad(lambda: rs.Model.load([LLAMA]), "model"),
    model_no_file=Bad(lambda: rs.Model.load("./no/such/config.json"), "model"),
    model_no_layers=Bad(lambda: rs.Model.load(LLAMA | {"num_hidden_layers": 0}), "num_hidden_layers", "0"),
    model_negative=Bad(lambda: rs.Model.load(LLAMA | {"hidden_size": -1}), "hidden_size", "-1"),
    model_fraction=Bad(lambda: rs.Model.load(LLAMA | {"vocab_size": 1.5}), "vocab_size", "1.5"),
    model_text=Bad(lambda: rs.Model.load(LLAMA | {"vocab_size": "1000"}), "vocab_size"),
    model_nan=Bad(lambda: rs.Model.load(LLAMA | {"hidden_size": math.nan}), "hidden_size", "NaN"),
    model_huge=Bad(lambda: rs.Model.load(LLAMA | {"intermediate_size": 2**64}), "intermediate_size"),
    model_kv_heads=Bad(lambda: rs.Model.load(LLAMA | {"num_key_value_heads": 3}), "num_key_value_heads", "3"),
    model_class=Bad(
        lambda: rs.Model.load(LLAMA | {"architectures": ["Nobody"]}), "architectures[0]", "Nobody", rs.UnsupportedError
    ),
    model_no_class=Bad(lambda: rs.Model.load({}), "architectures"),
    kv_dtype=Bad(lambda: rs.Model.load(LLAMA).kv_bytes_per_token("int4"), "kv_cache_dtype", "int4"),
    kv_dtype_number=Bad(lambda: rs.Model.load(LLAMA).kv_bytes_per_token(16), "kv_cache_dtype", "16"),
    cache_negative=Bad(lambda: rs.Model.load(LLAMA).kv_cache_bytes(-1), "context_tokens", "-1"),
    cache_beyond=Bad(lambda: rs.Model.load(LLAMA).kv_cache_bytes(2**64), "context_tokens"),
    cache_overflow=Bad(
        lambda: rs.Model.load(LLAMA).kv_cache_bytes(2**63), "kv_cache_bytes", None, rs.CountOverflowError
    ),
    acc_unknown=Bad(lambda: rs.Accelerator.load("h9000"), "accelerator", "'h9000'"),
    acc_none=Bad(lambda: rs.Accelerator.load(None), "accelerator"),
    acc_number=Bad(lambda: rs.Accelerator.load(5), "accelerator", "5"),
    acc_no_fields=Bad(lambda: rs.Accelerator(), "accelerator"),
    acc_missing=Bad(lambda: rs.Accelerator(name="x"), "memory_bandwidth_bytes_per_s|memory_bytes", "missing"),
    acc_unknown_field=Bad(lambda: rs.Accelerator(**SPEC, flops=1), "flops", "1"),
    acc_zero=Bad(lambda: rs.Accelerator(**SPEC | {"memory_bytes": 0}), "memory_bytes", "0"),
    acc_negative=Bad(
        lambda: rs.Accelerator(**SPEC | {"memory_bandwidth_bytes_per_s": -1e12}), "memory_bandwidth_bytes_per_s"
    ),
    acc_nan=Bad(
        lambda: rs.Accelerator(**SPEC | {"memory_bandwidth_bytes_per_s": math.nan}), "memory_bandwidth_bytes_per_s"
    ),
    acc_inf=Bad(
        lambda: rs.Accelerator(**SPEC | {"peak_flops_per_s": {"bf16": math.inf}}), "peak_flops_per_s.bf16", "inf"
    ),
    acc_no_peaks=Bad(lambda: rs.Accelerator(**SPEC | {"peak_flops_per_s": {}}), "peak_flops_per_s"),
    acc_peak_name=Bad(lambda: rs.Accelerator(**SPEC | {"peak_flops_per_s": {"fp7": 1e12}}), "peak_flops_per_s.fp7"),
    acc_units=Bad(lambda: rs.Accelerator(**SPEC, num_compute_units=1.5), "num_compute_units", "1.5"),
    acc_json=Bad(lambda: rs.Accelerator.from_json("{"), "accelerator"),
    acc_json_number=Bad(lambda: rs.Accelerator.from_json(5), "accelerator|text", "5"),
    dtype_without_peak=Bad(
        lambda: rs.Accelerator(**SPEC).gemm(m=1, n=1, k=1, dtype="fp8"), "dtype", "fp8", rs.UnsupportedError
    ),
    dtype_unknown=Bad(lambda: gemm(dtype="fp7"), "dtype", "fp7"),
    dtype_number=Bad(lambda: gemm(dtype=16), "dtype", "16"),
    weight_dtype_unknown=Bad(lambda: gemm(weight_dtype="int3"), "weight_dtype", "int3"),
    weight_dtype_number=Bad(lambda: gemm(weight_dtype=4), "weight_dtype", "4"),
    gemm_too_large=Bad(lambda: gemm(m=2**32 + 1), "m", str(2**32 + 1)),
    gemm_overflow=Bad(lambda: gemm(n=2**32, k=2**32), "gemm", None, rs.CountOverflowError),
    heads_not_shared=Bad(lambda: attention(num_heads=8, num_kv_heads=3), "num_kv_heads", "3"),
    window_zero=Bad(lambda: attention(sliding_window=0), "sliding_window", "0"),
    experts_beyond=Bad(lambda: grouped(experts_per_token=9), "experts_per_token", "9"),
    active_beyond=Bad(lambda: grouped(active_experts=9), "active_experts", "9"),
    bytes_negative=Bad(lambda: acc().elementwise(read_bytes=-1, write_bytes=0), "read_bytes", "-1"),
    bytes_nan=Bad(lambda: acc().elementwise(read_bytes=1, write_bytes=math.nan), "write_bytes", "nan"),
    bytes_text=Bad(lambda: acc().elementwise(read_bytes="1", write_bytes=0), "read_bytes", "'1'"),
    bytes_huge=Bad(lambda: acc().elementwise(read_bytes=1e16, write_bytes=0), "read_bytes"),
    bytes_integer_beyond_float=Bad(lambda: acc().elementwise(read_bytes=10**400, write_bytes=0), "read_bytes"),
    row_elements_zero=Bad(lambda: acc().elementwise(read_bytes=1, write_bytes=0, row_elements=0), "row_elements", "0"),
    row_elements_text=Bad(
        lambda: acc().elementwise(read_bytes=1, write_bytes=0, row_elements="8"), "row_elements", "'8'"
    ),
    cal_reduce_negative=Bad(
        lambda: calibration(elementwise={"law": "launched", "launch_s": 0.0, "e_m": 0.5, "reduce_s": -1.0}),
        "elementwise.reduce_s",
        "-1",
    ),
    collective_kind=Bad(lambda: acc().collective("all_spread", num_bytes=1, num_devices=2), "kind", "all_spread"),
    collective_kind_number=Bad(lambda: acc().collective(5, num_bytes=1, num_devices=2), "kind", "5"),
    collective_alone=Bad(lambda: acc().collective("all_reduce", num_bytes=1, num_devices=1), "num_devices", "1"),
    collective_inf=Bad(lambda: acc().collective("all_reduce", num_bytes=math.inf, num_devices=2), "num_bytes", "inf"),
    collective_no_link=Bad(
        lambda: rs.Accelerator(**SPEC).collective("all_reduce", num_bytes=1, num_devices=2), "num_devices", "2"
    ),
    price_kind=Bad(lambda: acc().usd_per_hour("spot"), "price_kind", "spot"),
    cal_fields=Bad(lambda: rs.Calibration.load({"name": "x"}), "calibration"),
    cal_text=Bad(lambda: rs.Calibration.from_json("nonsense"), "calibration"),
    cal_number=Bad(lambda: rs.Calibration.load(5), "calibration", "5"),
    cal_unknown_field=Bad(lambda: calibration(speed=2), "calibration"),
    cal_too_good=Bad(
        lambda: calibration(elementwise={"law": "launched", "launch_s": 0.0, "e_m": 1.5}), "elementwise.e_m", "1.5"
    ),
    cal_negative=Bad(
        lambda: calibration(elementwise={"law": "launched", "launch_s": -1.0, "e_m": 0.5}), "elementwise.launch_s", "-1"
    ),
    cal_nan=Bad(lambda: calibration(step={"memory_rate": math.nan}), "calibration.step.memory_rate", "nan"),
    cal_name=Bad(lambda: calibration(name=" "), "name"),
    cal_law=Bad(lambda: calibration(collective={"law": "psychic"}), "calibration"),
    axis_unknown=Bad(lambda: space(batch=[1]), "batch", "[1]"),
    axis_empty=Bad(lambda: space(batch_size=[]), "batch_size", "[]"),
    axis_empty_range=Bad(lambda: space(context_tokens=range(5, 5)), "context_tokens", "[]"),
    axis_no_models=Bad(lambda: space(models=[]), "models", "[]"),
    axis_no_devices=Bad(lambda: space(accelerators=[]), "accelerators", "[]"),
    axis_bad_model=Bad(lambda: space(models=[5]), "model", "5"),
    axis_devices_number=Bad(lambda: space(accelerators=5), "accelerators?", "5"),
    axis_devices_none=Bad(lambda: space(accelerators=None), "accelerators?", "None"),
    axis_range_from_zero=Bad(lambda: space(batch_size=range(3)), "batch_size", "0"),
    axis_range_below_zero=Bad(lambda: space(batch_size=range(-3, 3)), "batch_size", "-3"),
    axis_range_beyond=Bad(lambda: space(batch_size=range(1, 2**31)), "batch_size"),
    axis_range_huge=Bad(lambda: space(batch_size=range(1, 2**70)), "batch_size"),
    axis_range_far=Bad(lambda: space(batch_size=range(2**70, 2**70 + 2)), "batch_size"),
    axis_query_text=Bad(lambda: space(query_tokens="many"), "query_tokens", "'many'"),
    axis_utilisation=Bad(lambda: space(gpu_memory_utilization=[0.5, 2.0]), "gpu_memory_utilization", "2"),
    axis_mode=Bad(lambda: space(capacity_mode="exact"), "capacity_mode", "exact"),
    axis_engine=Bad(lambda: space(engine=["ideal", "sglang"]), "engine", "sglang"),
    axis_dtype=Bad(lambda: space(weight_dtype=["bf16", "int3"]), "weight_dtype", "int3"),
    axis_product=Bad(
        lambda: space(**dict.fromkeys(AXES[:4], [1] * 2**16)).top_k(1, by="time_s"),
        "num_configurations",
        None,
        rs.CountOverflowError,
    ),
    space_prices_name=Bad(lambda: space(prices={"b200": 1.0}), "prices", "b200"),
    space_prices_nan=Bad(lambda: space(prices={DEVICE: math.nan}), f"prices.{DEVICE}", "nan"),
    space_prices_number=Bad(lambda: space(prices=5), "prices", "5"),
    run_column_twice=Bad(lambda: space().run(["time_s", "time_s"]), "columns", "time_s"),
    batches_column_twice=Bad(lambda: space().record_batches(["bound", "bound"]), "columns", "bound"),
    run_column=Bad(lambda: space().run(["time"]), "columns", "time"),
    run_no_columns=Bad(lambda: space().run([]), "columns", "[]"),
    run_columns_number=Bad(lambda: space().run(5), "columns", "5"),
    run_column_number=Bad(lambda: space().run([5]), "columns", "5"),
    run_too_large=Bad(lambda: space(context_tokens=range(1, 2**30)).run(), "result_bytes"),
    run_max_bytes=Bad(lambda: space().run(max_bytes=-1), "max_bytes", "-1"),
    run_max_bytes_text=Bad(lambda: space().run(max_bytes="1"), "max_bytes", "'1'"),
    run_threads=Bad(lambda: space().run(num_threads=0), "num_threads", "0"),
    run_threads_float=Bad(lambda: space().run(num_threads=1.5), "num_threads", "1.5"),
    run_progress=Bad(lambda: space().run(progress=5), "progress", "5"),
    top_zero=Bad(lambda: space().top_k(0, by="time_s"), "k", "0"),
    top_float=Bad(lambda: space().top_k(1.5, by="time_s"), "k", "1.5"),
    top_negative=Bad(lambda: space().top_k(-1, by="time_s"), "k", "-1"),
    top_beyond=Bad(lambda: space().top_k(2**64, by="time_s"), "k", str(2**64)),
    top_by=Bad(lambda: space().top_k(1, by="speed"), "by", "speed"),
    top_by_none=Bad(lambda: space().top_k(1, by=None), "by", "None"),
    where_column=Bad(lambda: space().top_k(1, by="time_s", where=["speed > 1"]), "where", "speed"),
    where_value=Bad(lambda: space().top_k(1, by="time_s", where=["time_s > fast"]), "where", "time_s > fast"),
    where_nan=Bad(lambda: space().top_k(1, by="time_s", where=["time_s > nan"]), "where", "time_s > nan"),
    where_bare=Bad(lambda: space().top_k(1, by="time_s", where=["time_s"]), "where", "time_s"),
    where_order=Bad(lambda: space().top_k(1, by="time_s", where=["bound < memory"]), "where", "bound < memory"),
    where_name=Bad(lambda: space().top_k(1, by="time_s", where=["bound == luck"]), "where", "bound == luck"),
    where_number=Bad(lambda: space().top_k(1, by="time_s", where=5), "where", "5"),
    where_numbers=Bad(lambda: space().top_k(1, by="time_s", where=[5]), "where", "5"),
    pareto_one=Bad(lambda: space().pareto(["time_s"]), "objectives"),
    pareto_five=Bad(lambda: space().pareto(["time_s"] * 5), "objectives", "5"),
    pareto_column=Bad(lambda: space().pareto(["time_s", "speed"]), "objectives", "speed"),
    pareto_none=Bad(lambda: space().pareto(None), "objectives", "None"),
    plan_no_devices=Bad(lambda: plan(accelerators=[]), "accelerators", "[]"),
    plan_devices_number=Bad(lambda: plan(accelerators=5), "accelerators?", "5"),
    plan_objective=Bad(lambda: plan(objective="joy"), "objective", "joy"),
    plan_objective_number=Bad(lambda: plan(objective=5), "objective", "5"),
    plan_ttft_zero=Bad(lambda: plan(ttft_s=0.0), "ttft_s", "0"),
    plan_tpot_negative=Bad(lambda: plan(tpot_s=-1.0), "tpot_s", "-1"),
    plan_tpot_nan=Bad(lambda: plan(tpot_s=math.nan), "tpot_s", "nan"),
    plan_tpot_text=Bad(lambda: plan(tpot_s="fast"), "tpot_s", "'fast'"),
    plan_budget=Bad(lambda: plan(max_num_batched_tokens=1), "max_num_batched_tokens", "1"),
    plan_devices=Bad(lambda: plan(max_devices=5000), "max_devices", "5000"),
    plan_formats=Bad(lambda: plan(weight_dtypes=["int3"]), "weight_dtype", "int3"),
    plan_no_formats=Bad(lambda: plan(weight_dtypes=[]), "weight_dtypes?", "[]"),
    plan_no_kv_formats=Bad(lambda: plan(kv_cache_dtypes=[]), "kv_cache_dtypes?", "[]"),
    plan_price_name=Bad(lambda: plan(prices={"x": 1.0}), "prices", "x"),
    plan_price_negative=Bad(lambda: plan(prices={DEVICE: -1.0}), f"prices.{DEVICE}", "-1.0"),
    plan_prices_number=Bad(lambda: plan(prices=5), "prices", "5"),
    plan_price_kind=Bad(lambda: plan(price_kind="spot"), "price_kind", "spot"),
    plan_engine=Bad(lambda: plan(engine=None), "engine", "None"),
    plan_mode=Bad(lambda: plan(capacity_mode=None), "capacity_mode", "None"),
)


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
def test_bad_inputs(bad):
    with pytest.raises(bad.error) as caught:
        bad.call()
    error = caught.value
    assert type(error) is bad.error
    assert re.fullmatch(bad.field.replace("[", r"\[").replace("]", r"\]"), error.field), error
    assert bad.value is None or bad.value in error.value, error
    assert error.rule
    assert str(error) == f"{error.field} = {error.value}: {error.rule}"


def test_there_are_enough():
    assert len(BAD) >= 60


# --- sizes that must neither wrap around nor take the process along ---------------------------------------------


def test_the_largest_operations_do_not_wrap_around():
    # 2^16 heads of 2^16: the integers pass 2^64; a refusal or the right figure, nothing else.
    try:
        cost = attention(query_tokens=2**30, context_tokens=2**30, num_heads=2**16, num_kv_heads=2**16, head_dim=2**16)
    except rs.CountOverflowError:
        return
    assert cost.bytes >= 2.0**30 * 2.0**16 * 2.0**17 * 2


def test_the_largest_grouped_operations_do_not_wrap_around():
    try:
        cost = grouped(num_tokens=2**32, num_experts=2**32, experts_per_token=2**32, n=1, k=1)
    except rs.RoofsimError:
        return
    assert cost.flops == 2.0 * 2.0**64


HUGE = {
    "a range beyond 2^64": "rs.SweepSpace(models=M, accelerators=A, batch_size=range(2**64, 2**65))",
    "a long falling range": "rs.SweepSpace(models=M, accelerators=A, batch_size=range(2**40, 0, -1))",
    "a long range of layouts": "rs.SweepSpace(models=M, accelerators=A, tensor_parallel_size=range(1, 2**40))",
}


@pytest.mark.parametrize("name", HUGE)
def test_huge_axes_are_refused_without_being_listed(name):
    code = (
        "import resource, roofsim as rs\n"
        "resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))\n"
        "M, A = 'llama-3.1-8b', 'h100-sxm'\n"
        f"try:\n    {HUGE[name]}\n"
        "except rs.RoofsimError as error:\n    print('refused', error.field)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.startswith("refused"), done.stderr[-300:]
