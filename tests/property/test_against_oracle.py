"""The core against the independent oracle: integers exactly, times to 1e-12."""

from __future__ import annotations

import itertools
from fractions import Fraction
from math import comb
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import roofsim as rs
from oracle import capacity as oracle_capacity
from oracle import formats, models, ops
from oracle.step import Layout, Step
from roofsim import testing

REL = 1e-12
FORMATS = [None, "bf16", "fp16", "fp8", "fp8-channel", "fp8-block", "int8", "int4", "int4-g32", "mxfp4", "nvfp4"]
KV = ["bf16", "fp16", "fp8", "int8", "fp32"]


def short(layout: dict[str, int]) -> Layout:
    return Layout(*(layout[f"{kind}_parallel_size"] for kind in ("tensor", "pipeline", "data", "expert")))


@st.composite
def cases(draw: st.DrawFn) -> tuple[dict[str, Any], dict[str, int], str | None]:
    config = draw(testing.models())
    return config, draw(testing.layouts(config)), draw(st.sampled_from(FORMATS))


# --- the oracle on itself ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("experts", "per_token", "tokens"), [(4, 1, 3), (4, 2, 3), (5, 3, 2), (6, 2, 2)])
def test_expected_distinct_experts_by_listing_every_routing(experts, per_token, tokens):
    choices = list(itertools.combinations(range(experts), per_token))
    routings = itertools.product(choices, repeat=tokens)
    hit = sum(len({expert for choice in routing for expert in choice}) for routing in routings)
    assert ops.distinct_experts(experts, per_token, tokens) == Fraction(hit, comb(experts, per_token) ** tokens)


# --- models -----------------------------------------------------------------------------------------------------


@given(testing.models(), st.integers(0, 9_000), st.sampled_from(KV))
def test_parameters_and_caches(config, tokens, kv):
    model, judge = rs.Model.load(config), models.describe(config)
    assert model.num_parameters == judge.parameters()
    assert model.num_active_parameters == judge.active_parameters()
    assert model.kv_bytes_per_token(kv) == judge.kv_bytes_per_token(kv)
    assert model.kv_cache_bytes(tokens, kv) == judge.kv_cache_bytes(tokens, kv)
    assert model.state_bytes() == 0


@given(testing.models(), st.sampled_from(FORMATS))
def test_weight_bytes(config, fmt):
    assert rs.Model.load(config).weight_bytes(fmt or "auto") == models.describe(config).weight_bytes(fmt)


# --- single operations ------------------------------------------------------------------------------------------

SIZES = st.integers(1, 40) | st.integers(1, 30_000)
DTYPES = ["bf16", "fp16", "fp8", "int8", "fp32", "fp4"]


def agrees(cost: rs.OpCost, judge: ops.Cost) -> None:
    assert cost.flops == pytest.approx(float(judge.flops), rel=REL)
    assert cost.bytes == pytest.approx(float(judge.bytes), rel=REL)
    assert cost.time_s == pytest.approx(float(judge.time_s), rel=REL)


@given(testing.accelerators(), SIZES, SIZES, SIZES, st.sampled_from(DTYPES), st.sampled_from(FORMATS))
def test_gemm(spec, m, n, k, dtype, fmt):
    acc = rs.Accelerator(**spec).with_calibration("ideal")
    cost = acc.gemm(m=m, n=n, k=k, dtype=dtype, weight_dtype=fmt)
    stored = fmt or {"fp4": "nvfp4"}.get(dtype, dtype)
    flops, moved = ops.gemm(m, n, k, stored, dtype)
    assert (cost.flops, cost.bytes) == (flops, moved)
    agrees(cost, ops.Machine(spec).roof(flops, moved, dtype))


@given(
    testing.accelerators(),
    st.integers(1, 600),
    st.integers(1, 256),
    st.integers(1, 9),
    st.integers(1, 3_000),
    st.integers(1, 3_000),
    st.none() | st.integers(1, 256),
)
def test_grouped_gemm(spec, tokens, experts, per_token, n, k, active):
    per_token = min(per_token, experts)
    active = None if active is None else min(active, experts)
    shape = {"num_tokens": tokens, "num_experts": experts, "experts_per_token": per_token, "n": n, "k": k}
    cost = rs.Accelerator(**spec).with_calibration("ideal").grouped_gemm(**shape, active_experts=active)
    flops, moved = ops.grouped(tokens, experts, per_token, n, k, "bf16", "bf16", active=active)
    assert cost.flops == flops
    agrees(cost, ops.Machine(spec).roof(flops, moved, "bf16"))


