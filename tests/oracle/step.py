"""The whole ideal step of one rank, as operations by name.

Megatron-style tensor parallelism (Shoeybi et al., 2019): projections in are cut by columns, projections out by rows,
one all-reduce after each; experts over expert-parallel ranks, tokens of several replicas meeting in an all-to-all.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from oracle import formats, ops
from oracle.formats import multiplied_as, up
from oracle.models import Layer, Matrix, Model, stored
from oracle.ops import Cost, Machine


@dataclass
class Layout:
    tp: int = 1
    pp: int = 1
    dp: int = 1
    ep: int = 1

    @property
    def expert_tp(self) -> int:
        """Tensor ranks that share one expert: those that expert parallelism leaves over."""
        return max(1, self.tp // self.ep)

    @property
    def replicas(self) -> int:
        """Replicas whose tokens meet in one group of experts."""
        return max(1, self.ep // self.tp)


def on_rank(m: Matrix, layout: Layout) -> tuple[int, int]:
    """(n, k) of a matrix on one rank."""
    if m.split == "kv":
        return m.n // m.kv_heads * max(1, m.kv_heads // layout.tp), m.k
    by = {"column": (layout.tp, 1), "row": (1, layout.tp), "none": (1, 1)}
    by |= {"expert-column": (layout.expert_tp, 1), "expert-row": (1, layout.expert_tp)}
    n_ranks, k_ranks = by[m.split]
    assert m.n % n_ranks == 0
    assert m.k % k_ranks == 0
    return m.n // n_ranks, m.k // k_ranks


class Step:
    """Operations of one step by name; equal names add up."""

    def __init__(self, model: Model, spec: dict[str, Any], layout: Layout, fmt: str | None, kv: str) -> None:
        self.own = fmt if fmt in formats.PLAIN else model.dtype
        self.model, self.layout, self.fmt, self.kv = model, layout, fmt, kv
        self.machine = Machine(spec)
        self.found: dict[str, list[Cost]] = {}

    def run(self, requests: list[tuple[int, int]]) -> dict[str, list[Cost]]:
        self.requests = requests
        self.rows = sum(q for q, _ in requests)
        d, tp = self.model.d, self.layout.tp
        self.elementwise("embedding", 2 * d)
        self.all_reduce("embedding_all_reduce")
        for layer in self.model.layers:
            self.layer(layer)
        if self.layout.pp > 1:
            size = self.rows * formats.activation_bytes(d, self.own) / tp
            for _ in range(self.layout.pp - 1):
                self.add("stage_send", self.machine.collective("point_to_point", size, 2))
        self.elementwise("final_norm", 4 * d)
        columns = up(self.model.vocab, tp)
        self.gemm("lm_head", columns, d, self.own, len(requests))
        if tp > 1:
            size = len(requests) * formats.activation_bytes(columns * tp, self.own)
            self.add("logits_all_gather", self.machine.collective("all_gather", size, tp))
        return self.found

    def layer(self, layer: Layer) -> None:
        tp, d = self.layout.tp, self.model.d
        # Residual and update in, residual and the normed row out, that one as the product after it multiplies it. The
        # norms of this model's kinds of layer: before the mixer, before the feed-forward, further ones after each.
        first = layer.matrices()[0].name
        for readers in [{first}, {"gate_up_proj"}, *[set()] * (layer.norms - 2)]:
            self.moved("norm", self.rows * (d * 3 * self.element() + self.read_by(layer, readers, d)))
        self.projections(layer)
        self.latent(layer) if layer.latent else self.attention(layer)
        self.all_reduce("mixer_all_reduce")
        if layer.moe:
            self.moe(layer)
        else:
            width = layer.width // tp
            self.moved(
                "activation", self.rows * (2 * width * self.element() + self.read_by(layer, {"down_proj"}, width))
            )
        self.all_reduce("feed_forward_all_reduce")

    def projections(self, layer: Layer) -> None:
        fused: dict[str, list[Matrix]] = {}
        for m in layer.matrices():
            if not m.latent_up and not m.name.startswith("experts"):
                fused.setdefault(m.name, []).append(m)
        for name, matrices in fused.items():
            shapes = [on_rank(m, self.layout) for m in matrices]
            self.gemm(name, sum(n for n, _ in shapes), shapes[0][1], stored(matrices[0], self.fmt, self.own), self.rows)

    def attention(self, layer: Layer) -> None:
        heads, kv_heads = layer.heads // self.layout.tp, max(1, layer.kv_heads // self.layout.tp)
        if layer.rotary_kernel:
            self.elementwise("rotary", 2 * (heads + kv_heads) * layer.h)
        flops = moved = 0
        for q, s in self.requests:
            f, b = ops.attention(q, s, heads, kv_heads, layer.h, self.own, self.kv, layer.window, layer.chunk)
            flops, moved = flops + f, moved + b
        self.add("attention", self.machine.roof(flops, moved, self.own))

    def latent(self, layer: Layer) -> None:
        a, heads = layer.latent, layer.heads // self.layout.tp
        if a["q_rank"] is not None:
            self.elementwise("q_a_norm", 2 * a["q_rank"])
        self.elementwise("kv_a_norm", 2 * a["rank"])
        self.elementwise("rotary", 2 * (heads + 1) * a["rope"])
        (weight,) = [m for m in layer.matrices() if m.latent_up]
        flops, moved = 0, formats.tensor_bytes(stored(weight, self.fmt, self.own), *on_rank(weight, self.layout))
        for q, s in self.requests:
            shape = (heads, a["rank"], a["nope"], a["rope"], a["v"])
            flops += min(ops.latent_flops(q, s, *shape).values())
            moved += ops.latent_bytes(q, s, *shape, self.own, self.kv)
        self.add("latent_attention", self.machine.roof(flops, moved, self.own))

    def moe(self, layer: Layer) -> None:
        m, layout, d = layer.moe, self.layout, self.model.d
        if m["shared"]:
            self.elementwise("shared_activation", 3 * m["shared"] // layout.tp)
        # fp32 scores in, k indices and weights of 4 bytes out.
        self.moved("routing", self.rows * (4 * m["experts"] + 8 * m["per_token"]))
        self.exchange("dispatch_all_to_all", m)
        tokens = self.rows * layout.replicas
        for matrix in layer.matrices():
            if matrix.name.startswith("experts"):
                n, k = on_rank(matrix, layout)
                fmt = stored(matrix, self.fmt, self.own)
                dtype = multiplied_as(fmt, self.own)
                shape = (tokens, m["experts"], m["per_token"], n, k, fmt, dtype, layout.ep)
                self.add(matrix.name, self.machine.roof(*ops.grouped(*shape), dtype))
        routed = Fraction(tokens * m["per_token"], layout.ep)
        element = Fraction(formats.BITS[self.own], 8)
        self.moved("experts_activation", 3 * routed * (m["width"] // layout.expert_tp) * element)
        self.moved("experts_combine", (routed + self.rows) * d * element)
        self.exchange("combine_all_to_all", m)

    def exchange(self, name: str, m: dict[str, Any]) -> None:
        if self.layout.replicas > 1:
            ranks = self.layout.ep
            copies = ranks * (1 - Fraction(ranks - 1, ranks) ** m["per_token"])
            size = self.rows * copies * formats.activation_bytes(self.model.d, self.own) / self.layout.tp
            self.add(name, self.machine.collective("all_to_all", size, ranks))

    def element(self) -> Fraction:
        """Bytes of an activation's element."""
        return Fraction(formats.BITS[self.own], 8)

    def read_by(self, layer: Layer, names: set[str], elements: int) -> Fraction:
        """Bytes of so many elements as the named matrices multiply them; full width where there is none."""
        found = [multiplied_as(stored(m, self.fmt, self.own), self.own) for m in layer.matrices() if m.name in names]
        bits = min(formats.BITS[found[0]], formats.BITS[self.own]) if found else formats.BITS[self.own]
        return Fraction(elements * bits, 8)

    def add(self, name: str, cost: Cost) -> None:
        self.found.setdefault(name, []).append(cost)

    def gemm(self, name: str, n: int, k: int, fmt: str, rows: int) -> None:
        dtype = multiplied_as(fmt, self.own)
        self.add(name, self.machine.roof(*ops.gemm(rows, n, k, fmt, dtype), dtype))

    def moved(self, name: str, size: Fraction | int) -> None:
        self.add(name, self.machine.roof(0, size, self.own))

    def elementwise(self, name: str, elements: int) -> None:
        self.moved(name, self.rows * formats.activation_bytes(elements, self.own))

    def all_reduce(self, name: str) -> None:
        if self.layout.tp > 1:
            size = self.rows * formats.activation_bytes(self.model.d, self.own)
            self.add(name, self.machine.collective("all_reduce", size, self.layout.tp))
