"""Whole decode and prefill steps of published architectures, model by model, as the device's memory allows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .architectures import ARCHITECTURES, Architecture
from .points import Point, Scalar

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["layers_that_fit", "max_kv_tokens", "step_point", "step_points"]

# (requests, new tokens of each, context tokens of each, whether steady load is measured too)
DECODE = (
    (1, 128, False), (1, 2048, True), (1, 8192, False), (1, 32768, False), (2, 512, False), (4, 8192, False),
    (8, 2048, False), (16, 1024, False), (16, 8192, False), (32, 512, False), (32, 2048, True), (64, 1024, False),
    (128, 128, False), (128, 512, False), (256, 256, True),
)  # fmt: skip
PREFILL = (
    (1, 128, 128, False), (1, 512, 512, False), (1, 1024, 1024, False), (1, 2048, 2048, True), (1, 4096, 4096, False),
    (1, 8192, 8192, False), (4, 512, 512, False), (1, 512, 4096, False),
)  # fmt: skip

FP8_MODELS = ("llama-3.2-3b", "llama-3.1-8b", "qwen2.5-7b", "qwen3-8b", "qwen3-14b")
"""Dense models whose steps are measured with fp8 products too."""
FP8_DECODE = (
    (1, 128, False), (1, 2048, False), (1, 8192, False), (4, 8192, False), (8, 2048, False), (16, 1024, False),
    (32, 2048, True), (64, 1024, False), (128, 512, False), (256, 256, False),
)  # fmt: skip
FP8_PREFILL = (
    (1, 128, 128, False), (1, 512, 512, False), (1, 2048, 2048, True), (1, 4096, 4096, False), (1, 8192, 8192, False),
    (1, 512, 4096, False),
)  # fmt: skip
BUILT_IN = {
    "bf16": [*((batch, 1, context, steady) for batch, context, steady in DECODE), *PREFILL],
    "fp8": [*((batch, 1, context, steady) for batch, context, steady in FP8_DECODE), *FP8_PREFILL],
}

USABLE_SHARE = 0.93  # of the device's memory: the rest is the context and fragmentation
RESERVED_BYTES = 9.0e9  # output scratch of the harness, activations, logits, graph pools
MIN_KV_BYTES = 7.0e9
MAX_KV_BYTES = 24.0e9


def layers_that_fit(model: Architecture, memory_bytes: float) -> int:
    """Return how many of the model's layers fit beside a KV cache worth measuring; 0 if hardly any do."""
    room = USABLE_SHARE * memory_bytes - RESERVED_BYTES - MIN_KV_BYTES - model.embedding_bytes()
    layers = min(model.num_hidden_layers, int(room // model.layer_bytes()))
    return layers if layers >= min(4, model.num_hidden_layers) else 0


def max_kv_tokens(model: Architecture, num_layers: int, memory_bytes: float) -> int:
    """Return how many tokens the KV cache of the measured step may hold."""
    weights = num_layers * model.layer_bytes() + model.embedding_bytes()
    room = min(MAX_KV_BYTES, USABLE_SHARE * memory_bytes - RESERVED_BYTES - weights)
    return max(0, int(room // model.kv_bytes_per_token(num_layers)))


def step_point(
    model: Architecture, layers: int, batch: int, query: int, context: int, *, sustained: bool, dtype: str = "bf16"
) -> Point:
    """Return one step: `batch` requests of `query` new tokens each, at contexts of `context` tokens (new included).

    In "fp8" the products of the layers are; embedding, head and KV cache stay in bf16.
    """
    params: dict[str, Scalar] = {
        "model": model.name,
        "dtype": dtype,
        "num_layers": layers,
        "batch_size": batch,
        "query_tokens": query,
        "context_tokens": context,
    }
    kind = "decode" if query == 1 else "prefill"
    return Point("step", params, {"shape_group": model.name, "phase": kind, "sustained": sustained})


def step_points(
    memory_bytes: float,
    *,
    models: Sequence[str] | None = None,
    shapes: Iterable[tuple[int, int, int, bool]] | None = None,
) -> list[Point]:
    """Return the steps of a run, those of one model next to each other: bf16 first, then fp8 where it is measured.

    Parameters
    ----------
    memory_bytes
        Device memory: cuts layers of models that do not fit, and leaves out contexts that do not.
    models
        Names from `ARCHITECTURES`; all when absent.
    shapes
        (requests, new tokens, context tokens, steady load too) instead of the built-in ones, in bf16 alone.

    Raises
    ------
    ValueError
        An unknown model.
    """
    chosen = list(models if models is not None else ARCHITECTURES)
    unknown = sorted(set(chosen) - set(ARCHITECTURES))
    if unknown:
        raise ValueError(f"models = {unknown}: must be among {sorted(ARCHITECTURES)}")
    asked = {"bf16": list(shapes)} if shapes is not None else BUILT_IN
    points: list[Point] = []
    for name in chosen:
        model = ARCHITECTURES[name]
        layers = layers_that_fit(model, memory_bytes)
        limit = max_kv_tokens(model, layers, memory_bytes) if layers else 0
        points += [
            step_point(model, layers, batch, query, context, sustained=steady, dtype=dtype)
            for dtype, sizes in asked.items()
            if dtype == "bf16" or name in FP8_MODELS
            for batch, query, context, steady in sizes
            if batch * context <= limit
        ]
    return points
