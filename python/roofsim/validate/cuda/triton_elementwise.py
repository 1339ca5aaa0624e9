"""Triton element-wise kernels as inference engines fuse them."""
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, allow-untyped-calls
# ruff: noqa: N803 - tile sizes are upper case, as in Triton's own kernels

from typing import Any

import torch
import triton
import triton.language as tl

__all__ = [
    "add_rms_norm",
    "embedding",
    "empty",
    "read_sum",
    "residual_add",
    "rms_norm",
    "rotary",
    "rotary_angles",
    "silu_mul",
]

EPSILON = 1e-6
HEAD_DIM = 128


@triton.jit
def _rms_norm_kernel(
    x, weight, out, width, epsilon, inverse, ADD: tl.constexpr, QUANTISE: tl.constexpr, residual, BLOCK: tl.constexpr
):
    """Normalise one row; with ADD, first add it to the residual stream, which is updated in place.

    With QUANTISE the result is multiplied by `inverse` and clamped to the range of fp8.
    """
    row = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, BLOCK)
    inside = columns < width
    values = tl.load(x + row * width + columns, mask=inside, other=0.0).to(tl.float32)
    if ADD:
        values += tl.load(residual + row * width + columns, mask=inside, other=0.0).to(tl.float32)
        tl.store(residual + row * width + columns, values.to(residual.dtype.element_ty), mask=inside)
    scale = tl.rsqrt(tl.sum(values * values, 0) / width + epsilon)
    scaled = values * scale * tl.load(weight + columns, mask=inside, other=0.0).to(tl.float32)
    if QUANTISE:
        scaled = tl.minimum(tl.maximum(scaled * inverse, -448.0), 448.0)
    tl.store(out + row * width + columns, scaled.to(out.dtype.element_ty), mask=inside)


