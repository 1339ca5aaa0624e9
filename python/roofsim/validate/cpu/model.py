"""A tiny dense transformer in NumPy: the whole step that the CPU backend times."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .kernels import attention, rms_norm, rotary, silu_mul

__all__ = ["TINY", "TinyConfig", "TinyModel"]

Array = npt.NDArray[np.floating]


@dataclass(frozen=True)
class TinyConfig:
    """Sizes under Hugging Face's names."""

    hidden_size: int = 256
    intermediate_size: int = 768
    num_attention_heads: int = 8
    num_key_value_heads: int = 2
    head_dim: int = 32
    vocab_size: int = 2048
    num_hidden_layers: int = 2


TINY = TinyConfig()


class TinyModel:
    """Random weights, a static KV cache, and one forward step of equal requests."""

    def __init__(self, config: TinyConfig, rng: np.random.Generator, dtype: npt.DTypeLike = np.float32) -> None:
        self.config = config
        c = config
        qkv = (c.num_attention_heads + 2 * c.num_key_value_heads) * c.head_dim

        def weight(n: int, k: int) -> Array:
            return np.asarray(rng.standard_normal((n, k)) / np.sqrt(k), dtype=dtype)

        self.embedding = weight(c.vocab_size, c.hidden_size)
        self.head = weight(c.vocab_size, c.hidden_size)
        self.norm = np.ones(c.hidden_size, dtype=dtype)
        self.layers = [
            {
                "qkv": weight(qkv, c.hidden_size),
                "o": weight(c.hidden_size, c.num_attention_heads * c.head_dim),
                "gate_up": weight(2 * c.intermediate_size, c.hidden_size),
                "down": weight(c.hidden_size, c.intermediate_size),
            }
            for _ in range(c.num_hidden_layers)
        ]

    def caches(self, batch: int, context: int, rng: np.random.Generator) -> list[tuple[Array, Array]]:
        """Return random K and V caches, [B, K, S, h] a layer."""
        c = self.config
        shape = (batch, c.num_key_value_heads, context, c.head_dim)
        dtype = self.embedding.dtype

        def cache() -> Array:
            return np.asarray(rng.standard_normal(shape), dtype=dtype)

        return [(cache(), cache()) for _ in range(c.num_hidden_layers)]

    def step(self, ids: npt.NDArray[np.int64], caches: list[tuple[Array, Array]]) -> Array:
        """Run T new tokens of B requests at the end of their caches; return the logits of each last row."""
        c = self.config
        batch, rows = ids.shape
        context = caches[0][0].shape[2]
        heads, kv_heads, width = c.num_attention_heads, c.num_key_value_heads, c.head_dim
        steps = np.arange(context - rows, context)[:, None] / 10000 ** (np.arange(width // 2) / (width // 2))[None]
        cos, sin = (np.tile(f(steps), (batch, 1)).astype(self.embedding.dtype) for f in (np.cos, np.sin))
        x = self.embedding[ids.reshape(-1)]
        for layer, (key, value) in zip(self.layers, caches, strict=True):
            qkv = (rms_norm(x, self.norm) @ layer["qkv"].T).reshape(batch * rows, -1, width)
            turned = rotary(qkv[:, : heads + kv_heads], cos, sin)
            fresh = turned[:, heads:].reshape(batch, rows, kv_heads, width)
            key[:, :, context - rows :] = fresh.swapaxes(1, 2)
            value[:, :, context - rows :] = qkv[:, heads + kv_heads :].reshape(fresh.shape).swapaxes(1, 2)
            query = turned[:, :heads].reshape(batch, rows, kv_heads, heads // kv_heads, width).transpose(0, 2, 3, 1, 4)
            mixed = attention(np.ascontiguousarray(query), key, value).transpose(0, 3, 1, 2, 4)
            x = x + mixed.reshape(batch * rows, -1) @ layer["o"].T
            x = x + silu_mul(rms_norm(x, self.norm) @ layer["gate_up"].T) @ layer["down"].T
        last = x.reshape(batch, rows, -1)[:, -1]
        return np.asarray(rms_norm(last, self.norm) @ self.head.T)
