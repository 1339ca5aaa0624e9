"""Attention points: decode (one query row a sequence) and prefill (causal, whole or chunked)."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from .points import Point, Scalar, thin, unique

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator

__all__ = ["DECODE_LAYOUTS", "PREFILL_LAYOUTS", "decode_points", "prefill_points"]

# (query heads, KV heads, head width) of one rank
DECODE_LAYOUTS = (
    (32, 8, 128), (64, 8, 128), (8, 1, 128), (16, 2, 128), (32, 32, 128), (40, 8, 128), (28, 4, 128), (24, 8, 128),
    (16, 8, 128), (20, 4, 128), (40, 10, 128), (32, 2, 128), (32, 8, 64), (64, 8, 64), (8, 2, 64), (32, 32, 64),
    (16, 8, 256), (8, 4, 256), (16, 4, 256), (8, 1, 256),
)  # fmt: skip
PREFILL_LAYOUTS = (
    (32, 8, 128), (64, 8, 128), (8, 1, 128), (24, 8, 128), (40, 8, 128), (16, 2, 128), (32, 32, 128),
    (32, 8, 64), (64, 8, 64), (8, 2, 64), (16, 8, 256), (8, 4, 256), (16, 4, 256),
)  # fmt: skip
DECODE_BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
DECODE_CONTEXTS = (128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768, 65536, 131072)
PREFILL_QUERIES = (128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768)
PREFILL_PREFIXES = (0, 512, 2048, 8192, 16384, 32768)
PREFILL_BATCHES = (1, 2, 4, 8)
MAX_PREFILL_FLOPS = 4.0e12
MAX_PREFILL_ROWS = 65536


def _layout(heads: int, kv_heads: int, head_dim: int) -> str:
    return f"({heads},{kv_heads},{head_dim})"


def _attention(family: str, batch: int, query: int, context: int, layout: tuple[int, int, int]) -> Point:
    heads, kv_heads, head_dim = layout
    params: dict[str, Scalar] = {"dtype": "bf16", "batch_size": batch, "query_tokens": query, "context_tokens": context}
    heads_of = {"num_heads": heads, "num_kv_heads": kv_heads, "head_dim": head_dim}
    return Point(family, {**params, **heads_of}, {"shape_group": _layout(*layout)})


def _decode(max_kv_bytes: float, rng: random.Random) -> Iterator[Point]:
    for layout, batch, base in itertools.product(DECODE_LAYOUTS, DECODE_BATCHES, DECODE_CONTEXTS):
        _, kv_heads, head_dim = layout
        # a third of the contexts lie off the powers of two, as they do in service
        context = base if rng.random() < 0.67 else max(96, round(base * rng.uniform(0.6, 1.0)))
        if 4 * batch * context * kv_heads * head_dim <= max_kv_bytes:
            yield _attention("decode_attention", batch, 1, context, layout)


def decode_points(rng: random.Random, *, count: int = 400, max_kv_bytes: float = 8e9) -> list[Point]:
    """Return decode points spread over head layouts; a sequence's KV bytes are 4 S K h in bf16."""
    return thin(unique(_decode(max_kv_bytes, rng)), count, rng)


def _prefill(max_kv_bytes: float, rng: random.Random) -> Iterator[Point]:
    for layout, batch, query, prefix in itertools.product(
        PREFILL_LAYOUTS, PREFILL_BATCHES, PREFILL_QUERIES, PREFILL_PREFIXES
    ):
        heads, kv_heads, head_dim = layout
        if batch * query > MAX_PREFILL_ROWS:
            continue
        length = query if rng.random() < 0.75 else max(64, round(query * rng.uniform(0.6, 1.0)))
        context = length + prefix
        flops = 4.0 * batch * heads * head_dim * length * (prefix + length / 2)
        if flops <= MAX_PREFILL_FLOPS and 4 * batch * context * kv_heads * head_dim <= max_kv_bytes:
            yield _attention("prefill_attention", batch, length, context, layout)


def prefill_points(rng: random.Random, *, count: int = 300, max_kv_bytes: float = 4e9) -> list[Point]:
    """Return causal prefill points: half whole prompts (query = context), half chunks behind a cached prefix."""
    points = unique(_prefill(max_kv_bytes, rng))
    whole = [point for point in points if point.params["query_tokens"] == point.params["context_tokens"]]
    chunks = [point for point in points if point.params["query_tokens"] != point.params["context_tokens"]]
    half = count // 2
    return thin(whole, count - half, rng) + thin(chunks, half, rng)
