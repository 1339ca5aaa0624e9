"""Parameters and caches of a model, counted matrix by matrix from what its config.json says.

Sources: the modelling files of Hugging Face transformers for each class; Shazeer, "Fast Transformer Decoding", 2019
(shared KV heads); DeepSeek-AI, "DeepSeek-V2", 2024 (latent attention, shared experts); Jiang et al., "Mixtral of
Experts", 2024.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from oracle import formats


@dataclass
class Matrix:
    """n outputs by k inputs; `split` says what tensor parallelism cuts."""

    name: str
    n: int
    k: int
    split: str  # column, row, kv, none, expert-column, expert-row
    bias: bool = False
    copies: int = 1
    latent_up: bool = False
    kv_heads: int = 0


@dataclass
class Layer:
    d: int
    heads: int
    kv_heads: int
    h: int
    window: int | None = None
    chunk: int | None = None
    qkv_bias: bool = False
    o_bias: bool = False
    vectors: int = 0
    rotary_kernel: bool = True
    latent: dict[str, Any] | None = None
    width: int = 0
    mlp_bias: bool = False
    moe: dict[str, Any] | None = None
    norms: int = 2

    def kv_elements(self, tp: int = 1) -> int:
        """Elements that one token keeps on one of tp ranks: whole heads, replicated beyond their number."""
        if self.latent:
            return self.latent["rank"] + self.latent["rope"]
        return 2 * self.h * max(1, self.kv_heads // tp)

    def kept(self, tokens: int) -> int:
        """Tokens whose keys and values are kept, one by one."""
        limit = self.window or self.chunk
        return sum(1 for age in range(tokens) if limit is None or age < limit)

    def matrices(self) -> list[Matrix]:
        return [*self._mixer(), *self._feed_forward()]

    def _mixer(self) -> list[Matrix]:
        d, heads = self.d, self.heads
        if not self.latent:
            kv = {"split": "kv", "bias": self.qkv_bias, "kv_heads": self.kv_heads}
            return [
                Matrix("qkv_proj", heads * self.h, d, "column", self.qkv_bias),
                Matrix("qkv_proj", self.kv_heads * self.h, d, **kv),
                Matrix("qkv_proj", self.kv_heads * self.h, d, **kv),
                Matrix("o_proj", d, heads * self.h, "row", self.o_bias),
            ]
        a = self.latent
        q, down = heads * (a["nope"] + a["rope"]), a["rank"] + a["rope"]
        up = Matrix("kv_b_proj", heads * (a["nope"] + a["v"]), a["rank"], "column", latent_up=True)
        out = Matrix("o_proj", d, heads * a["v"], "row")
        if a["q_rank"] is None:
            return [Matrix("q_proj", q, d, "column"), Matrix("kv_a_proj", down, d, "none"), up, out]
        return [
            Matrix("qkv_a_proj", a["q_rank"], d, "none"),
            Matrix("qkv_a_proj", down, d, "none"),
            Matrix("q_b_proj", q, a["q_rank"], "column"),
            up,
            out,
        ]

    def _feed_forward(self) -> list[Matrix]:
        d = self.d
        if not self.moe:
            b = self.mlp_bias
            gate_up = Matrix("gate_up_proj", 2 * self.width, d, "column", b)
            return [gate_up, Matrix("down_proj", d, self.width, "row", b)]
        m = self.moe
        found = [
            Matrix("router", m["experts"], d, "none", m["router_bias"]),
            Matrix("experts_gate_up", 2 * m["width"], d, "expert-column", m["bias"], m["experts"]),
            Matrix("experts_down", d, m["width"], "expert-row", m["bias"], m["experts"]),
        ]
        if m["shared"]:
            found.append(Matrix("shared_gate_up_proj", 2 * m["shared"], d, "column"))
            found.append(Matrix("shared_down_proj", d, m["shared"], "row"))
            if m["shared_gate"]:
                found.append(Matrix("shared_expert_gate", 1, d, "none"))
        return found

    def vector_parameters(self) -> int:
        """Norms, sinks, per-head norms."""
        latent = self.latent or {}
        own = (latent.get("q_rank") or 0) + latent.get("rank", 0)
        return self.norms * self.d + self.vectors + own


@dataclass
class Model:
    d: int
    vocab: int
    tied: bool
    dtype: str
    layers: list[Layer] = field(default_factory=list)

    def outer(self) -> int:
        """Embedding, head unless tied, last norm."""
        return self.vocab * self.d * (1 if self.tied else 2) + self.d

    def parameters(self) -> int:
        total = self.outer()
        for layer in self.layers:
            total += layer.vector_parameters()
            total += sum(m.copies * (m.n * m.k + m.n * m.bias) for m in layer.matrices())
        return total

    def active_parameters(self) -> int:
        total = self.outer()
        for layer in self.layers:
            total += layer.vector_parameters()
            for m in layer.matrices():
                copies = layer.moe["per_token"] if m.name.startswith("experts") else m.copies
                total += copies * (m.n * m.k + m.n * m.bias)
        return total

    def kv_bytes_per_token(self, fmt: str) -> int:
        return sum(layer.kv_elements() * formats.kv_bytes(fmt) for layer in self.layers)

    def kv_cache_bytes(self, tokens: int, fmt: str) -> int:
        return sum(layer.kv_elements() * layer.kept(tokens) * formats.kv_bytes(fmt) for layer in self.layers)

    def weight_bytes(self, fmt: str | None = None) -> int:
        """Matrices in fmt; embeddings, head, norms, biases and routers in the model's own type."""
        own = fmt if fmt in formats.PLAIN else self.dtype
        total = formats.tensor_bytes(own, self.outer())
        for layer in self.layers:
            total += formats.tensor_bytes(own, layer.vector_parameters())
            for m in layer.matrices():
                one = formats.tensor_bytes(stored(m, fmt, own), m.n, m.k) + formats.tensor_bytes(own, m.n * m.bias)
                total += m.copies * one
        return total


