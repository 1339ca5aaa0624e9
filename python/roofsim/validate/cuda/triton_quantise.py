"""Triton kernel that quantises activations to fp8 with a scale of the whole tensor."""
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, allow-untyped-calls
# ruff: noqa: N803 - tile sizes are upper case, as in Triton's own kernels

from typing import Any

import triton
import triton.language as tl

__all__ = ["FP8_MAX", "quantise"]

FP8_MAX = 448.0
"""Largest finite number of e4m3."""


@triton.jit
def _quantise_kernel(x, out, count, inverse, LARGEST: tl.constexpr, BLOCK: tl.constexpr):
    """Out = x / scale, clamped to the range of fp8."""
    places = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = places < count
    values = tl.load(x + places, mask=inside, other=0.0).to(tl.float32) * inverse
    values = tl.minimum(tl.maximum(values, -LARGEST), LARGEST)
    tl.store(out + places, values.to(out.dtype.element_ty), mask=inside)


def quantise(x: Any, out: Any, scale: float) -> Any:
    """Write x / scale to `out`, an fp8 tensor of the same number of elements; both contiguous."""
    count = x.numel()
    block = 1024 if count < 1 << 20 else 2048
    _quantise_kernel[(triton.cdiv(count, block),)](
        x, out, count, 1.0 / scale, LARGEST=FP8_MAX, BLOCK=block, num_warps=4
    )
    return out
