"""Mistakes that other cost models are known to make. Each test also computes the wrong figure and shows we differ."""

from __future__ import annotations

import numpy as np
import pytest

import roofsim as rs

D, LAYERS, HEADS, KV_HEADS, H, WIDTH, VOCAB = 8192, 80, 64, 8, 128, 28672, 128256
LLAMA_70B = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": D,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "num_key_value_heads": KV_HEADS,
    "intermediate_size": WIDTH,
    "vocab_size": VOCAB,
}
ROOMY = {
    "name": "roomy",
    "memory_bytes": 1 << 42,
    "memory_bandwidth_bytes_per_s": 4e12,
    "peak_flops_per_s": {"bf16": 1e15, "fp8": 2e15},
    "link": {"bandwidth_bytes_per_s": 4.5e11, "num_devices": 64},
}


def op(step: rs.StepCost, name: str) -> rs.OpCost:
    (found,) = [op for op in step.ops if op.name == name]
    return found


def ideal(model: object = LLAMA_70B, **arguments: object) -> rs.Deployment:
    return rs.Deployment(model, ROOMY, calibration="ideal", **arguments)


def token_bytes(deployment: rs.Deployment) -> int:
    """KV bytes of one token on one rank."""
    return deployment.capacity("runtime", block_size=16).bytes_per_block // 16


# --- KV cache ---------------------------------------------------------------------------------------------------


def test_kv_is_not_sized_with_query_heads():
    wrong = 2 * LAYERS * HEADS * H * 2
    assert rs.Model.load(LLAMA_70B).kv_bytes_per_token() == 2 * LAYERS * KV_HEADS * H * 2 == wrong // 8


def test_kv_is_not_sized_with_the_hidden_size():
    wrong = 2 * LAYERS * D * 2
    assert rs.Model.load(LLAMA_70B).kv_bytes_per_token() == 327_680 != wrong


def test_head_dim_is_not_assumed_to_be_hidden_over_heads():
    # Qwen3-0.6B: hidden 1024, 16 heads, but heads of 128.
    model = rs.Model.load("qwen3-0.6b")
    assert model.hidden_size // 16 == 64
    assert model.kv_bytes_per_token() == 28 * 2 * 8 * 128 * 2 != 28 * 2 * 8 * 64 * 2


def test_kv_is_not_divided_beyond_the_kv_heads():
    at_8, at_16 = (token_bytes(ideal(tensor_parallel_size=tp)) for tp in (8, 16))
    wrong = 327_680 // 16
    assert at_8 == at_16 == 327_680 // 8 != wrong


def test_latent_kv_is_not_divided_by_tensor_parallelism():
    whole, divided = (token_bytes(ideal("deepseek-v3.1", tensor_parallel_size=tp, kv_cache_dtype="bf16"))
                      for tp in (1, 8))  # fmt: skip
    assert divided == whole == 61 * (512 + 64) * 2 != whole // 8


def test_the_kv_format_is_not_tied_to_the_weight_format():
    step = {
        w: op(ideal(weight_dtype=w).decode(batch_size=8, context_tokens=4096), "attention") for w in ("bf16", "fp8")
    }
    assert step["bf16"].bytes == step["fp8"].bytes
    narrow = op(ideal(kv_cache_dtype="fp8").decode(batch_size=8, context_tokens=4096), "attention")
    assert narrow.bytes < step["bf16"].bytes
    assert token_bytes(ideal(weight_dtype="fp8")) == 327_680 != 327_680 // 2


def test_runtime_and_ideal_kv_are_not_confused():
    dep = ideal()
    exact, blocks = dep.capacity(), dep.capacity("runtime", block_size=16)
    assert (exact.overhead_bytes, blocks.overhead_bytes > 0) == (0, True)
    # 17 tokens take two blocks of 16, not 17 tokens' worth.
    assert blocks.max_sequences(17) == (blocks.num_blocks - 1) // 2
    wrong = blocks.kv_cache_bytes // (17 * 327_680)
    assert blocks.max_sequences(17) < wrong
    assert exact.max_sequences(17) == exact.kv_cache_bytes // (17 * 327_680)


def windowed(window: int | None) -> dict[str, object]:
    return {**LLAMA_70B, "architectures": ["MistralForCausalLM"], "sliding_window": window}


def test_windows_do_cut():
    model = rs.Model.load(windowed(4096))
    wrong = 100_000 * 327_680
    assert model.kv_cache_bytes(100_000) == 4096 * 327_680 < wrong
    read = [
        op(ideal(windowed(w)).decode(batch_size=1, context_tokens=100_000), "attention").bytes for w in (4096, None)
    ]
    assert read[0] < read[1] / 20