@given(
    testing.accelerators(),
    st.integers(1, 64),
    st.integers(1, 3_000),
    st.integers(0, 9_000),
    st.sampled_from([(1, 1), (8, 1), (8, 8), (32, 8), (56, 8)]),
    st.integers(1, 300),
    st.none() | st.integers(1, 300),
    st.none() | st.integers(1, 4_000),
    st.sampled_from(KV),
)
def test_attention(spec, batch, query, cached, heads, h, v, window, kv):
    cost = (
        rs.Accelerator(**spec)
        .with_calibration("ideal")
        .attention(
            batch_size=batch,
            query_tokens=query,
            context_tokens=query + cached,
            num_heads=heads[0],
            num_kv_heads=heads[1],
            head_dim=h,
            v_head_dim=v,
            kv_cache_dtype=kv,
            sliding_window=window,
        )
    )
    flops, moved = ops.attention(query, query + cached, *heads, h, "bf16", kv, window, v=v)
    assert (cost.flops, cost.bytes) == (batch * flops, batch * moved)
    agrees(cost, ops.Machine(spec).roof(batch * flops, batch * moved, "bf16"))


@given(testing.accelerators(), st.integers(0, 10**12), st.integers(0, 10**12))
def test_elementwise(spec, read, write):
    cost = rs.Accelerator(**spec).with_calibration("ideal").elementwise(read_bytes=read, write_bytes=write)
    agrees(cost, ops.Machine(spec).roof(0, read + write, "bf16"))


KINDS = ["all_reduce", "all_gather", "reduce_scatter", "all_to_all", "point_to_point"]


@given(testing.accelerators(), st.sampled_from(KINDS), st.integers(2, 300), st.integers(0, 10**11))
def test_collective(spec, kind, devices, size):
    cost = rs.Accelerator(**spec).with_calibration("ideal").collective(kind, num_bytes=size, num_devices=devices)
    judge = ops.Machine(spec).collective(kind, size, devices)
    assert cost.time_s == pytest.approx(float(judge.time_s), rel=REL)
    assert (cost.flops, cost.bytes) == (0.0, 0.0)


# --- the whole step ---------------------------------------------------------------------------------------------

ADDED = ("clock_slowdown", "experts_dispatch", "attention_quantise")


@given(cases(), testing.accelerators(), testing.batches(max_requests=4, max_query_tokens=600, max_context_tokens=8_000),
       st.sampled_from(KV))  # fmt: skip
def test_every_operation_of_a_step(case, spec, requests, kv):
    config, layout, fmt = case
    judge = Step(models.describe(config), spec, short(layout), fmt, kv).run(requests)
    arguments = {"weight_dtype": fmt, "kv_cache_dtype": kv, "calibration": "ideal", **layout}
    step = rs.Deployment(config, spec, **arguments).step(requests)
    found: dict[str, list[rs.OpCost]] = {}
    for op in step.ops:
        found.setdefault(op.name, []).append(op)
    # What a calibration adds to the sum is listed in the bound too, and takes no time there.
    added = [op for name in ADDED for op in found.pop(name, [])]
    assert all((op.flops, op.bytes, op.time_s) == (0.0, 0.0, 0.0) for op in added)
    assert found.keys() == judge.keys()
    for name, parts in judge.items():
        assert sum(op.count for op in found[name]) == len(parts), name
        for field in ("flops", "bytes", "time_s"):
            ours = sum(op.count * getattr(op, field) for op in found[name])
            theirs = float(sum(getattr(part, field) for part in parts))
            assert ours == pytest.approx(theirs, rel=REL), (name, field)
    total = float(sum(part.time_s for parts in judge.values() for part in parts))
    assert step.time_s == pytest.approx(total, rel=REL)


# --- capacity ---------------------------------------------------------------------------------------------------


