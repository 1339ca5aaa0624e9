"""Figures that others published, each with its source and date."""

from __future__ import annotations

from fractions import Fraction
from math import comb

import pytest

import roofsim as rs


def machine(bandwidth: float = 3000e9, peak: float = 1e18) -> rs.Accelerator:
    return rs.Accelerator(
        name="floor", memory_bytes=1 << 40, memory_bandwidth_bytes_per_s=bandwidth, peak_flops_per_s={"bf16": peak}
    ).with_calibration("ideal")


def test_seventy_billion_parameters_take_at_least_46_7_ms_at_3_tb_per_s():
    # Arithmetic of the field: 70e9 x 2 bytes / 3000 GB/s = 46.67 ms.
    cost = machine().gemm(m=1, n=70_000, k=1_000_000)
    assert 2 * 70_000 * 1_000_000 == 140 * 10**9
    assert cost.time_s >= 140e9 / 3000e9
    assert cost.time_s == pytest.approx(46.67e-3, rel=1e-3)


def test_a_decode_step_of_llama_70b_takes_at_least_its_weights_over_bandwidth():
    model = rs.Model.load("llama-3.1-70b")
    step = rs.Deployment(model, machine()).decode(batch_size=1, context_tokens=1)
    gathered = 2 * model.vocab_size * model.hidden_size  # of the embedding one row is read, not the table
    assert step.bytes >= model.weight_bytes() - gathered
    assert step.time_s >= (model.weight_bytes() - gathered) / 3000e9
    assert step.time_s == pytest.approx((model.weight_bytes() - gathered) / 3000e9, rel=2e-3)
    assert step.bound == "memory"


# NVIDIA datasheets (dense peak over HBM bandwidth; H100 SXM and A100 80GB SXM, 2023) and Google Cloud TPU v5e (2023);
# "How to Scale Your Model", chapter on rooflines, 2025, gives 240 for the v5e.
@pytest.mark.parametrize(
    ("name", "balance"), [("h100-sxm", 295.2), ("a100-sxm-80gb", 153.0), ("h200-sxm", 206.0), ("tpu-v5e", 240.0)]
)
def test_balance_points(name, balance):
    assert rs.Accelerator.load(name).balance("bf16") == pytest.approx(balance, rel=0.015)


# Per layer, batch 32, one row each: 2 m n k with d = 8192, 64 query heads, 8 KV heads of 128 and width 28672 (Meta's
# config.json of Llama 3 70B, 2024), by hand; gate and up are one fused operation.
@pytest.mark.parametrize(
    ("name", "gflops"), [("qkv_proj", 5.37), ("o_proj", 4.29), ("gate_up_proj", 30.06), ("down_proj", 15.03)]
)
def test_flops_per_layer_of_llama_70b_at_batch_32(name, gflops):
    step = rs.Deployment("llama-3.1-70b", "h100-sxm").decode(batch_size=32, context_tokens=2048)
    (op,) = [op for op in step.ops if op.name == name]
    assert op.count == 80
    assert op.flops / 1e9 == pytest.approx(gflops, abs=0.005)


# Counted by instantiating the transformers classes on the meta device, transformers 5.23.0, 2026-11-24.
@pytest.mark.parametrize(
    ("name", "parameters"),
    [("llama-3.1-8b", 8_030_261_248), ("llama-3.1-70b", 70_553_706_496), ("deepseek-v3.1", 671_026_404_352),
     ("gpt-oss-20b", 20_914_757_184)],
)  # fmt: skip
def test_parameters(name, parameters):
    assert rs.Model.load(name).num_parameters == parameters


def test_active_parameters_of_gpt_oss():
    assert rs.Model.load("gpt-oss-20b").num_active_parameters == 4_187_440_704


# Cache tensors of a forward pass on the meta device, transformers 5.23.0, 2026-11-24; DeepSeek-V3 technical report,
# 2024: 61 layers x (512 + 64) x 2 bytes.
@pytest.mark.parametrize(
    ("name", "size"),
    [("llama-3.1-8b", 131_072), ("llama-3.1-70b", 327_680), ("qwen3-235b-a22b", 192_512), ("deepseek-v3.1", 70_272)],
)
def test_kv_bytes_per_token(name, size):
    assert rs.Model.load(name).kv_bytes_per_token("bf16") == size


@pytest.mark.parametrize(("tp", "size"), [(1, 192_512), (2, 96_256), (4, 48_128), (8, 48_128), (16, 48_128)])
def test_kv_heads_of_qwen3_235b_are_replicated_beyond_four_ranks(tp, size):
    assert per_rank("qwen3-235b-a22b", tp) == size


@pytest.mark.parametrize("tp", [1, 2, 4, 8, 16])
def test_the_latent_of_deepseek_is_whole_on_every_rank(tp):
    assert per_rank("deepseek-v3.1", tp) == 70_272


def per_rank(name: str, tp: int) -> int:
    link = {"bandwidth_bytes_per_s": 1e11, "num_devices": 64}
    roomy = rs.Accelerator.load("h200-sxm", memory_bytes=1 << 42, link=link)
    dep = rs.Deployment(name, roomy, tensor_parallel_size=tp, kv_cache_dtype="bf16")
    block = dep.capacity("runtime", block_size=16).bytes_per_block
    assert block % 16 == 0
    return block // 16


# E (1 - (1 - k/E)^T) under uniform routing. For Mixtral (E = 8, k = 2) by hand: 2, 3.5 and 4.625.
@pytest.mark.parametrize(("tokens", "hit"), [(1, Fraction(2)), (2, Fraction(7, 2)), (3, Fraction(37, 8))])
def test_expected_distinct_experts(tokens, hit):
    cost = machine().grouped_gemm(num_tokens=tokens, num_experts=8, experts_per_token=2, n=14336, k=4096)
    weights = Fraction(cost.bytes) - 2 * tokens * 2 * (14336 + 4096)
    assert weights == hit * 2 * 14336 * 4096
    # The same by counting the routings of two tokens: both pick the same pair, share one, or none.
    if tokens == 2:
        assert hit == Fraction(2 * 1 + 3 * 2 * 6 + 4 * comb(6, 2), comb(8, 2))