def test_windows_do_not_cut_before_they_are_full():
    model = rs.Model.load(windowed(4096))
    assert model.kv_cache_bytes(1000) == 1000 * 327_680 != 4096 * 327_680
    assert model.kv_bytes_per_token() == 327_680
    read = [op(ideal(windowed(w)).decode(batch_size=1, context_tokens=1000), "attention").bytes for w in (4096, None)]
    assert read[0] == read[1]


def test_windows_cut_only_the_layers_that_have_them():
    # Gemma 3 27B: 62 layers, every sixth sees everything, the others 1024 tokens.
    model = rs.Model.load("gemma-3-27b")
    full, tokens = 62 // 6, 50_000
    per_layer = model.kv_bytes_per_token() // 62
    right = per_layer * (full * tokens + (62 - full) * 1024)
    assert model.kv_cache_bytes(tokens) == right
    assert right not in (62 * per_layer * tokens, 62 * per_layer * 1024)


def test_qwens_switched_off_window_never_cuts():
    # Qwen 2.5 files carry a sliding_window with use_sliding_window = false.
    model = rs.Model.load("qwen2.5-7b")
    assert model.kv_cache_bytes(131_072) == 131_072 * model.kv_bytes_per_token()


def test_the_pool_of_a_rank_is_not_divided_twice_by_tensor_parallelism():
    one, four = (ideal(tensor_parallel_size=tp).capacity() for tp in (1, 4))
    assert four.kv_tokens == four.kv_cache_bytes // (327_680 // 4)
    wrong = four.kv_cache_bytes // 4 // (327_680 // 4)
    assert four.kv_tokens > 3.9 * wrong
    assert four.kv_tokens > 4 * one.kv_tokens


# --- head and attention -----------------------------------------------------------------------------------------


def test_the_head_works_on_one_row_a_request_and_not_on_every_prompt_token():
    step = ideal().prefill(prompt_tokens=4096, batch_size=2)
    wrong = 2 * (2 * 4096) * VOCAB * D
    assert op(step, "lm_head").flops == 2 * 2 * VOCAB * D == wrong / 4096


def test_flops_are_not_macs():
    step = ideal().decode(batch_size=3, context_tokens=10)
    assert op(step, "lm_head").flops == 2 * 3 * VOCAB * D != 3 * VOCAB * D
    assert op(step, "down_proj").flops == 2 * 3 * D * WIDTH != 3 * D * WIDTH


def test_an_untied_head_is_not_dropped_and_a_tied_one_not_counted_twice():
    untied, tied = (rs.Model.load({**LLAMA_70B, "tie_word_embeddings": t}) for t in (False, True))
    assert untied.num_parameters - tied.num_parameters == VOCAB * D
    assert untied.num_parameters == 70_553_706_496
    # A tied head still multiplies.
    assert op(ideal({**LLAMA_70B, "tie_word_embeddings": True}).decode(batch_size=1, context_tokens=1), "lm_head").flops


def test_attention_is_causal():
    prompt = 4096
    flops = op(ideal().prefill(prompt_tokens=prompt), "attention").flops
    square = 4 * HEADS * H * prompt * prompt
    triangle = 4 * HEADS * H * prompt * (prompt + 1) // 2
    assert flops == triangle
    assert flops < 0.51 * square


