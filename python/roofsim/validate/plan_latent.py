"""Latent attention points: absorbed decodes and expanded prompts of DeepSeek's head widths."""

from __future__ import annotations

from .points import Point, Scalar

__all__ = ["latent_points"]

WIDTHS = {"kv_lora_rank": 512, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128}
"""DeepSeek V2, V2-Lite, V3 and Kimi K2 share them. Source: their `config.json` on Hugging Face, read 2026-11-24."""
HEADS = (16, 32, 128)
"""Of one rank: V2-Lite or V3 on eight ranks, V3 on four, V3 whole."""
DECODES = (
    (1, 512), (1, 4096), (1, 32768), (4, 2048), (8, 8192), (16, 512), (16, 4096), (32, 1024), (32, 16384), (64, 2048),
    (128, 512), (128, 4096), (256, 1024),
)  # fmt: skip
PREFILLS = ((1, 512, 512), (1, 2048, 2048), (1, 4096, 4096), (1, 8192, 8192), (4, 1024, 1024), (1, 1024, 8192))


def latent_points(max_kv_bytes: float = 4e9) -> list[Point]:
    """Return the points whose caches and expanded operands fit, decodes first: (requests, new tokens, context)."""
    found: list[Point] = []
    sizes = [*((batch, 1, context) for batch, context in DECODES), *PREFILLS]
    for batch, query, context in sizes:
        for heads in HEADS:
            if query > 1 and heads == 32:
                continue
            width = 576 if query == 1 else 320 * heads
            if 2 * batch * context * width > max_kv_bytes:
                continue
            params: dict[str, Scalar] = {
                "dtype": "bf16", "batch_size": batch, "query_tokens": query, "context_tokens": context,
                "num_heads": heads, **WIDTHS, "form": "absorbed" if query == 1 else "expanded",
            }  # fmt: skip
            found.append(Point("latent_attention", params, {"shape_group": f"({heads},512,64)"}))
    return found
