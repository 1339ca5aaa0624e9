"""GEMM: out[m, n] = x[m, k] w[n, k]^T, the layout of a linear layer, in bf16, fp16, fp8 and int8."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .bench import Bench, Candidate
from .check import relative_error

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from ..points import Point

__all__ = ["GEMM_KERNELS", "gemm_call", "measure_gemm"]

SMALL = (48, 512, 1024)
MAX_ACTUAL_FLOPS = 4e9
MAX_ACTUAL_ELEMENTS = 1 << 25
BYTES = {"bf16": 2, "fp16": 2, "fp8": 1, "int8": 1}
OUT_BYTES = {"bf16": 2, "fp16": 2, "fp8": 2, "int8": 4}
GEMM_KERNELS = {"bf16": "torch.mm", "fp16": "torch.mm", "fp8": "torch._scaled_mm", "int8": "torch._int_mm"}


def gemm_call(bench: Bench, dtype: str) -> Any:
    """Return a function of (x, w, out) that runs torch's kernel for the format."""
    torch = bench.torch
    if dtype == "fp8":
        one = torch.ones((), dtype=torch.float32, device="cuda")

        def scaled(x: Any, w: Any, out: Any) -> Any:
            return torch._scaled_mm(
                x, w.t(), scale_a=one, scale_b=one, out_dtype=torch.bfloat16, use_fast_accum=True, out=out
            )

        return scaled
    if dtype == "int8":
        return lambda x, w, out: torch._int_mm(x, w.t(), out=out)
    return lambda x, w, out: torch.mm(x, w.t(), out=out)


def _operands(bench: Bench, dtype: str, m: int, n: int, k: int) -> tuple[Any, Any, Any]:
    torch = bench.torch
    out_dtype = {"fp8": torch.bfloat16, "int8": torch.int32}.get(dtype, bench.dtype(dtype))
    kind = bench.dtype(dtype)
    return bench.pool.take(kind, m, k), bench.pool.take(kind, n, k), bench.pool.scratch(out_dtype, m, n)


def _error(bench: Bench, dtype: str, m: int, n: int, k: int) -> float:
    """Return the relative error of one call on fresh operands, with the output poisoned beforehand."""
    torch = bench.torch
    x, w, out = _operands(bench, dtype, m, n, k)
    out.fill_(-7)
    result = gemm_call(bench, dtype)(x, w, out)
    reference = x.to(torch.float64) @ w.to(torch.float64).t()
    error = relative_error(torch, result, reference)
    torch.cuda.synchronize()
    return error


def measure_gemm(bench: Bench, point: Point) -> Iterator[Mapping[str, Any]]:
    """Time torch's kernel of the point's format on rotating operands."""
    dtype, (m, n, k) = point.text("dtype"), (point.integer(name) for name in "mnk")
    flops = 2.0 * m * n * k
    read = float(BYTES[dtype] * (m * k + n * k))
    written = float(OUT_BYTES[dtype] * m * n)
    estimate = bench.estimate_s(flops, read + written)
    # the output counts for half: it is written through, and what is dirty of it is not read again
    sets = [_operands(bench, dtype, m, n, k) for _ in range(bench.stopwatch.launches(estimate, read + written / 2))]
    candidate = Candidate(GEMM_KERNELS[dtype], gemm_call(bench, dtype), {})
    row = bench.time_candidate(candidate, sets, read + written / 2, None)
    if row.get("error") is None:
        small = flops <= MAX_ACTUAL_FLOPS and max(m * k, n * k, m * n) <= MAX_ACTUAL_ELEMENTS
        key = f"gemm:{dtype}:{candidate.backend}"
        actual = (lambda: _error(bench, dtype, m, n, k)) if small else None
        row.update(bench.checks.verdict(key, dtype, lambda: _error(bench, dtype, *SMALL), actual))
    yield row