def test_a_chunk_sees_all_the_context_before_it():
    flops = op(ideal().prefill(prompt_tokens=4096, cached_tokens=3072), "attention").flops
    wrong = 4 * HEADS * H * 1024 * 1025 // 2
    assert flops == 4 * HEADS * H * (1024 * 3072 + 1024 * 1025 // 2) > wrong


def test_kv_heads_are_read_once_for_the_query_heads_that_share_them():
    cost = op(ideal().decode(batch_size=1, context_tokens=10_000), "attention")
    wrong = 10_000 * 2 * HEADS * H * 2
    assert cost.bytes < wrong / 7
    assert cost.bytes >= 10_000 * 2 * KV_HEADS * H * 2


# --- feed-forward and experts -----------------------------------------------------------------------------------


def test_activations_are_sized_by_the_intermediate_width():
    rows = 8192
    found = ideal().capacity(max_num_batched_tokens=rows, max_num_seqs=1).activation_bytes
    wrong = rows * 2 * (2 * D + 3 * D)
    assert found >= rows * 2 * 2 * WIDTH > wrong
    moved = op(ideal().decode(batch_size=1, context_tokens=1), "activation").bytes
    assert moved == 3 * WIDTH * 2 != 3 * D * 2


def expert_bytes(batch: int) -> float:
    step = ideal("mixtral-8x7b").decode(batch_size=batch, context_tokens=100)
    rows = 2 * batch * 2 * (2 * 14336 + 4096)
    return (op(step, "experts_gate_up").bytes - rows) / (2 * 2 * 14336 * 4096)


def test_not_only_the_top_k_experts_are_read_at_every_batch():
    assert expert_bytes(1) == pytest.approx(2)
    assert expert_bytes(64) == pytest.approx(8, rel=1e-6)
    assert expert_bytes(4) == pytest.approx(8 * (1 - 0.75**4)) != pytest.approx(2)


def test_not_all_experts_are_read_at_every_batch():
    assert expert_bytes(1) < 8 / 3
    assert expert_bytes(2) == pytest.approx(3.5) != pytest.approx(8)


def test_capacity_holds_all_experts_and_not_the_active_ones():
    dep = ideal("mixtral-8x7b")
    assert dep.capacity().weight_bytes == dep.model.weight_bytes()
    assert dep.capacity().weight_bytes > 3 * 2 * dep.model.num_active_parameters


def test_weights_are_read_once_a_step_and_not_once_a_token():
    one, many = (ideal().decode(batch_size=b, context_tokens=1) for b in (1, 64))
    assert many.bytes < 1.1 * one.bytes < 64 * one.bytes


# --- hardware and units -----------------------------------------------------------------------------------------


def test_peaks_are_dense():
    # NVIDIA H100 datasheet, 2023: 1,979 bf16 and 3,958 fp8 TFLOP/s "with sparsity".
    peaks = rs.Accelerator.load("h100-sxm").peak_flops_per_s
    assert peaks["bf16"] == 989e12 != 1979e12
    assert peaks["fp8"] == 1979e12 != 3958e12
    # GeForce RTX 4090: 165 with fp32 accumulate, not 330.
    assert rs.Accelerator.load("rtx-4090").peak_flops_per_s["bf16"] == pytest.approx(165e12, rel=0.01)


def test_memory_is_what_the_driver_reports():
    # nvidia-smi on an H200: 143,771 MiB.
    found = rs.Accelerator.load("h200-sxm").memory_bytes
    assert found == 143_771 * 2**20
    assert found not in (141 * 2**30, 141 * 10**9)


def test_bandwidth_is_decimal():
    found = rs.Accelerator.load("h100-sxm").memory_bandwidth_bytes_per_s
    assert found == 3.35e12 != 3.35 * 2**40
    acc = rs.Accelerator(**ROOMY).with_calibration("ideal")
    assert acc.elementwise(read_bytes=4 * 10**9, write_bytes=0).time_s == pytest.approx(1e-3, rel=1e-12)
    assert acc.elementwise(read_bytes=4 * 10**9, write_bytes=0).time_s != pytest.approx(4e9 / (4 * 2**40), rel=1e-3)


def test_link_bandwidth_is_per_direction():
    # NVLink 4: 900 GB/s both ways together (NVIDIA H100 datasheet, 2023).
    acc = rs.Accelerator.load("h100-sxm").with_calibration("ideal")
    cost = acc.collective("all_gather", num_bytes=8 * 10**9, num_devices=8)
    assert cost.time_s == pytest.approx(7e9 / 450e9, rel=1e-9) != pytest.approx(7e9 / 900e9, rel=1e-3)


# --- infeasible points ------------------------------------------------------------------------------------------


def test_infeasible_points_are_never_reported_as_fast():
    space = rs.SweepSpace(models=LLAMA_70B, accelerators=ROOMY, tensor_parallel_size=[3, 8, 128], batch_size=[1, 8],
                          context_tokens=[16, 64], query_tokens=[1, 32])  # fmt: skip
    table = space.run(["time_s", "status", "tensor_parallel_size", "query_tokens", "context_tokens"])
    bad = np.asarray((table["tensor_parallel_size"] != 8) | (table["query_tokens"] > table["context_tokens"]))
    assert bad.any()
    assert np.array_equal(np.asarray(table["status"] != "ok"), bad)
    assert np.array_equal(np.ma.getmaskarray(table["time_s"]), bad)
    assert table["time_s"].min() > 0
    best = space.top_k(100, by="time_s")
    assert not bad[best.indices].any()
    assert len(best) == (~bad).sum()


def test_what_does_not_fit_says_so():
    small = {**ROOMY, "memory_bytes": 80 * 10**9}
    dep = rs.Deployment(LLAMA_70B, small)
    capacity = dep.capacity()
    assert not capacity.fits
    assert capacity.reason
    assert capacity.max_sequences(1) == 0
    space = rs.SweepSpace(models=LLAMA_70B, accelerators=small)
    assert not space.run(["fits"])["fits"][0]
    assert space.top_k(1, by="time_s", where="fits").indices == []