@given(cases(), st.integers(10**8, 2 * 10**11), st.integers(1, 5_000), st.sampled_from(KV))
def test_ideal_capacity(case, memory, tokens, kv):
    config, layout, fmt = case
    judge, where = models.describe(config), short(layout)
    capacity = deployment(config, layout, fmt, kv, memory).capacity()
    stages = oracle_capacity.stages(judge, where)
    weights = [oracle_capacity.weight_bytes(judge, where, i, fmt) for i in range(where.pp)]
    assert capacity.weight_bytes in weights
    assert capacity.usable_bytes == int(memory * 0.9)
    assert capacity.overhead_bytes == 0
    spent = capacity.weight_bytes + capacity.activation_bytes
    assert capacity.kv_cache_bytes == max(0, capacity.usable_bytes - spent)
    if where.pp == 1:
        each = oracle_capacity.sequence_bytes(stages[0], where, kv, tokens)
        assert capacity.max_sequences(tokens) == oracle_capacity.fit(capacity.kv_cache_bytes, each)


@given(cases(), st.integers(10**8, 2 * 10**11), st.integers(1, 20_000), st.sampled_from(KV),
       st.sampled_from([1, 8, 16, 32, 100]))  # fmt: skip
def test_runtime_capacity(case, memory, tokens, kv, block_size):
    config, layout, fmt = case
    judge, where = models.describe(config), short(layout)
    capacity = deployment(config, layout, fmt, kv, memory).capacity("runtime", block_size=block_size)
    assert capacity.overhead_bytes > 0
    if where.pp > 1:
        return
    layers = oracle_capacity.stages(judge, where)[0]
    blocks = oracle_capacity.Blocks(layers, where, kv, block_size)
    assert capacity.bytes_per_block == blocks.block_bytes
    assert capacity.num_blocks == capacity.kv_cache_bytes // blocks.block_bytes
    # The null block is never handed out.
    assert capacity.max_sequences(tokens) == max(0, capacity.num_blocks - 1) // blocks.of(tokens)


@given(cases(), st.integers(1, 5_000))
def test_fewer_sequences_fit_in_whole_blocks(case, tokens):
    config, layout, fmt = case
    memory = 80 * 10**9
    dep = deployment(config, layout, fmt, "bf16", memory)
    runtime, ideal = dep.capacity("runtime"), dep.capacity()
    assert runtime.max_sequences(tokens) <= ideal.max_sequences(tokens)


@given(cases(), st.integers(1, 200_000), st.integers(10**8, 10**12), st.sampled_from(["ideal", "runtime"]))
def test_capacity_is_exact_and_explains_itself(case, tokens, memory, mode):
    config, layout, fmt = case
    testing.check_capacity_is_exact(deployment(config, layout, fmt, "bf16", memory).capacity(mode), tokens)


def deployment(config: dict[str, Any], layout: dict[str, int], fmt: str | None, kv: str, memory: int) -> rs.Deployment:
    spec = {
        "name": "room",
        "memory_bytes": memory,
        "memory_bandwidth_bytes_per_s": 1e12,
        "peak_flops_per_s": {"bf16": 1e15, "fp16": 1e15, "fp8": 2e15, "int8": 2e15, "fp4": 4e15},
        "link": {"bandwidth_bytes_per_s": 1e11, "num_devices": 1 << 20},
    }
    return rs.Deployment(config, spec, weight_dtype=fmt, kv_cache_dtype=kv, calibration="ideal", **layout)


# --- law 7: shards cover the whole ------------------------------------------------------------------------------


@given(cases())
def test_shards_cover_the_weights(case):
    config, layout, fmt = case
    judge, where = models.describe(config), short(layout)
    own = fmt if fmt in formats.PLAIN else judge.dtype
    ranks = where.tp * where.dp
    over_all = ranks * sum(oracle_capacity.weight_bytes(judge, where, i, fmt) for i in range(where.pp))
    assert over_all >= judge.weight_bytes(fmt)
    if where == Layout():
        # One device: the shard is the whole, and the table of a tied head is there once.
        assert over_all == judge.weight_bytes(fmt)
        capacity = deployment(config, layout, fmt, "bf16", 1 << 42).capacity()
        assert capacity.weight_bytes == rs.Model.load(config).weight_bytes(fmt or "auto")
    for layer in judge.layers:
        held = layer.kv_elements(where.tp) * where.tp
        assert held >= layer.kv_elements()
        if not layer.latent and layer.kv_heads % where.tp == 0:
            assert held == layer.kv_elements()
    assert own in formats.PLAIN
