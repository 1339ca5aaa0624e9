"""A decoder of random weights on the device, and one step of equal requests as a list of kernels.

The kernels are those that roofsim's step prices, fused as engines fuse them: embedding; per layer a norm (with the
residual added), the fused QKV product, rotary embedding with the KV write, attention, the output product, a second
norm, and the feed-forward; a last norm; the head on the last row of each request. Routing of a mixture is uniform:
the router's product is computed, and the experts are then chosen from random scores, since random weights would send
nearly all tokens to the same experts.

In fp8 the four products of a dense layer multiply fp8 by fp8, with one scale a tensor known beforehand; embedding,
head and KV cache stay in bf16, as published fp8 checkpoints have them. The norms and the activation write fp8, as
engines fuse them; what attention returns is quantised by a kernel of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..architectures import Architecture
    from .bench import Bench

__all__ = ["Step", "Transformer"]

WEIGHT_STD = 0.02
WEIGHT_SCALE = 2.0**-10
"""Of fp8 weights: five standard deviations are a quarter of the range."""
ACTIVATION_SCALE = 2.0**-4
"""Of fp8 activations: what a norm writes and the mean of many values both lie well inside the range."""
ROTARY_BASE = 10_000.0
DENSE_ELEMENTWISE, MOE_ELEMENTWISE = 4, 7  # kernels a layer besides products and attention


class Transformer:
    """Random weights of the first layers of an architecture.

    Parameters
    ----------
    torch
        The torch module.
    architecture
        Sizes.
    num_layers
        Layers that are built.
    dtype
        "bf16", or "fp8" for the products of a dense model's layers.

    Raises
    ------
    ValueError
        Experts in fp8: their grouped kernels here take no scales.
    """

    def __init__(self, torch: Any, architecture: Architecture, num_layers: int, dtype: str = "bf16") -> None:
        if dtype not in ("bf16", "fp8") or (dtype == "fp8" and architecture.num_experts):
            raise ValueError(
                f"dtype = {dtype!r}: steps of {architecture.name} are measured in bf16 (dense ones in fp8)"
            )
        self.torch = torch
        self.quantised = dtype == "fp8"
        self.architecture = a = architecture
        self.num_layers = num_layers
        self.key_values: Any = None
        self.embedding = self._matrix(a.vocab_size, a.hidden_size)
        self.head = self.embedding if a.tie_word_embeddings else self._matrix(a.vocab_size, a.hidden_size)
        self.final_norm = self._gain(a.hidden_size)
        heads = {"none": 0, "head": 2, "row": a.num_attention_heads + a.num_key_value_heads}[a.qk_norm]
        self.layers: list[dict[str, Any]] = []
        for _ in range(num_layers):
            layer = {name: self._weight(*shape) for name, shape in a.layer_weights().items()}
            layer["norm"], layer["second_norm"] = self._gain(a.hidden_size), self._gain(a.hidden_size)
            layer["qk_norm"] = self._gain(max(heads, 1), a.head_dim)
            if a.qkv_bias:
                layer["qkv_bias"] = self._matrix(layer["qkv"].shape[0])
            self.layers.append(layer)

    def _matrix(self, *shape: int) -> Any:
        torch = self.torch
        return torch.empty(shape, dtype=torch.bfloat16, device="cuda").normal_(std=WEIGHT_STD)

    def _weight(self, *shape: int) -> Any:
        """Return a random matrix of a layer in the model's format."""
        matrix = self._matrix(*shape)
        return (matrix / WEIGHT_SCALE).to(self.torch.float8_e4m3fn) if self.quantised else matrix

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
        self.operand, self.attended = self.normed, None  # what the products of a layer take
        if model.quantised:
            eight = torch.float8_e4m3fn
            self.operand = torch.empty((rows, a.hidden_size), dtype=eight, device="cuda")
            self.attended = torch.empty((rows, a.num_attention_heads * a.head_dim), dtype=eight, device="cuda")
            self.scale_x, self.scale_w = (
                torch.full((), scale, dtype=torch.float32, device="cuda") for scale in (ACTIVATION_SCALE, WEIGHT_SCALE)
            )
        self.attention: Callable[[Any, Any, Any], Any] | None = None
        self.experts: Experts | None = None
        if a.num_experts:
            self.experts = Experts(bench, model, rows)
        else:
            self.wide = buffer(rows, 2 * a.intermediate_size)
            self.narrow = torch.empty((rows, a.intermediate_size), dtype=self.operand.dtype, device="cuda")

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
            return DENSE_ELEMENTWISE + (1 if self.model.quantised else 0)
        return MOE_ELEMENTWISE + (0 if self.experts.tile is not None else 1)

    def _product(self, x: Any, weight: Any, out: Any, bias: Any = None) -> Any:
        """Write x weight^T (+ bias) to out: x [rows, k], weight [n, k], out [rows, n] in bf16."""
        torch = self.bench.torch
        if self.model.quantised:
            return torch._scaled_mm(
                x, weight.t(), scale_a=self.scale_x, scale_b=self.scale_w, bias=bias, out_dtype=torch.bfloat16,
                use_fast_accum=True, out=out,
            )  # fmt: skip
        if bias is not None:
            return torch.addmm(bias, x, weight.t(), out=out)
        return torch.mm(x, weight.t(), out=out)

    def _mixed(self, view: Any, key: Any, value: Any) -> Any:
        """Return attention's result as the output product takes it: rows [B T, H h], quantised in an fp8 model."""
        from .triton_quantise import quantise

        if self.attention is None:
            raise RuntimeError("choose an attention kernel before running the step")
        rows = self.flat(self.attention(view, key, value))
        return rows if self.attended is None else quantise(rows.contiguous(), self.attended, ACTIVATION_SCALE)

    def __call__(self) -> Any:
        """Run the step; returns the logits [B, vocabulary]."""
        from .triton_elementwise import add_rms_norm, embedding, rms_norm, silu_mul
        from .triton_step import rotary_cache

        torch, model, a = self.bench.torch, self.model, self.model.architecture
        view, scale = self.query_view(), ACTIVATION_SCALE
        if self.experts is not None:
            self.experts.counts.zero_()
        embedding(model.embedding, self.ids, self.residual)
        for index, layer in enumerate(model.layers):
            if index == 0:
                rms_norm(self.residual, layer["norm"], self.operand, scale)
            else:
                add_rms_norm(self.update, self.residual, layer["norm"], self.operand, scale)
            self._product(self.operand, layer["qkv"], self.qkv, layer.get("qkv_bias"))
            key, value = self.caches[index]
            rotary_cache(
                self.qkv, layer["qk_norm"], self.cosine, self.sine, self.queries, key, value, norm_kind=a.qk_norm
            )
            self._product(self._mixed(view, key, value), layer["o"], self.update)
            add_rms_norm(self.update, self.residual, layer["second_norm"], self.operand, scale)
            if self.experts is not None:
                self.experts(index, self.operand, self.update)
                continue
            self._product(self.operand, layer["gate_up"], self.wide)
            silu_mul(self.wide, self.narrow, scale)
            self._product(self.narrow, layer["down"], self.update)
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
