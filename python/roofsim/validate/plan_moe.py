"""Grouped GEMM points: gate+up and down projections of the experts of published mixtures, whole and sharded."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING

from .architectures import MIXTURES
from .points import Point, Scalar, thin, unique

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator

__all__ = ["grouped_gemm_point", "grouped_gemm_points", "small_grouped_gemm_points"]

TOKENS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192)
MAX_FLOPS = 4.0e12
MAX_WEIGHT_BYTES = 8.0e9


def grouped_gemm_point(
    dtype: str, tokens: int, experts: int, per_token: int, ranks: int, n: int, k: int, source: str
) -> Point:
    """Return one point.

    Parameters
    ----------
    tokens
        Tokens that are routed, over all experts of the model.
    experts, per_token
        Experts of the model, and how many of them a token visits.
    ranks
        Ranks that the experts are divided over; the first one is measured.
    n, k
        Outputs and inputs of one expert on the rank.
    """
    params: dict[str, Scalar] = {
        "dtype": dtype,
        "num_tokens": tokens,
        "num_experts": experts,
        "experts_per_token": per_token,
        "expert_ranks": ranks,
        "n": n,
        "k": k,
    }
    return Point("grouped_gemm", params, {"shape_group": f"({experts},{per_token},{ranks},{n},{k})", "source": source})


def _allowed(dtype: str, tokens: int, experts: int, per_token: int, ranks: int, n: int, k: int) -> bool:
    """Bound a call's time and its weights; fp8 kernels take multiples of 16."""
    flops = 2.0 * tokens * per_token / ranks * n * k
    weight_bytes = (1.0 if dtype == "fp8" else 2.0) * experts / ranks * n * k
    limit = MAX_WEIGHT_BYTES * (0.3 if dtype == "fp8" else 1.0)
    return flops <= MAX_FLOPS and weight_bytes <= limit and n % 16 == 0 and k % 16 == 0


def _of_models(dtype: str) -> Iterator[Point]:
    for mixture in MIXTURES:
        layouts = [(ranks, 1) for ranks in mixture.expert_ranks] + [(1, tp) for tp in mixture.tensor_ranks if tp > 1]
        for (ranks, tp), tokens in itertools.product(layouts, TOKENS):
            width = mixture.intermediate_size // tp
            shapes = {"gate_up": (2 * width, mixture.hidden_size), "down": (mixture.hidden_size, width)}
            for layer, (n, k) in shapes.items():
                experts, per_token = mixture.num_experts, mixture.num_experts_per_tok
                if _allowed(dtype, tokens, experts, per_token, ranks, n, k):
                    source = f"model:{mixture.name}:{layer}:ep{ranks}:tp{tp}"
                    yield grouped_gemm_point(dtype, tokens, experts, per_token, ranks, n, k, source)


def _random(dtype: str, shapes: int, tokens_per_shape: int, rng: random.Random) -> Iterator[Point]:
    """Yield random mixtures: 4 to 160 experts, widths log-uniform over 512..8192."""

    def size() -> int:
        return max(64, round(math.exp(rng.uniform(math.log(512), math.log(8192)))) // 64 * 64)

    for index in range(shapes):
        experts = rng.choice((4, 8, 12, 16, 32, 48, 64, 96, 128, 160))
        per_token = rng.randint(1, min(8, experts // 2))
        n, k = size(), size()
        taken = 0
        for _ in range(20 * tokens_per_shape):
            tokens = round(math.exp(rng.uniform(0.0, math.log(8192))))
            if _allowed(dtype, tokens, experts, per_token, 1, n, k):
                yield grouped_gemm_point(dtype, tokens, experts, per_token, 1, n, k, f"random:{index}")
                taken += 1
            if taken == tokens_per_shape:
                break


def grouped_gemm_points(
    rng: random.Random, *, scale: float = 1.0, dtypes: tuple[str, ...] = ("bf16", "fp8")
) -> list[Point]:
    """Return about 250 bf16 and 50 fp8 points, times `scale`: four fifths of published mixtures, the rest random."""
    counts = {"bf16": (200, 48), "fp8": (44, 8)}
    points: list[Point] = []
    for dtype in dtypes:
        from_models, from_random = counts[dtype]
        points += thin(unique(_of_models(dtype)), max(1, round(from_models * scale)), rng)
        points += list(_random(dtype, math.ceil(from_random * scale / 4), 4, rng))
    return unique(points)


def small_grouped_gemm_points() -> list[Point]:
    """Return mixtures that a CPU computes in milliseconds: 4 to 16 experts of 256 x 512 and 768 x 256."""
    grid = itertools.product((4, 8, 16), ((256, 512), (768, 256)), (1, 2, 4, 8, 16, 32, 64, 128, 256, 512))
    return [grouped_gemm_point("bf16", tokens, experts, 2, 1, n, k, "small") for experts, (n, k), tokens in grid]