def stored(matrix: Matrix, fmt: str | None, own: str) -> str:
    """Routers and gates stay in the model's own type."""
    return own if matrix.name in ("router", "shared_expert_gate") or fmt is None else fmt


def describe(config: dict[str, Any]) -> Model:
    """Read the families that the tests draw."""
    c, name = config, config["architectures"][0]
    d, layers, heads = c["hidden_size"], c["num_hidden_layers"], c["num_attention_heads"]
    dtype = {"bfloat16": "bf16", "float16": "fp16"}[c.get("torch_dtype", "bfloat16")]
    model = Model(d, c["vocab_size"], c.get("tie_word_embeddings", "Gemma" in name), dtype)
    for i in range(layers):
        layer = Layer(d, heads, c.get("num_key_value_heads", heads), c.get("head_dim", d // heads))
        _mixer(layer, c, name, i)
        _feed_forward(layer, c, name, i)
        model.layers.append(layer)
    return model


def _mixer(layer: Layer, c: dict[str, Any], name: str, i: int) -> None:
    window = c.get("sliding_window")
    if "layer_types" in c:
        layer.window = window if c["layer_types"][i] == "sliding_attention" else None
    elif name == "MistralForCausalLM":
        layer.window = window
    elif name in ("Gemma2ForCausalLM", "GptOssForCausalLM"):
        layer.window = window if i % 2 == 0 else None
    elif name == "Gemma3ForCausalLM":
        layer.window = None if (i + 1) % c["sliding_window_pattern"] == 0 else window
    elif name == "Llama4ForCausalLM" and (i + 1) % 4:
        layer.chunk = c["attention_chunk_size"]
    if name == "Llama4ForCausalLM":
        layer.rotary_kernel = (i + 1) % 4 != 0
    if name.startswith("Gemma"):
        layer.norms = 4
    layer.qkv_bias = c.get("attention_bias", name.startswith("Qwen2") or name == "GptOssForCausalLM")
    layer.o_bias = c.get("attention_bias", name == "GptOssForCausalLM")
    if name.startswith("Qwen3") or name == "Gemma3ForCausalLM":
        layer.vectors = 2 * layer.h
    if name == "GptOssForCausalLM":
        layer.vectors = layer.heads
    if "kv_lora_rank" in c:
        keys = {"q_rank": "q_lora_rank", "rank": "kv_lora_rank", "nope": "qk_nope_head_dim"}
        keys |= {"rope": "qk_rope_head_dim", "v": "v_head_dim"}
        layer.latent = {k: c[v] for k, v in keys.items()}


def _feed_forward(layer: Layer, c: dict[str, Any], name: str, i: int) -> None:
    layer.width = c.get("intermediate_size_mlp", c.get("intermediate_size", 0))
    layer.mlp_bias = c.get("mlp_bias", False)
    experts = c.get("num_local_experts") or c.get("num_experts") or c.get("n_routed_experts")
    sparse = experts is not None
    if name.startswith("Qwen") and sparse:
        sparse = (i + 1) % c["decoder_sparse_step"] == 0 and i not in c["mlp_only_layers"]
    elif name.startswith("Llama4"):
        sparse = (i + 1) % c["interleave_moe_layer_step"] == 0
    elif name.startswith("Deepseek"):
        sparse = i >= c["first_k_dense_replace"]
    if not sparse:
        return
    width = c.get("moe_intermediate_size") or c["intermediate_size"]
    gated_shared = c.get("shared_expert_intermediate_size", 0)
    shared = gated_shared or c.get("n_shared_experts", 0) * width or (width if name.startswith("Llama4") else 0)
    gpt_oss = name == "GptOssForCausalLM"
    layer.moe = {
        "experts": experts, "per_token": c["num_experts_per_tok"], "width": width, "shared": shared,
        "shared_gate": gated_shared > 0, "bias": gpt_oss, "router_bias": gpt_oss,
    }  # fmt: skip
