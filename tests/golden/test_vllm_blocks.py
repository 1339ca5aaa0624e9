"""Numbers of KV blocks that vLLM logged at startup against `capacity("runtime")`.

Sources, read 2026-11-24: LLMServingSim `bench/*/meta.json` (vLLM 0.19, 0.23), residency-vllm `server_config.json`
(Yi-34B), inference-sim golden files (the other H100 runs; utilisation 0.90 is assumed there, and the default number of
batched tokens of an H100 where none is logged).
"""

from __future__ import annotations

from typing import NamedTuple

import pytest

import roofsim as rs

LLAMA_2_7B = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "intermediate_size": 11008,
    "vocab_size": 32000,
}


class Run(NamedTuple):
    model: object
    device: str
    tp: int
    utilisation: float
    batched_tokens: int
    seqs: int
    blocks: int


MODERN = {
    "llama-3.1-8b on a 4090": Run("llama-3.1-8b", "rtx-4090", 1, 0.90, 2048, 256, 2588),
    "llama-3.1-70b over 4": Run("llama-3.1-70b", "h100-sxm", 4, 0.90, 8192, 1024, 30425),
    "qwen3-14b": Run("qwen3-14b", "h100-sxm", 1, 0.92, 8192, 1024, 18038),
    "yi-34b over 2": Run("yi-34b", "h100-sxm", 2, 0.90, 2048, 256, 20793),
    "qwen2.5-7b": Run("qwen2.5-7b", "h100-sxm", 1, 0.90, 8192, 1024, 65368),
    "mistral-nemo": Run("mistral-nemo-12b", "h100-sxm", 1, 0.90, 8192, 1024, 19251),
    "mistral-nemo over 2": Run("mistral-nemo-12b", "h100-sxm", 2, 0.90, 8192, 1024, 48009),
}
EARLIER = Run(LLAMA_2_7B, "h100-sxm", 1, 0.90, 8192, 1024, 7463)
"""An earlier version, whose context was smaller."""


def capacity(run: Run) -> rs.Capacity:
    return rs.Deployment(run.model, run.device, tensor_parallel_size=run.tp).capacity(
        "runtime",
        gpu_memory_utilization=run.utilisation,
        max_num_batched_tokens=run.batched_tokens,
        max_num_seqs=run.seqs,
    )


@pytest.mark.parametrize("name", list(MODERN))
def test_blocks_within_three_percent(name):
    run = MODERN[name]
    assert capacity(run).num_blocks == pytest.approx(run.blocks, rel=0.03)


def test_an_earlier_version_within_five_percent():
    assert capacity(EARLIER).num_blocks == pytest.approx(EARLIER.blocks, rel=0.05)


@pytest.mark.parametrize("name", list(MODERN))
def test_what_is_neither_weights_nor_blocks_is_one_to_two_gib(name):
    # The logs themselves, without any prediction: usable memory - weights - blocks x bytes per block.
    run = MODERN[name]
    found = capacity(run)
    residual = found.usable_bytes - found.weight_bytes - run.blocks * found.bytes_per_block
    assert 1.0 <= residual / 2**30 <= 2.0
