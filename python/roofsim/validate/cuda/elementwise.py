"""Norms and element-wise kernels, fused as engines run them, in Triton."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .bench import Bench, Candidate
from .check import relative_error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from ..points import Point

__all__ = ["elementwise_bytes", "measure_elementwise"]

HEAD_DIM = 128
VOCABULARY = 65536
MAX_ACTUAL_ELEMENTS = 1 << 22


def elementwise_bytes(op: str, rows: int, width: int) -> float:
    """Return bf16 bytes read and written by an operation, its small tables left out."""
    per_element = {"rms_norm": 4, "add_rms_norm": 8, "silu_mul": 6, "residual_add": 6, "embedding": 4}
    if op == "rotary":
        return 4.0 * rows * width * HEAD_DIM + 4.0 * rows * HEAD_DIM
    return float(per_element[op]) * rows * width


def _operands(bench: Bench, op: str, rows: int, width: int) -> tuple[Any, ...]:
    """Return one operand set: inputs, then the output (in-place operations work on scratch copies)."""
    torch, pool = bench.torch, bench.pool
    bf16 = torch.bfloat16
    if op == "silu_mul":
        return pool.take(bf16, rows, 2 * width), pool.scratch(bf16, rows, width)
    if op == "rotary":
        x = pool.scratch(bf16, rows, width * HEAD_DIM)
        x.copy_(pool.take(bf16, rows, width * HEAD_DIM))
        return x, pool.take(torch.float32, rows, HEAD_DIM // 2), pool.take(torch.float32, rows, HEAD_DIM // 2)
    out = pool.scratch(bf16, rows, width)
    if op == "embedding":
        ids = torch.randint(0, VOCABULARY, (rows,), device="cuda")
        return pool.take(bf16, VOCABULARY, width), ids, out
    x = pool.take(bf16, rows, width)
    if op == "residual_add":
        return x, pool.take(bf16, rows, width), out
    weight = pool.take(bf16, width)
    if op == "rms_norm":
        return x, weight, out
    residual = pool.scratch(bf16, rows, width)
    residual.copy_(pool.take(bf16, rows, width))
    return x, residual, weight, out


def _reference(torch: Any, op: str, operands: tuple[Any, ...]) -> Any:
    """Return the operation's result in float64."""
    if op == "embedding":
        return operands[0][operands[1]].to(torch.float64)
    wide = [part.to(torch.float64) for part in operands]
    if op == "residual_add":
        return wide[0] + wide[1]
    if op == "silu_mul":
        gate, up = wide[0].chunk(2, dim=-1)
        return gate * torch.sigmoid(gate) * up
    if op == "rotary":
        heads = wide[0].view(wide[0].shape[0], -1, 2, HEAD_DIM // 2)
        c, s = wide[1][:, None], wide[2][:, None]
        first, second = heads[:, :, 0], heads[:, :, 1]
        return torch.stack([first * c - second * s, second * c + first * s], dim=2).view_as(wide[0])
    x, weight = (wide[0], wide[1]) if op == "rms_norm" else (wide[0] + wide[1], wide[2])
    return x * torch.rsqrt((x * x).mean(dim=-1, keepdim=True) + 1e-6) * weight


def _call(op: str) -> Callable[..., Any]:
    from . import triton_elementwise as kernels

    return getattr(kernels, op)  # type: ignore[no-any-return]


def measure_elementwise(bench: Bench, point: Point) -> Iterator[Mapping[str, Any]]:
    """Time one fused kernel on rotating operands."""
    torch = bench.torch
    op, rows, width = point.text("op"), point.integer("rows"), point.integer("width")
    call = _call(op)
    num_bytes = elementwise_bytes(op, rows, width)
    count = bench.stopwatch.launches(bench.estimate_s(0.0, num_bytes), num_bytes)
    sets = [_operands(bench, op, rows, width) for _ in range(count)]
    row = bench.time_candidate(Candidate("triton", call, {"bytes": num_bytes}), sets, num_bytes, None)

    def error(few: int) -> float:
        operands = _operands(bench, op, few, width)
        torch.cuda.synchronize()
        reference = _reference(torch, op, operands)
        return relative_error(torch, call(*operands), reference)

    if row.get("error") is None:
        actual = (lambda: error(rows)) if num_bytes <= 4 * MAX_ACTUAL_ELEMENTS else None
        row.update(bench.checks.verdict(f"elementwise:{op}", "bf16", lambda: error(min(rows, 32)), actual))
    yield row
