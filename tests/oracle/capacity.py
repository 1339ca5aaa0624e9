"""How many sequences fit, by adding one at a time; and how vLLM V1 lays out blocks.

Runtime rules: vLLM 0.33 `v1/core/kv_cache_utils.py` and `v1/worker/gpu_worker.py`: one pool of whole blocks, one null
block, layers of several spans in groups that share it, the last group of a span padded.
"""

from __future__ import annotations

from oracle import formats
from oracle.formats import up
from oracle.models import Layer, Model, stored
from oracle.step import Layout, on_rank


def stages(model: Model, layout: Layout) -> list[list[Layer]]:
    """Layers of each pipeline stage: as even as possible, earlier stages take the rest."""
    base, extra = divmod(len(model.layers), layout.pp)
    found, start = [], 0
    for stage in range(layout.pp):
        size = base + (stage < extra)
        found.append(model.layers[start : start + size])
        start += size
    return found


def weight_bytes(model: Model, layout: Layout, stage: int, fmt: str | None) -> int:
    """Bytes of one rank of one stage."""
    own = fmt if fmt in formats.PLAIN else model.dtype
    first, last = stage == 0, stage == layout.pp - 1
    table = formats.tensor_bytes(own, up(model.vocab, layout.tp) * model.d)
    total = table * first
    if last:
        total += formats.tensor_bytes(own, model.d) + (0 if model.tied and first else table)
    for layer in stages(model, layout)[stage]:
        total += formats.tensor_bytes(own, layer.vector_parameters())
        for m in layer.matrices():
            n, k = on_rank(m, layout)
            copies = up(m.copies, layout.ep) if m.name.startswith("experts") else m.copies
            total += copies * (formats.tensor_bytes(stored(m, fmt, own), n, k) + formats.tensor_bytes(own, n * m.bias))
    return total


def sequence_bytes(layers: list[Layer], layout: Layout, kv: str, tokens: int) -> int:
    """KV bytes of one sequence on one rank, to the byte."""
    element = formats.kv_bytes(kv)
    return sum(layer.kv_elements(layout.tp) * layer.kept(tokens) * element for layer in layers)


def fit(pool: int, each: int) -> int:
    """Sequences that fit, one after the other (whole powers of two first, to end before the reader does)."""
    held, step = 0, 1 << 40
    while step:
        while (held + step) * each <= pool:
            held += step
        step >>= 1
    return held


class Blocks:
    """One stage's blocks on one rank."""

    def __init__(self, layers: list[Layer], layout: Layout, kv: str, block_size: int) -> None:
        self.block_size = block_size
        kinds: dict[tuple[int | None, int | None], list[Layer]] = {}
        for layer in layers:
            kinds.setdefault((layer.window, layer.chunk), []).append(layer)
        pages = [layer.kv_elements(layout.tp) * formats.kv_bytes(kv) * block_size for layer in layers]
        counts = [len(same) for same in kinds.values()]
        if len(kinds) == 1:
            self.groups, self.block_bytes = [(*next(iter(kinds)), 1)], sum(pages)
            return
        size = max(counts) if max(counts) < 1.5 * min(counts) else min(counts)
        self.groups = [(window, chunk, up(len(same), size)) for (window, chunk), same in kinds.items()]
        self.block_bytes = size * max(pages)

    def of(self, tokens: int) -> int:
        """Blocks of one sequence: each group rounds up; a window keeps the blocks it touches, at most."""
        total = 0
        for window, chunk, groups in self.groups:
            whole = up(tokens, self.block_size)
            limit = window or chunk
            held = whole if limit is None else min(whole, up(limit - 1, self.block_size) + 1)
            total += groups * held
        return total
