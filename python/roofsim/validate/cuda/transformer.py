"""A decoder of random weights on the device, and one step of equal requests as a list of kernels.

The kernels are those that roofsim's step prices, fused as engines fuse them: embedding; per layer a norm (with the
residual added), the fused QKV product, rotary embedding with the KV write, attention, the output product, a second
norm, and the feed-forward; a last norm; the head on the last row of each request. Routing of a mixture is uniform:
the router's product is computed, and the experts are then chosen from random scores, since random weights would send
nearly all tokens to the same experts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..architectures import Architecture
    from .bench import Bench

__all__ = ["Step", "Transformer"]

WEIGHT_STD = 0.02
ROTARY_BASE = 10_000.0
DENSE_ELEMENTWISE, MOE_ELEMENTWISE = 4, 7  # kernels a layer besides products and attention


class Transformer:
    """Random bf16 weights of the first layers of an architecture.

    Parameters
    ----------
    torch
        The torch module.
    architecture
        Sizes.
    num_layers
        Layers that are built.
    """

    def __init__(self, torch: Any, architecture: Architecture, num_layers: int) -> None:
        self.torch = torch
        self.architecture = a = architecture
        self.num_layers = num_layers
        self.key_values: Any = None
        self.embedding = self._matrix(a.vocab_size, a.hidden_size)
        self.head = self.embedding if a.tie_word_embeddings else self._matrix(a.vocab_size, a.hidden_size)
        self.final_norm = self._gain(a.hidden_size)
        heads = {"none": 0, "head": 2, "row": a.num_attention_heads + a.num_key_value_heads}[a.qk_norm]
        self.layers: list[dict[str, Any]] = []
        for _ in range(num_layers):
            layer = {name: self._matrix(*shape) for name, shape in a.layer_weights().items()}
            layer["norm"], layer["second_norm"] = self._gain(a.hidden_size), self._gain(a.hidden_size)
            layer["qk_norm"] = self._gain(max(heads, 1), a.head_dim)
            if a.qkv_bias:
                layer["qkv_bias"] = self._matrix(layer["qkv"].shape[0])
            self.layers.append(layer)

    def _matrix(self, *shape: int) -> Any:
        torch = self.torch
        return torch.empty(shape, dtype=torch.bfloat16, device="cuda").normal_(std=WEIGHT_STD)

    def _gain(self, *shape: int) -> Any:
        torch = self.torch
        return torch.empty(shape, dtype=torch.bfloat16, device="cuda").normal_(mean=1.0, std=0.1)

    def caches(self, batch: int, context: int) -> list[tuple[Any, Any]]:
        """Return random K and V caches [B, K, S, h] of each layer, cut from one block that grows as needed."""
        a, torch = self.architecture, self.torch
        shape = (self.num_layers, 2, batch, a.num_key_value_heads, context, a.head_dim)
        count = 1
        for size in shape:
            count *= size
        if self.key_values is None or self.key_values.numel() < count:
            self.key_values = None
            torch.cuda.empty_cache()
            self.key_values = torch.empty(count, dtype=torch.bfloat16, device="cuda")
            for part in self.key_values.split(1 << 30):
                part.normal_()
        block = self.key_values[:count].view(shape)
        return [(block[layer, 0], block[layer, 1]) for layer in range(self.num_layers)]


class Step:
    """One step of `batch` requests with `query` new tokens each at the end of `context` tokens.

    Parameters
    ----------
    bench
        The device in hand.
    model
        The weights.
    batch, query, context
        Requests, new tokens of each, tokens of each with the new ones.
    """

    def __init__(self, bench: Bench, model: Transformer, batch: int, query: int, context: int) -> None:
        torch = bench.torch
        self.bench, self.model = bench, model
        self.batch, self.query, self.context = batch, query, context
        a = model.architecture
        self.rows = rows = batch * query
        self.caches = model.caches(batch, context)

        def buffer(*shape: int) -> Any:
            return torch.empty(shape, dtype=torch.bfloat16, device="cuda")

        self.ids = torch.randint(0, a.vocab_size, (rows,), device="cuda")
        self.residual, self.normed, self.update = (buffer(rows, a.hidden_size) for _ in range(3))
        self.qkv = buffer(rows, model.layers[0]["qkv"].shape[0])
        self.queries = buffer(rows, a.num_attention_heads * a.head_dim).normal_()
        self.logits = buffer(batch, a.vocab_size)
        steps = torch.arange(context, device="cuda", dtype=torch.float32)[:, None]
        half = a.head_dim // 2
        angles = steps * ROTARY_BASE ** (-torch.arange(half, device="cuda", dtype=torch.float32) / half)[None, :]
        self.cosine, self.sine = torch.cos(angles).contiguous(), torch.sin(angles).contiguous()
        self.attention: Callable[[Any, Any, Any], Any] | None = None
        self.experts: Experts | None = None
        if a.num_experts:
            self.experts = Experts(bench, model, rows)
        else:
            self.wide = buffer(rows, 2 * a.intermediate_size)
            self.narrow = buffer(rows, a.intermediate_size)

    def query_view(self) -> Any:
        """Return the queries as attention takes them: [B, K, G, h] for a decode, else [B, H, T, h] (strided)."""
        a = self.model.architecture
        if self.query == 1:
            group = a.num_attention_heads // a.num_key_value_heads
            return self.queries.view(self.batch, a.num_key_value_heads, group, a.head_dim)
        return self.queries.view(self.batch, self.query, a.num_attention_heads, a.head_dim).transpose(1, 2)

    def flat(self, mixed: Any) -> Any:
        """Return attention's result as rows [B T, H h]; a view where its memory is laid out so."""
        if self.query > 1:
            mixed = mixed.transpose(1, 2)
        return mixed.reshape(self.rows, -1)

    def elementwise_per_layer(self) -> int:
        """Return the number of kernels a layer runs besides products and attention."""
        if self.experts is None:
            return DENSE_ELEMENTWISE
        return MOE_ELEMENTWISE + (0 if self.experts.tile is not None else 1)

    def __call__(self) -> Any:
        """Run the step; returns the logits [B, vocabulary]."""
        from .triton_elementwise import add_rms_norm, embedding, rms_norm, silu_mul
        from .triton_step import rotary_cache

        torch, model, a = self.bench.torch, self.model, self.model.architecture
        if self.attention is None:
            raise RuntimeError("choose an attention kernel before running the step")
        view = self.query_view()
        if self.experts is not None:
            self.experts.counts.zero_()
        embedding(model.embedding, self.ids, self.residual)
        for index, layer in enumerate(model.layers):
            if index == 0:
                rms_norm(self.residual, layer["norm"], self.normed)
            else:
                add_rms_norm(self.update, self.residual, layer["norm"], self.normed)
            if a.qkv_bias:
                torch.addmm(layer["qkv_bias"], self.normed, layer["qkv"].t(), out=self.qkv)
            else:
                torch.mm(self.normed, layer["qkv"].t(), out=self.qkv)
            key, value = self.caches[index]
            rotary_cache(
                self.qkv, layer["qk_norm"], self.cosine, self.sine, self.queries, key, value, norm_kind=a.qk_norm
            )
            torch.mm(self.flat(self.attention(view, key, value)), layer["o"].t(), out=self.update)
            add_rms_norm(self.update, self.residual, layer["second_norm"], self.normed)
            if self.experts is not None:
                self.experts(index, self.normed, self.update)
                continue
            torch.mm(self.normed, layer["gate_up"].t(), out=self.wide)
            silu_mul(self.wide, self.narrow)
            torch.mm(self.narrow, layer["down"].t(), out=self.update)
        add_rms_norm(self.update, self.residual, model.final_norm, self.normed)
        last = self.normed.view(self.batch, self.query, -1)[:, -1]
        return torch.mm(last, model.head.t(), out=self.logits)


