"""Laws 1 to 5 and 8 of the oracle on generated models, machines, layouts, formats and batches."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import roofsim as rs
from roofsim import testing

UNCHUNKED = [name for name in testing.FAMILIES if name != "llama4"]


def laws() -> st.SearchStrategy[Any]:
    return st.sampled_from(["ideal", "calibrated"]) | testing.calibrations()


@st.composite
def deployments(
    draw: st.DrawFn, *, families: list[str] | None = None, calibrations: st.SearchStrategy[Any] | None = None
) -> dict[str, Any]:
    """Arguments of a deployment."""
    model = draw(testing.models(families))
    return {
        "model": model,
        "accelerator": draw(testing.accelerators()),
        "weight_dtype": draw(testing.weight_dtypes()),
        "kv_cache_dtype": draw(st.sampled_from(["auto", "bf16", "fp8", "int8"])),
        "calibration": draw(laws() if calibrations is None else calibrations),
        **draw(testing.layouts(model)),
    }


# --- law 1 --------------------------------------------------------------------------------------------------------


@given(deployments(), testing.batches(), testing.batches(max_requests=3))
def test_more_requests_never_take_less_time(arguments, requests, more):
    testing.check_monotone(rs.Deployment(**arguments), requests, [*requests, *more])


@given(deployments(families=UNCHUNKED), testing.batches(), st.data())
def test_longer_contexts_never_take_less_time(arguments, requests, data):
    growth = st.integers(0, 3) | st.integers(0, 100_000)
    grown = [(q, s + data.draw(growth)) for q, s in requests]
    testing.check_monotone(rs.Deployment(**arguments), requests, grown)


@given(deployments(), testing.batches(), st.data())
def test_more_query_tokens_never_take_less_time(arguments, requests, data):
    grown = [(min(s, q + data.draw(st.integers(0, 3) | st.integers(0, 5_000))), s) for q, s in requests]
    testing.check_monotone(rs.Deployment(**arguments), requests, grown)


@given(deployments(), st.integers(1, 5_000), st.integers(1, 300_000), st.integers(1, 64))
def test_decode_time_never_falls_with_the_batch(arguments, batch_size, context_tokens, more):
    deployment = rs.Deployment(**arguments)
    small = deployment.decode(batch_size=batch_size, context_tokens=context_tokens)
    assert deployment.decode(batch_size=batch_size + more, context_tokens=context_tokens).time_s >= small.time_s


@given(deployments(), testing.batches(), st.sampled_from(["P", "W", "link"]), st.floats(1.0, 16.0))
def test_a_better_machine_never_takes_more_time(arguments, requests, rate, factor):
    spec = arguments["accelerator"]
    if rate == "P":
        better = spec | {"peak_flops_per_s": {k: v * factor for k, v in spec["peak_flops_per_s"].items()}}
    elif rate == "W":
        better = spec | {"memory_bandwidth_bytes_per_s": spec["memory_bandwidth_bytes_per_s"] * factor}
    else:
        wider = spec["link"]["bandwidth_bytes_per_s"] * factor
        better = spec | {"link": spec["link"] | {"bandwidth_bytes_per_s": wider}}
    before = rs.Deployment(**arguments).step(requests).time_s
    after = rs.Deployment(**arguments | {"accelerator": better}).step(requests).time_s
    assert after <= before, f"{rate} x {factor}: {before!r} s becomes {after!r} s"


# --- law 2 --------------------------------------------------------------------------------------------------------


@given(deployments(), testing.batches())
def test_bounds_of_a_step_and_of_its_operations(arguments, requests):
    step = rs.Deployment(**arguments).step(requests)
    testing.check_bounds(step)
    for op in step.ops:
        testing.check_bounds(op)
    testing.check_step_is_sum_of_ops(step)


@given(deployments(), testing.batches())
def test_calibrated_is_never_below_ideal(arguments, requests):
    testing.check_calibrated_at_least_ideal(
        rs.Deployment(**arguments), rs.Deployment(**arguments | {"calibration": "ideal"}), requests
    )


@given(deployments(), testing.batches())
def test_no_operation_beats_bytes_over_bandwidth_or_flops_over_peak(arguments, requests):
    spec = arguments["accelerator"]
    bandwidth, best_peak = spec["memory_bandwidth_bytes_per_s"], max(spec["peak_flops_per_s"].values())
    for op in rs.Deployment(**arguments).step(requests).ops:
        assert op.time_s >= op.ideal_s >= op.bytes / bandwidth
        assert op.ideal_s >= op.flops / best_peak
        assert op.mfu <= 1.0 + 1e-12
        assert op.mbu <= 1.0 + 1e-12


@given(
    st.integers(0, 12),
    st.tuples(st.integers(1, 4096), st.integers(1, 4096), st.integers(1, 4096)),
)
def test_an_operation_flips_exactly_at_the_ridge(log_balance, shape):
    # Powers of two: P, W and their reciprocals are exact, so that the ridge is where arithmetic says, to the last FLOP.
    peak, bandwidth = 2.0 ** (38 + log_balance), 2.0**38
    acc = rs.Accelerator(
        name="ridge",
        memory_bytes=1 << 40,
        memory_bandwidth_bytes_per_s=bandwidth,
        peak_flops_per_s={"bf16": peak},
    ).with_calibration("ideal")
    m, n, k = shape
    cost = acc.gemm(m=m, n=n, k=k)
    flops, moved = 2 * m * n * k, 2 * (m * k + n * k + m * n)
    assert cost.bound == ("compute" if Fraction(flops, moved) > 2**log_balance else "memory")
    assert Fraction(cost.time_s) == max(flops / Fraction(peak), moved / Fraction(bandwidth))


# --- law 3 --------------------------------------------------------------------------------------------------------


@given(deployments(calibrations=st.just("ideal")), testing.batches(), testing.batches())
def test_ideal_is_subadditive(arguments, one, other):
    testing.check_subadditive(rs.Deployment(**arguments), one, other)


@given(deployments(calibrations=st.just("calibrated")), testing.batches(), testing.batches())
def test_calibrated_is_subadditive_within_two_percent(arguments, one, other):
    testing.check_subadditive(rs.Deployment(**arguments), one, other, tolerance=0.02)


@pytest.mark.parametrize("model", ["qwen2.5-0.5b", "llama-3.1-8b", "qwen3-30b-a3b"])
def test_mixed_steps_on_an_h100_are_subadditive_within_two_percent(model):
    deployment = rs.Deployment(model, "h100-sxm")
    testing.check_subadditive(deployment, [(64, 170_000)], [(7862, 7883)] * 4, tolerance=0.02)


@given(deployments(), testing.batches(), testing.batches())
def test_weights_are_shared(arguments, one, other):
    deployment = rs.Deployment(**arguments)
    together = deployment.step([*one, *other])
    apart = [deployment.step(one), deployment.step(other)]
    assert together.bytes <= sum(cost.bytes for cost in apart) * (1 + 1e-12)
    assert together.flops == pytest.approx(sum(cost.flops for cost in apart), rel=1e-12)


# --- law 4 --------------------------------------------------------------------------------------------------------


@given(st.data(), testing.accelerators(zero_latency=True), testing.batches(), st.floats(1 / 64, 64))
def test_ideal_time_scales_with_the_machine(data, spec, requests, factor):
    model = data.draw(testing.models())
    arguments = {"calibration": "ideal", **data.draw(testing.layouts(model))}
    assume(max(spec["peak_flops_per_s"].values()) * factor <= 1e18)  # beyond that a spec is refused
    scaled = spec | {
        "peak_flops_per_s": {k: v * factor for k, v in spec["peak_flops_per_s"].items()},
        "memory_bandwidth_bytes_per_s": spec["memory_bandwidth_bytes_per_s"] * factor,
        "link": spec["link"] | {"bandwidth_bytes_per_s": spec["link"]["bandwidth_bytes_per_s"] * factor},
    }
    before = rs.Deployment(model, spec, **arguments).step(requests)
    after = rs.Deployment(model, scaled, **arguments).step(requests)
    assert after.time_s * factor == pytest.approx(before.time_s, rel=1e-12)
    assert (after.flops, after.bytes) == (before.flops, before.bytes)


# --- law 5 --------------------------------------------------------------------------------------------------------


@given(
    deployments(families=[name for name in testing.FAMILIES if name != "deepseek"]),
    st.lists(st.integers(1, 3_000), min_size=1, max_size=6),
    st.integers(0, 20_000),
)
def test_chunked_prefill_does_the_score_and_value_flops_of_whole_prefill(arguments, chunks, cached):
    deployment = rs.Deployment(**arguments)

    def scores(query, context):
        step = deployment.step([(query, context)])
        return sum(int(op.count * op.flops) for op in step.ops if op.name == "attention")

    ends = [cached + sum(chunks[: i + 1]) for i in range(len(chunks))]
    assert sum(map(scores, chunks, ends)) == scores(sum(chunks), ends[-1])


FIELDS = ["time_s", "time_low_s", "time_high_s", "ideal_s", "compute_s", "memory_s", "network_s", "overhead_s"]
FIELDS += ["flops", "bytes", "bound", "mfu", "mbu", "arithmetic_intensity"]


@given(deployments(), st.integers(1, 200), st.integers(1, 200_000))
def test_a_batch_of_decodes_is_the_flat_batch_of_the_same_rows(arguments, batch_size, context_tokens):
    deployment = rs.Deployment(**arguments)
    batch = deployment.decode(batch_size=batch_size, context_tokens=context_tokens)
    flat = deployment.step([(1, context_tokens)] * batch_size)
    for field in FIELDS:
        assert getattr(batch, field) == getattr(flat, field), field


@given(deployments(), testing.batches(), st.randoms(use_true_random=False))
def test_the_order_of_requests_does_not_matter(arguments, requests, random):
    deployment = rs.Deployment(**arguments)
    shuffled = random.sample(requests, len(requests))
    one, other = deployment.step(requests), deployment.step(shuffled)
    assert other.time_s == pytest.approx(one.time_s, rel=1e-12)
    assert (other.flops, other.bytes) == pytest.approx((one.flops, one.bytes), rel=1e-12)


# --- law 8 --------------------------------------------------------------------------------------------------------

# Weight-only formats (int4, mxfp4) keep 16-bit activations: they are compared with 16-bit formats only.
NARROWER = [("bf16", x) for x in ("fp8", "fp8-channel", "fp8-block", "int8", "int4", "int4-g32", "mxfp4", "nvfp4")]
NARROWER += [("fp8", "nvfp4"), ("int8", "nvfp4"), ("fp32", "bf16"), ("fp32", "fp16")]


@pytest.mark.parametrize(("wide", "narrow"), NARROWER)
@given(deployments(calibrations=st.just("ideal")), testing.batches())
def test_narrower_weights_never_add_bytes_or_time(wide, narrow, arguments, requests):
    slow = rs.Deployment(**arguments | {"weight_dtype": wide}).step(requests)
    fast = rs.Deployment(**arguments | {"weight_dtype": narrow}).step(requests)
    assert fast.bytes <= slow.bytes
    assert fast.time_s <= slow.time_s
    assert fast.flops == slow.flops


@given(deployments(), testing.batches())
def test_narrower_kv_never_adds_bytes_or_time(arguments, requests):
    slow = rs.Deployment(**arguments | {"kv_cache_dtype": "bf16"}).step(requests)
    for narrow in ("fp8", "int8"):
        fast = rs.Deployment(**arguments | {"kv_cache_dtype": narrow}).step(requests)
        assert fast.bytes < slow.bytes
        assert fast.time_s <= slow.time_s
        assert fast.flops == slow.flops


# --- single operations --------------------------------------------------------------------------------------------

SIZES = st.integers(1, 64) | st.integers(1, 20_000)


@given(testing.accelerators(), laws(), SIZES, SIZES, SIZES, st.sampled_from(["bf16", "fp16", "fp8", "int8", "fp32"]))
def test_gemm_is_monotone_in_every_size(spec, calibration, m, n, k, dtype):
    acc = rs.Accelerator(**spec).with_calibration(calibration)
    base = acc.gemm(m=m, n=n, k=k, dtype=dtype)
    testing.check_bounds(base)
    for grown in ({"m": m + 1}, {"n": n + 1}, {"k": k + 1}, {"m": 2 * m}, {"n": 2 * n}, {"k": 2 * k}):
        larger = acc.gemm(**{"m": m, "n": n, "k": k, "dtype": dtype} | grown)
        assert larger.time_s >= base.time_s, (grown, base.time_s, larger.time_s)


@given(
    testing.accelerators(),
    laws(),
    st.integers(1, 3_000),
    st.integers(1, 256),
    st.integers(1, 8),
    st.integers(1, 4096),
    st.integers(1, 4096),
)
def test_grouped_gemm_is_monotone_in_tokens_and_experts_per_token(spec, calibration, tokens, experts, k_of, n, k):
    acc = rs.Accelerator(**spec).with_calibration(calibration)
    shape = {
        "num_tokens": tokens,
        "num_experts": experts,
        "experts_per_token": min(k_of, experts),
        "n": n,
        "k": k,
    }
    base = acc.grouped_gemm(**shape)
    testing.check_bounds(base)
    assert base.flops == 2 * tokens * min(k_of, experts) * n * k
    grown = [{"num_tokens": tokens + 1}, {"num_tokens": 2 * tokens}, {"k": k + 1}]
    if shape["experts_per_token"] < experts:
        grown.append({"experts_per_token": shape["experts_per_token"] + 1})
    for change in grown:
        larger = acc.grouped_gemm(**shape | change)
        assert larger.time_s >= base.time_s, (change, base.time_s, larger.time_s)


def test_grouped_gemm_is_monotone_in_its_width():
    acc = rs.Accelerator.load("h100-sxm")
    shape = {"num_tokens": 1, "num_experts": 8, "experts_per_token": 1, "k": 8192}
    narrow, wide = (acc.grouped_gemm(**shape, n=n).time_s for n in (128, 129))
    assert wide >= narrow


@given(
    testing.accelerators(),
    laws(),
    st.integers(1, 64),
    st.integers(1, 5_000),
    st.integers(0, 100_000),
    st.sampled_from([(1, 1), (8, 1), (8, 8), (32, 8), (56, 8)]),
    st.sampled_from([32, 64, 80, 128, 256]),
    st.none() | st.integers(1, 10_000),
)
def test_attention_is_monotone_in_every_size(spec, calibration, batch, query, cached, heads, head_dim, window):
    acc = rs.Accelerator(**spec).with_calibration(calibration)
    shape = {
        "batch_size": batch,
        "query_tokens": query,
        "context_tokens": query + cached,
        "num_heads": heads[0],
        "num_kv_heads": heads[1],
        "head_dim": head_dim,
        "sliding_window": window,
    }
    base = acc.attention(**shape)
    testing.check_bounds(base)
    grown = [{"batch_size": batch + 1}, {"context_tokens": query + cached + 1}, {"head_dim": head_dim + 8}]
    grown += [{"query_tokens": query + 1}] if cached else []
    grown += [{"sliding_window": window + 1}, {"sliding_window": None}] if window else []
    for change in grown:
        larger = acc.attention(**shape | change)
        assert larger.time_s >= base.time_s, (change, base.time_s, larger.time_s)


@given(
    testing.accelerators(),
    laws(),
    st.sampled_from(["all_reduce", "all_gather", "reduce_scatter", "all_to_all", "point_to_point"]),
    st.integers(2, 128),
    st.integers(1, 10**9),
)
def test_collectives_are_monotone_in_bytes(spec, calibration, kind, devices, size):
    acc = rs.Accelerator(**spec).with_calibration(calibration)
    base = acc.collective(kind, num_bytes=size, num_devices=devices)
    testing.check_bounds(base)
    for more in (size + 1, 2 * size):
        assert acc.collective(kind, num_bytes=more, num_devices=devices).time_s >= base.time_s
    assert math.isfinite(base.time_s)


@given(
    laws(),
    st.sampled_from(["h100-sxm", "l40s", "gb200"]),
    st.sampled_from(["all_reduce", "all_gather", "reduce_scatter", "all_to_all"]),
    st.integers(2, 71),
    st.integers(1, 10**9),
)
def test_collectives_are_monotone_in_ranks_and_never_beat_the_ideal(calibration, device, kind, devices, size):
    acc = rs.Accelerator.load(device)
    domain = {"h100-sxm": 8, "l40s": 8, "gb200": 72}[device]
    # Behind one switch: a mesh, and a group that spans nodes, gain links with every rank.
    assume(devices < domain)
    ideal = acc.with_calibration("ideal")
    measured = acc.with_calibration(calibration)
    few, more = (measured.collective(kind, num_bytes=size, num_devices=n) for n in (devices, devices + 1))
    assert more.time_s >= few.time_s * (1 - 1e-12)
    assert few.time_s >= ideal.collective(kind, num_bytes=size, num_devices=devices).time_s
