"""A step's logits against the same step in float64, on a small model of the same kind."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from .check import attention_reference, relative_error
from .transformer import ACTIVATION_SCALE, WEIGHT_SCALE, Step, Transformer

if TYPE_CHECKING:
    from ..architectures import Architecture
    from .bench import Bench

__all__ = ["reference_logits", "step_error"]

EPSILON = 1e-6
FP8_MAX = 448.0


def _weight(step: Step, matrix: Any) -> Any:
    """Return what a stored matrix of a layer stands for, in float64."""
    wide = matrix.to(step.bench.torch.float64)
    return wide * WEIGHT_SCALE if step.model.quantised else wide


def _operand(step: Step, x: Any) -> Any:
    """Return what a product of a layer multiplies: x, rounded as an fp8 model does it."""
    if not step.model.quantised:
        return x
    torch = step.bench.torch
    rounded = (x / ACTIVATION_SCALE).clamp(-FP8_MAX, FP8_MAX).to(torch.float8_e4m3fn)
    return rounded.to(torch.float64) * ACTIVATION_SCALE


def _norm(torch: Any, x: Any, weight: Any) -> Any:
    return x * torch.rsqrt((x * x).mean(dim=-1, keepdim=True) + EPSILON) * weight.to(torch.float64)


def _rotated(torch: Any, x: Any, cosine: Any, sine: Any) -> Any:
    """Rotate [B, heads, T, h]; cosine and sine [T, h/2]."""
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cosine - second * sine, second * cosine + first * sine], dim=-1)


def _attended(step: Step, layer: dict[str, Any], x: Any, past: tuple[Any, Any]) -> Any:
    """Return the attention block's output [rows, H h] in float64; `past` are the caches before the step."""
    torch, a = step.bench.torch, step.model.architecture
    wide = torch.float64
    qkv = _operand(step, x) @ _weight(step, layer["qkv"]).t()
    if a.qkv_bias:
        qkv = qkv + layer["qkv_bias"].to(wide)
    heads, kv_heads, width = a.num_attention_heads, a.num_key_value_heads, a.head_dim
    split = qkv.view(step.batch, step.query, -1, width)
    query, key, value = split.split([heads, kv_heads, kv_heads], dim=2)
    gain = layer["qk_norm"]
    if a.qk_norm == "head":
        query, key = _norm(torch, query, gain[0]), _norm(torch, key, gain[1])
    elif a.qk_norm == "row":
        query = _norm(torch, query.flatten(2), gain[:heads].flatten()).view_as(query)
        key = _norm(torch, key.flatten(2), gain[heads:].flatten()).view_as(key)
    angles = [table[step.context - step.query :].to(wide) for table in (step.cosine, step.sine)]
    query, key = (_rotated(torch, part.transpose(1, 2), *angles) for part in (query, key))
    keys, values = (cache.to(wide).clone() for cache in past)
    keys[:, :, step.context - step.query :] = key
    values[:, :, step.context - step.query :] = value.transpose(1, 2)
    mixed = attention_reference(torch, query, keys, values, causal=True)
    return mixed.transpose(1, 2).reshape(step.rows, -1)


def _fed(step: Step, layer: dict[str, Any], index: int, x: Any) -> Any:
    """Return the feed-forward's output [rows, d] in float64."""
    torch = step.bench.torch
    wide = torch.float64

    def expert(gate_up: Any, down: Any) -> Any:
        gate, up = (_operand(step, x) @ _weight(step, gate_up).t()).chunk(2, dim=-1)
        return _operand(step, gate * torch.sigmoid(gate) * up) @ _weight(step, down).t()

    if step.experts is None:
        return expert(layer["gate_up"], layer["down"])
    shares = torch.softmax(step.experts.scores[index].to(wide), dim=-1)
    top = shares.topk(step.model.architecture.num_experts_per_tok, dim=-1)
    weights = torch.zeros_like(shares).scatter_(-1, top.indices, top.values)
    every = zip(layer["gate_up"], layer["down"], strict=True)
    return sum(weights[:, e, None] * expert(gate_up, down) for e, (gate_up, down) in enumerate(every))


def reference_logits(step: Step, past: list[tuple[Any, Any]]) -> Any:
    """Return the step's logits in float64 from the caches as they were before it."""
    torch, model = step.bench.torch, step.model
    x = model.embedding[step.ids].to(torch.float64)
    for index, layer in enumerate(model.layers):
        mixed = _attended(step, layer, _norm(torch, x, layer["norm"]), past[index])
        x = x + _operand(step, mixed) @ _weight(step, layer["o"]).t()
        x = x + _fed(step, layer, index, _norm(torch, x, layer["second_norm"]))
    last = _norm(torch, x, model.final_norm).view(step.batch, step.query, -1)[:, -1]
    return last @ model.head.to(torch.float64).t()


def run_grouped(step: Step) -> None:
    """Run one feed-forward with torch's grouped kernel; raises RuntimeError where torch has none."""
    experts = step.experts
    if experts is not None:
        experts.use(None)
        experts.counts[0].zero_()
        experts(0, step.normed, step.update)


def step_error(
    bench: Bench, architecture: Architecture, batch: int, query: int, context: int, *, dtype: str = "bf16"
) -> float:
    """Run every grouped kernel that a step may choose; return the largest relative error of the logits.

    The reference of an fp8 model rounds its operands to fp8 as well: what is checked is the kernels, not the format.
    """
    from .step import choose_attention, choose_experts
    from .triton_moe import tile_configs

    model = Transformer(bench.torch, architecture, architecture.num_hidden_layers, dtype)
    step = Step(bench, model, batch, query, context)
    choose_attention(bench, step)
    choose_experts(bench, step)
    past = [(key.clone(), value.clone()) for key, value in step.caches]
    reference = reference_logits(step, past)
    chosen = [None if step.experts is None else step.experts.tile]
    if step.experts is not None:
        chosen += [tile_configs(4.0)[0], tile_configs(100.0)[0]]
        with contextlib.suppress(RuntimeError):  # where torch has no grouped kernel, the step cannot choose it
            run_grouped(step)
            chosen.append(None)
    worst = 0.0
    for tile in chosen:
        if step.experts is not None:
            step.experts.use(tile)
        bench.torch.cuda.synchronize()
        with bench.torch.cuda.stream(bench.stopwatch.stream):
            step.logits.fill_(-7.0)
            logits = step()
        bench.torch.cuda.synchronize()
        worst = max(worst, relative_error(bench.torch, logits, reference))
    return worst