class Experts:
    """The routed feed-forward of a step: buffers, uniform scores, and the grouped kernel that was chosen.

    Parameters
    ----------
    bench
        The device in hand.
    model
        The weights.
    rows
        Tokens of the step.
    """

    def __init__(self, bench: Bench, model: Transformer, rows: int) -> None:
        torch = bench.torch
        self.bench, self.model, self.rows = bench, model, rows
        a = model.architecture
        top, experts = a.num_experts_per_tok, a.num_experts

        def integers(*shape: int) -> Any:
            return torch.zeros(shape, dtype=torch.int32, device="cuda")

        def buffer(*shape: int) -> Any:
            return torch.empty(shape, dtype=torch.bfloat16, device="cuda")

        self.scores = torch.randn((model.num_layers, rows, experts), dtype=torch.float32, device="cuda")
        self.router_out = buffer(rows, experts)
        self.ids, self.ranks, self.place = (integers(rows, top) for _ in range(3))
        self.weights = torch.zeros((rows, top), dtype=torch.float32, device="cuda")
        self.counts = integers(model.num_layers, experts)
        self.source, self.ends = integers(rows * top), integers(experts)
        self.permuted = buffer(rows * top, a.hidden_size)
        self.wide = buffer(rows * top, 2 * a.intermediate_size)
        self.narrow = buffer(rows * top, a.intermediate_size)
        self.outputs = buffer(rows * top, a.hidden_size)
        self.tile: Any = None
        self.tiles: dict[int, Any] = {}

    def use(self, tile: Any) -> None:
        """Choose the grouped kernel: a tile configuration of the Triton kernel, or None for torch's."""
        from .triton_moe import empty_tiles

        self.tile = tile
        size = 64 if tile is None else tile.rows
        if size not in self.tiles:
            experts = self.model.architecture.num_experts
            self.tiles[size] = empty_tiles(self.source.numel(), experts, size, self.bench.torch.device("cuda"))

    def hits(self) -> list[int]:
        """Return the number of experts hit in each layer by the last step."""
        return [int(count) for count in (self.counts > 0).sum(dim=1).tolist()]

    def __call__(self, index: int, x: Any, out: Any) -> Any:
        """Route the rows of x [rows, hidden] in layer `index`, whose counts are zero, and write the mixture to out."""
        from .triton_elementwise import silu_mul
        from .triton_moe import combine, gather_rows, grouped_matmul, route, sort_rows

        torch, layer, tile = self.bench.torch, self.model.layers[index], self.tile
        size = 64 if tile is None else tile.rows
        tiles = self.tiles[size]
        torch.mm(x, layer["router"].t(), out=self.router_out)
        route(self.scores[index], self.ids, self.weights, self.ranks, self.counts[index])
        sort_rows(self.ids, self.ranks, self.counts[index], self.source, self.place, self.ends, tiles, size)
        if tile is None:
            gather_rows(x, self.source, self.permuted)
            wide = torch._grouped_mm(self.permuted, layer["gate_up"].transpose(1, 2), offs=self.ends)
            silu_mul(wide, self.narrow)
            outputs = torch._grouped_mm(self.narrow, layer["down"].transpose(1, 2), offs=self.ends)
        else:
            grouped_matmul(x, layer["gate_up"], self.wide, self.source, tiles, tile)
            silu_mul(self.wide, self.narrow)
            outputs = grouped_matmul(self.narrow, layer["down"], self.outputs, None, tiles, tile)
        return combine(outputs, self.place, self.weights, out)
