"""Published model dimensions from which the shapes of the measured operations are drawn.

Source: each model's `config.json` on Hugging Face, read 2026-11-24.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["DENSE_MODELS", "Dense", "linear_shapes"]


@dataclass(frozen=True)
class Dense:
    """Sizes of a dense decoder-only transformer, under Hugging Face's names."""

    name: str
    hidden_size: int
    intermediate_size: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    vocab_size: int
    num_hidden_layers: int


DENSE_MODELS = (
    Dense("llama-3.2-1b", 2048, 8192, 32, 8, 64, 128256, 16),
    Dense("llama-3.2-3b", 3072, 8192, 24, 8, 128, 128256, 28),
    Dense("llama-3.1-8b", 4096, 14336, 32, 8, 128, 128256, 32),
    Dense("llama-3.1-70b", 8192, 28672, 64, 8, 128, 128256, 80),
    Dense("mistral-7b", 4096, 14336, 32, 8, 128, 32768, 32),
    Dense("qwen3-0.6b", 1024, 3072, 16, 8, 128, 151936, 28),
    Dense("qwen3-8b", 4096, 12288, 32, 8, 128, 151936, 36),
    Dense("qwen3-14b", 5120, 17408, 40, 8, 128, 151936, 40),
    Dense("qwen3-32b", 5120, 25600, 64, 8, 128, 151936, 64),
    Dense("gemma-2-9b", 3584, 14336, 16, 8, 256, 256000, 42),
    Dense("phi-4", 5120, 17920, 40, 10, 128, 100352, 40),
    Dense("mistral-nemo", 5120, 14336, 32, 8, 128, 131072, 40),
)


def linear_shapes(model: Dense, tensor_parallel_size: int) -> dict[str, tuple[int, int]]:
    """Return (n, k) of each fused linear layer on one tensor-parallel rank.

    KV heads are replicated beyond their number. A layer whose sizes do not divide is left out.
    """
    tp = tensor_parallel_size
    heads, kv_heads = model.num_attention_heads, model.num_key_value_heads
    shapes: dict[str, tuple[int, int]] = {}
    if heads % tp == 0 and (kv_heads % tp == 0 or tp % kv_heads == 0):
        qkv = heads // tp + 2 * max(1, kv_heads // tp)
        shapes["qkv"] = (qkv * model.head_dim, model.hidden_size)
        shapes["o"] = (model.hidden_size, heads // tp * model.head_dim)
    if model.intermediate_size % tp == 0:
        shapes["gate_up"] = (2 * model.intermediate_size // tp, model.hidden_size)
        shapes["down"] = (model.hidden_size, model.intermediate_size // tp)
    if model.vocab_size % tp == 0:
        shapes["lm_head"] = (model.vocab_size // tp, model.hidden_size)
    return shapes