def _norm(x, weight, out, residual, add, scale):
    rows, width = x.shape
    block = triton.next_power_of_2(width)
    warps = min(16, max(4, block // 512))
    quantised = out.element_size() == 1
    _rms_norm_kernel[(rows,)](
        x, weight, out, width, EPSILON, 1.0 / scale, add, quantised, residual, BLOCK=block, num_warps=warps
    )
    return out


def rms_norm(x: Any, weight: Any, out: Any, scale: float = 1.0) -> Any:
    """RMSNorm of [rows, width]; divided by `scale` where `out` is fp8."""
    return _norm(x, weight, out, x, False, scale)


def add_rms_norm(x: Any, residual: Any, weight: Any, out: Any, scale: float = 1.0) -> Any:
    """Residual += x; RMSNorm of the sum, divided by `scale` where `out` is fp8."""
    return _norm(x, weight, out, residual, True, scale)


@triton.jit
def _silu_mul_kernel(x, out, width, inverse, QUANTISE: tl.constexpr, BLOCK: tl.constexpr):
    """SiLU of the left half of a row times its right half; with QUANTISE clamped to the range of fp8."""
    row = tl.program_id(0).to(tl.int64)
    columns = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = columns < width
    gate = tl.load(x + row * 2 * width + columns, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(x + row * 2 * width + width + columns, mask=inside, other=0.0).to(tl.float32)
    product = gate * tl.sigmoid(gate) * up
    if QUANTISE:
        product = tl.minimum(tl.maximum(product * inverse, -448.0), 448.0)
    tl.store(out + row * width + columns, product.to(out.dtype.element_ty), mask=inside)


def silu_mul(x: Any, out: Any, scale: float = 1.0) -> Any:
    """SiLU-gated product: [rows, 2 width] -> [rows, width]; divided by `scale` where `out` is fp8."""
    rows, width = out.shape
    grid = (rows, triton.cdiv(width, 1024))
    _silu_mul_kernel[grid](x, out, width, 1.0 / scale, out.element_size() == 1, BLOCK=1024, num_warps=4)
    return out


@triton.jit
def _rotary_kernel(x, cosine, sine, heads, stride, HALF: tl.constexpr, BLOCK: tl.constexpr):
    """Rotate the two halves of each head of one row in place."""
    row = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    columns = tl.arange(0, HALF)
    inside = (head < heads)[:, None]
    base = x + row * stride + head[:, None] * 2 * HALF + columns[None, :]
    first = tl.load(base, mask=inside, other=0.0).to(tl.float32)
    second = tl.load(base + HALF, mask=inside, other=0.0).to(tl.float32)
    c = tl.load(cosine + row * HALF + columns)[None, :]
    s = tl.load(sine + row * HALF + columns)[None, :]
    tl.store(base, (first * c - second * s).to(x.dtype.element_ty), mask=inside)
    tl.store(base + HALF, (second * c + first * s).to(x.dtype.element_ty), mask=inside)


def rotary(x: Any, cosine: Any, sine: Any, heads: int | None = None, head_dim: int = HEAD_DIM) -> Any:
    """Rotate the first `heads` heads of each row of x [rows, any] in place; cosine and sine [rows, h/2] float32."""
    rows, stride = x.shape
    heads = stride // head_dim if heads is None else heads
    grid = (rows, triton.cdiv(heads, 16))
    _rotary_kernel[grid](x, cosine, sine, heads, stride, HALF=head_dim // 2, BLOCK=16, num_warps=4)
    return x


@triton.jit
def _add_kernel(x, y, out, count, BLOCK: tl.constexpr):
    """Out = x + y."""
    places = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = places < count
    total = tl.load(x + places, mask=inside) + tl.load(y + places, mask=inside)
    tl.store(out + places, total, mask=inside)


def residual_add(x: Any, y: Any, out: Any) -> Any:
    """Out = x + y, any shape."""
    count = x.numel()
    _add_kernel[(triton.cdiv(count, 2048),)](x, y, out, count, BLOCK=2048, num_warps=8)
    return out


@triton.jit
def _embedding_kernel(table, ids, out, width, BLOCK: tl.constexpr):
    """Copy one gathered row."""
    row = tl.program_id(0).to(tl.int64)
    columns = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = columns < width
    source = tl.load(ids + row).to(tl.int64)
    tl.store(out + row * width + columns, tl.load(table + source * width + columns, mask=inside), mask=inside)


def embedding(table: Any, ids: Any, out: Any) -> Any:
    """Gather rows of an embedding table: [vocabulary, width], [rows] -> [rows, width]."""
    rows, width = out.shape
    _embedding_kernel[(rows, triton.cdiv(width, 1024))](table, ids, out, width, BLOCK=1024, num_warps=4)
    return out


@triton.jit
def _read_kernel(x, out, count, per_program, BLOCK: tl.constexpr):
    """Sum a contiguous share of x, block by block: every byte is read, almost none is written."""
    first = tl.program_id(0).to(tl.int64) * per_program
    total = tl.zeros([BLOCK], tl.float32)
    for start in range(0, per_program, BLOCK):
        places = first + start + tl.arange(0, BLOCK)
        total += tl.load(x + places, mask=places < count, other=0.0)
    tl.store(out + tl.program_id(0), tl.sum(total, 0))


def read_sum(x: Any, out: Any) -> Any:
    """Sum x (float32, one dimension) into out, one partial sum a program; reads every byte once."""
    programs = out.numel()
    block = 4096
    share = triton.cdiv(triton.cdiv(x.numel(), programs), block) * block
    _read_kernel[(programs,)](x, out, x.numel(), share, BLOCK=block, num_warps=8)
    return out


@triton.jit
def _empty_kernel():
    """Do nothing."""


def empty() -> None:
    """Launch a kernel that does nothing."""
    _empty_kernel[(1,)](num_warps=1)


def rotary_angles(rows: int, half: int, device: Any) -> tuple[Any, Any]:
    """Return cosine and sine tables [rows, half] for positions 0..rows-1."""
    steps = torch.arange(rows, device=device, dtype=torch.float32)[:, None]
    angles = steps * 10000.0 ** (-torch.arange(half, device=device, dtype=torch.float32) / half)[None, :]
    return torch.cos(angles).contiguous(), torch.sin(angles).contiguous()
