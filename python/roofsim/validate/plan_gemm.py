"""GEMM points: the linear layers of published models at every tensor-parallel size, and random shapes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from .points import Point, Scalar, thin, unique
from .shapes import DENSE_MODELS, linear_shapes

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator

__all__ = ["MODEL_ROWS", "gemm_points", "model_gemms", "random_gemms"]

MODEL_ROWS = (1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096, 8192)
LM_HEAD_MAX_ROWS = 1024
MAX_FLOPS = 4.0e12  # one call of some 5 ms: larger ones cost the run's time and teach nothing new


def _gemm(dtype: str, m: int, n: int, k: int, source: str) -> Point:
    params: dict[str, Scalar] = {"dtype": dtype, "m": m, "n": n, "k": k}
    return Point("gemm", params, {"shape_group": f"({n},{k})", "source": source})


def _allowed(dtype: str, m: int, n: int, k: int) -> bool:
    """Apply what the kernels accept: fp8 needs multiples of 16, torch._int_mm more than 16 rows and multiples of 8."""
    if 2.0 * m * n * k > MAX_FLOPS:
        return False
    if dtype == "fp8":
        return n % 16 == 0 and k % 16 == 0
    if dtype == "int8":
        return m > 16 and n % 8 == 0 and k % 8 == 0
    return True


def model_gemms(dtype: str) -> Iterator[Point]:
    """Yield every (layer, tensor-parallel size, rows) of the published models."""
    for model in DENSE_MODELS:
        for tp in (1, 2, 4, 8):
            for layer, (n, k) in linear_shapes(model, tp).items():
                for m in MODEL_ROWS:
                    if layer == "lm_head" and m > LM_HEAD_MAX_ROWS:
                        continue
                    if _allowed(dtype, m, n, k):
                        yield _gemm(dtype, m, n, k, f"model:{model.name}:{layer}:tp{tp}")


def _log_uniform(rng: random.Random, low: int, high: int) -> int:
    return round(math.exp(rng.uniform(math.log(low), math.log(high))))


def random_gemms(dtype: str, shapes: int, rows_per_shape: int, rng: random.Random) -> Iterator[Point]:
    """Yield random shapes: n and k log-uniform over 256..32768, mostly multiples of 64, some of 16 or 8."""
    for index in range(shapes):
        draw = rng.random()
        step = 64 if draw < 0.8 else 16 if draw < 0.92 or dtype == "fp8" else 8
        n = max(step, _log_uniform(rng, 256, 32768) // step * step)
        k = max(step, _log_uniform(rng, 256, 32768) // step * step)
        taken = 0
        for _ in range(20 * rows_per_shape):
            m = _log_uniform(rng, 1, 16384)
            m = m if m < 64 or rng.random() < 0.3 else m // 16 * 16
            if _allowed(dtype, m, n, k):
                yield _gemm(dtype, m, n, k, f"random:{index}")
                taken += 1
            if taken == rows_per_shape:
                break


def gemm_points(rng: random.Random, *, scale: float = 1.0, dtypes: tuple[str, ...] | None = None) -> list[Point]:
    """Return the GEMM points of a run: about 1,500 bf16, 600 fp8 and 60 each of fp16 and int8, times `scale`."""
    counts = {"bf16": (950, 550), "fp8": (370, 230), "fp16": (60, 0), "int8": (60, 0)}
    points: list[Point] = []
    for dtype, (from_models, from_random) in counts.items():
        if dtypes is not None and dtype not in dtypes:
            continue
        candidates = unique(model_gemms(dtype))
        points += thin(candidates, max(1, round(from_models * scale)), rng)
        rows = 4
        shapes = math.ceil(from_random * scale / rows)
        points += list(random_gemms(dtype, shapes, rows, rng))
    return unique(points)
