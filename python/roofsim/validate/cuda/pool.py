"""One large block of random numbers from which operands are cut: no allocation and no generator call a point."""

from __future__ import annotations

import math
from typing import Any

__all__ = ["OperandPool"]

ALIGN_BYTES = 512
CHUNK_ELEMENTS = 1 << 27


class OperandPool:
    """Hands out views of random data; successive views never overlap until the pool wraps around.

    Parameters
    ----------
    torch
        The torch module.
    data_bytes
        Size of the bf16 block; the blocks of other formats take a share of it, when first used.
    scratch_bytes
        Size of the block for outputs.
    seed
        Seeds the data.
    """

    def __init__(self, torch: Any, *, data_bytes: int, scratch_bytes: int, seed: int) -> None:
        self.torch = torch
        self.device = torch.device("cuda")
        self.data_bytes = data_bytes
        torch.manual_seed(seed)
        self.blocks: dict[Any, Any] = {}
        self.cursors: dict[Any, int] = {}
        self.scratch_block = torch.empty(scratch_bytes, dtype=torch.uint8, device=self.device)
        self.scratch_cursor = 0

    def _fill(self, dtype: Any) -> Any:
        """Return a block of normal random numbers in `dtype` (of integers over the whole range for int8)."""
        torch = self.torch
        share = 1.0 if dtype == torch.bfloat16 else 0.12
        size = torch.empty(0, dtype=dtype).element_size()
        elements = int(share * self.data_bytes) // size // 4096 * 4096
        block = torch.empty(elements, dtype=dtype, device=self.device)
        for start in range(0, elements, CHUNK_ELEMENTS):
            part = block[start : start + CHUNK_ELEMENTS]
            if dtype == torch.int8:
                part.copy_(torch.randint(-127, 128, part.shape, dtype=torch.int8, device=self.device))
            elif size >= 2:
                part.normal_()
            else:
                part.copy_(torch.randn(part.shape, dtype=torch.bfloat16, device=self.device).to(dtype))
        return block

    def take(self, dtype: Any, *shape: int) -> Any:
        """Return a contiguous random tensor, a view at the moving cursor."""
        torch = self.torch
        if dtype not in self.blocks:
            self.blocks[dtype], self.cursors[dtype] = self._fill(dtype), 0
        block, count = self.blocks[dtype], math.prod(shape)
        if count > block.numel():
            return torch.randn(shape, dtype=torch.bfloat16, device=self.device).to(dtype)
        start = self.cursors[dtype]
        if start + count > block.numel():
            start = 0
        step = ALIGN_BYTES // block.element_size()
        self.cursors[dtype] = (start + count + step - 1) // step * step
        return block[start : start + count].view(shape)

    def scratch(self, dtype: Any, *shape: int) -> Any:
        """Return a contiguous output tensor, a view at the moving cursor, content undefined."""
        torch = self.torch
        size = math.prod(shape) * torch.empty(0, dtype=dtype).element_size()
        if size > self.scratch_block.numel():
            return torch.empty(shape, dtype=dtype, device=self.device)
        start = self.scratch_cursor
        if start + size > self.scratch_block.numel():
            start = 0
        self.scratch_cursor = (start + size + ALIGN_BYTES - 1) // ALIGN_BYTES * ALIGN_BYTES
        return self.scratch_block[start : start + size].view(dtype).view(shape)

    def clear(self) -> None:
        """Give the random data back; it is drawn anew when next needed."""
        self.blocks.clear()
        self.cursors.clear()
