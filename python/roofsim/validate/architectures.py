"""Published architectures whose whole steps are measured, and the expert shapes of published mixtures.

Source: each model's `config.json` on Hugging Face, read 2026-11-24. Sizes keep Hugging Face's names.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from .shapes import DENSE_MODELS

__all__ = ["ARCHITECTURES", "MIXTURES", "Architecture", "Mixture"]

BF16_BYTES = 2


@dataclass(frozen=True)
class Architecture:
    """A decoder of equal layers: full attention, then a gated feed-forward, dense or of routed experts.

    Parameters
    ----------
    intermediate_size
        Of the dense feed-forward, or of one expert.
    qk_norm
        "none", "head" (queries and keys normalised head by head) or "row" (over all heads of a token).
    qkv_bias
        Whether the fused query, key and value projection adds a bias.
    num_experts, num_experts_per_tok
        Zero in a dense model.
    """

    name: str
    hidden_size: int
    intermediate_size: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    vocab_size: int
    num_hidden_layers: int
    tie_word_embeddings: bool = False
    qk_norm: str = "none"
    qkv_bias: bool = False
    num_experts: int = 0
    num_experts_per_tok: int = 0

    def layer_weights(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of each weight matrix of a layer; experts' matrices are [experts, n, k]."""
        d, width = self.hidden_size, self.head_dim
        shapes: dict[str, tuple[int, ...]] = {
            "qkv": ((self.num_attention_heads + 2 * self.num_key_value_heads) * width, d),
            "o": (d, self.num_attention_heads * width),
        }
        gate_up, down = (2 * self.intermediate_size, d), (d, self.intermediate_size)
        if self.num_experts:
            shapes["router"] = (self.num_experts, d)
            return {**shapes, "gate_up": (self.num_experts, *gate_up), "down": (self.num_experts, *down)}
        return {**shapes, "gate_up": gate_up, "down": down}

    def layer_bytes(self) -> int:
        """Return bf16 bytes of a layer's matrices."""
        total = 0
        for shape in self.layer_weights().values():
            elements = BF16_BYTES
            for size in shape:
                elements *= size
            total += elements
        return total

    def embedding_bytes(self) -> int:
        """Return bf16 bytes of the embedding table and of the head where it is a matrix of its own."""
        return BF16_BYTES * self.hidden_size * self.vocab_size * (1 if self.tie_word_embeddings else 2)

    def kv_bytes_per_token(self, num_layers: int) -> int:
        """Return bf16 bytes of keys and values of one token."""
        return 2 * BF16_BYTES * num_layers * self.num_key_value_heads * self.head_dim


def _dense(name: str, **rest: Any) -> Architecture:
    """Take the sizes of a dense model from where GEMM shapes have them."""
    return next(Architecture(**asdict(model), **rest) for model in DENSE_MODELS if model.name == name)


ARCHITECTURES = {
    each.name: each
    for each in (
        _dense("llama-3.2-3b", tie_word_embeddings=True),
        _dense("mistral-7b"),
        Architecture("qwen2.5-7b", 3584, 18944, 28, 4, 128, 152064, 28, qkv_bias=True),
        _dense("llama-3.1-8b"),
        _dense("qwen3-8b", qk_norm="head"),
        _dense("qwen3-14b", qk_norm="head"),
        Architecture(
            "olmoe-1b-7b", 2048, 1024, 16, 16, 128, 50304, 16, qk_norm="row", num_experts=64, num_experts_per_tok=8
        ),
        Architecture("mixtral-8x7b", 4096, 14336, 32, 8, 128, 32000, 32, num_experts=8, num_experts_per_tok=2),
        Architecture(
            "qwen3-30b-a3b", 2048, 768, 32, 4, 128, 151936, 48, qk_norm="head", num_experts=128, num_experts_per_tok=8
        ),
    )
}


@dataclass(frozen=True)
class Mixture:
    """The routed experts of a published mixture, and the tensor-parallel sizes their width divides by."""

    name: str
    hidden_size: int
    intermediate_size: int
    num_experts: int
    num_experts_per_tok: int
    expert_ranks: tuple[int, ...] = (1,)
    tensor_ranks: tuple[int, ...] = (1,)


MIXTURES = (
    Mixture("olmoe-1b-7b", 2048, 1024, 64, 8),
    Mixture("mixtral-8x7b", 4096, 14336, 8, 2, (1, 2), (1, 2, 4, 8)),
    Mixture("qwen3-30b-a3b", 2048, 768, 128, 8, (1, 4), (1, 2)),
    Mixture("gpt-oss-20b", 2880, 2880, 32, 4),
    Mixture("deepseek-v2-lite", 2048, 1408, 64, 6, (1, 2)),
    Mixture("deepseek-v3", 7168, 2048, 256, 8, (8, 16, 32)),
    Mixture("qwen3-235b-a22b", 4096, 1536, 128, 8, (4, 8), (4, 8)),
    Mixture("phi-3.5-moe", 4096, 6400, 16, 2, (1, 2), (1, 2, 4)),
)
