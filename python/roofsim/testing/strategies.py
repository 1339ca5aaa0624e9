"""Hypothesis strategies for everything a deployment is made of."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st

import roofsim as rs

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from hypothesis.strategies import DrawFn, SearchStrategy

__all__ = ["FAMILIES", "accelerators", "batches", "calibrations", "layouts", "models", "weight_dtypes"]

MAX_LAYERS = 8


# --- models -------------------------------------------------------------------------------------------------------


@st.composite
def _frame(draw: DrawFn, architecture: str) -> dict[str, Any]:
    """Draw what every grouped-query decoder has: widths, heads, vocabulary."""
    kv_heads = draw(st.sampled_from([1, 2, 3, 4, 8, 16]), label="num_key_value_heads")
    group = draw(st.sampled_from([1, 2, 3, 4, 7, 8]), label="query heads per KV head")
    heads = kv_heads * group
    return {
        "architectures": [architecture],
        "hidden_size": heads * draw(st.sampled_from([8, 24, 64, 128]), label="hidden_size / heads"),
        "num_hidden_layers": draw(st.integers(1, MAX_LAYERS), label="num_hidden_layers"),
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": draw(st.sampled_from([32, 64, 80, 96, 128, 256]), label="head_dim"),
        "intermediate_size": 16 * draw(st.integers(1, 1024), label="intermediate_size / 16"),
        "vocab_size": draw(st.integers(2, 300_000), label="vocab_size"),
        "tie_word_embeddings": draw(st.booleans(), label="tie_word_embeddings"),
        "torch_dtype": draw(st.sampled_from(["bfloat16", "float16"]), label="torch_dtype"),
    }


@st.composite
def _experts(draw: DrawFn, most: int = 64) -> tuple[int, int, int]:
    """Draw (experts, experts per token, width of one)."""
    num_experts = 2 ** draw(st.integers(1, most.bit_length() - 1), label="log2 experts")
    per_token = draw(st.integers(1, min(num_experts, 8)), label="experts per token")
    return num_experts, per_token, 16 * draw(st.integers(1, 160), label="expert width / 16")


@st.composite
def _llama(draw: DrawFn) -> dict[str, Any]:
    config = draw(_frame("LlamaForCausalLM"))
    config["attention_bias"] = draw(st.booleans())
    config["mlp_bias"] = draw(st.booleans())
    if draw(st.booleans()):
        # The head width is then hidden / heads, which the frame makes whole.
        del config["head_dim"]
    return config


@st.composite
def _qwen(draw: DrawFn) -> dict[str, Any]:
    return draw(_frame(draw(st.sampled_from(["Qwen2ForCausalLM", "Qwen3ForCausalLM"]))))


@st.composite
def _mistral(draw: DrawFn) -> dict[str, Any]:
    config = draw(_frame("MistralForCausalLM"))
    config["sliding_window"] = draw(st.none() | st.integers(1, 8192))
    return config


@st.composite
def _gemma(draw: DrawFn) -> dict[str, Any]:
    name = draw(st.sampled_from(["Gemma2ForCausalLM", "Gemma3ForCausalLM"]))
    config = draw(_frame(name))
    config["sliding_window"] = draw(st.integers(1, 8192))
    config["tie_word_embeddings"] = True
    if name == "Gemma3ForCausalLM":
        config["sliding_window_pattern"] = draw(st.integers(1, 6))
    return config


@st.composite
def _layer_types(draw: DrawFn) -> dict[str, Any]:
    """Draw an arbitrary pattern of full and sliding layers."""
    config = draw(_frame("Qwen3ForCausalLM"))
    kinds = st.sampled_from(["full_attention", "sliding_attention"])
    layers = config["num_hidden_layers"]
    config["layer_types"] = draw(st.lists(kinds, min_size=layers, max_size=layers))
    config["sliding_window"] = draw(st.integers(1, 4096))
    return config


@st.composite
def _mixtral(draw: DrawFn) -> dict[str, Any]:
    config = draw(_frame("MixtralForCausalLM"))
    experts, per_token, width = draw(_experts(16))
    config |= {"num_local_experts": experts, "num_experts_per_tok": per_token, "intermediate_size": width}
    return config


@st.composite
def _qwen_moe(draw: DrawFn) -> dict[str, Any]:
    name = draw(st.sampled_from(["Qwen2MoeForCausalLM", "Qwen3MoeForCausalLM"]))
    config = draw(_frame(name))
    experts, per_token, width = draw(_experts(128))
    config |= {"num_experts": experts, "num_experts_per_tok": per_token, "moe_intermediate_size": width}
    config["decoder_sparse_step"] = draw(st.integers(1, config["num_hidden_layers"]))
    config["mlp_only_layers"] = draw(st.lists(st.integers(0, config["num_hidden_layers"] - 1), max_size=2))
    if len(config["mlp_only_layers"]) >= config["num_hidden_layers"] // config["decoder_sparse_step"]:
        config["mlp_only_layers"] = []
    if name == "Qwen2MoeForCausalLM":
        config["shared_expert_intermediate_size"] = 16 * draw(st.integers(1, 256))
    return config


@st.composite
def _gpt_oss(draw: DrawFn) -> dict[str, Any]:
    config = draw(_frame("GptOssForCausalLM"))
    experts, per_token, width = draw(_experts(32))
    config |= {"num_local_experts": experts, "num_experts_per_tok": per_token, "intermediate_size": width}
    config["sliding_window"] = draw(st.integers(1, 1024))
    return config


@st.composite
def _llama4(draw: DrawFn) -> dict[str, Any]:
    config = draw(_frame("Llama4ForCausalLM"))
    experts, per_token, width = draw(_experts(16))
    config |= {"num_local_experts": experts, "num_experts_per_tok": per_token, "intermediate_size": width}
    config["intermediate_size_mlp"] = 16 * draw(st.integers(1, 512))
    config["interleave_moe_layer_step"] = draw(st.integers(1, config["num_hidden_layers"]))
    config["attention_chunk_size"] = draw(st.integers(1, 8192))
    return config


@st.composite
def _deepseek(draw: DrawFn) -> dict[str, Any]:
    config = draw(_frame("DeepseekV3ForCausalLM"))
    del config["head_dim"], config["num_key_value_heads"]
    experts, per_token, width = draw(_experts(64))
    layers = config["num_hidden_layers"]
    return config | {
        "q_lora_rank": draw(st.none() | st.sampled_from([64, 384, 1536])),
        "kv_lora_rank": draw(st.sampled_from([32, 128, 512])),
        "qk_nope_head_dim": draw(st.sampled_from([32, 64, 128])),
        "qk_rope_head_dim": draw(st.sampled_from([16, 32, 64])),
        "v_head_dim": draw(st.sampled_from([32, 64, 128])),
        "n_routed_experts": experts,
        "num_experts_per_tok": per_token,
        "moe_intermediate_size": width,
        "n_shared_experts": draw(st.integers(0, 2)),
        "first_k_dense_replace": draw(st.integers(0, layers - 1)),
    }


FAMILIES: dict[str, Callable[[], SearchStrategy[dict[str, Any]]]] = {
    "llama": _llama,
    "qwen": _qwen,
    "mistral": _mistral,
    "gemma": _gemma,
    "layer_types": _layer_types,
    "mixtral": _mixtral,
    "qwen_moe": _qwen_moe,
    "gpt_oss": _gpt_oss,
    "llama4": _llama4,
    "deepseek": _deepseek,
}
"""Families by name: dense with one, several or all KV heads, windows, mixtures of experts, latent attention, chunks."""


def models(families: Sequence[str] | None = None) -> SearchStrategy[dict[str, Any]]:
    """Draw a model as the mapping that its ``config.json`` would hold.

    Parameters
    ----------
    families
        Names from `FAMILIES`; all by default.

    Returns
    -------
    SearchStrategy of dict
        Every draw is accepted by `roofsim.Model.load`. Small: at most 8 layers, a few billion parameters.
    """
    names = list(FAMILIES) if families is None else list(families)
    return st.one_of([FAMILIES[name]() for name in names])


# --- accelerators -------------------------------------------------------------------------------------------------


@st.composite
def accelerators(draw: DrawFn, *, zero_latency: bool = False, memory_bytes: int | None = None) -> dict[str, Any]:
    """Draw an accelerator as the mapping that its spec file would hold.

    Parameters
    ----------
    draw
        Given by hypothesis.
    zero_latency
        Links without latency, as the scaling law needs.
    memory_bytes
        Fixed memory instead of a drawn one.

    Returns
    -------
    dict
        Dense peaks for every operand type, narrower never slower; one link that joins any number of devices.
    """
    peak = 1e9 * draw(st.integers(1_000, 5_000_000), label="bf16 GFLOP/s")
    speedup = draw(st.sampled_from([1.0, 2.0]), label="fp8 / bf16")
    latency_s = 0.0 if zero_latency else 1e-9 * draw(st.integers(0, 20_000), label="link latency, ns")
    spec: dict[str, Any] = {
        "name": "synthetic",
        "family": draw(st.sampled_from(["hopper", "generic"]), label="family"),
        "memory_bytes": memory_bytes or draw(st.integers(10**9, 10**12), label="memory_bytes"),
        "memory_bandwidth_bytes_per_s": 1e9 * draw(st.integers(50, 20_000), label="GB/s"),
        "peak_flops_per_s": {
            "fp32": peak / 8,
            "tf32": peak / 2,
            "bf16": peak,
            "fp16": peak,
            "fp8": speedup * peak,
            "int8": speedup * peak,
            "fp4": speedup * speedup * peak,
        },
        "link": {
            "bandwidth_bytes_per_s": 1e9 * draw(st.integers(1, 2_000), label="link GB/s"),
            "latency_s": latency_s,
            "num_devices": 1 << 20,
        },
    }
    units = draw(st.none() | st.integers(1, 512), label="num_compute_units")
    if units is not None:
        spec["num_compute_units"] = units
    return spec


# --- layouts ------------------------------------------------------------------------------------------------------


def layouts(model: Mapping[str, Any], *, max_devices: int = 64) -> SearchStrategy[dict[str, int]]:
    """Draw a layout that an engine could run the model in, as keyword arguments of `roofsim.Deployment`.

    Parameters
    ----------
    model
        The model's config mapping, as `models` draws it.
    max_devices
        Most devices of one deployment.
    """
    device = rs.Accelerator(**_LINKED)
    loaded = rs.Model.load(model)
    found: list[dict[str, int]] = []
    sizes = [1 << e for e in range(max_devices.bit_length())] + [3, 6, 7]
    for tensor in sizes:
        for data in (1, 2, 4):
            for expert in sorted({1, 2, tensor, tensor * data}):
                for pipeline in (1, 2, 3):
                    if tensor * data * pipeline <= max_devices:
                        layout: dict[str, Any] = {
                            "tensor_parallel_size": tensor,
                            "pipeline_parallel_size": pipeline,
                            "data_parallel_size": data,
                            "expert_parallel_size": expert,
                        }
                        try:
                            rs.Deployment(loaded, device, calibration="ideal", **layout)
                        except rs.SpecError:
                            continue
                        found.append(layout)
    return st.sampled_from(found)


_LINKED: dict[str, Any] = {
    "name": "linked",
    "memory_bytes": 1 << 40,
    "memory_bandwidth_bytes_per_s": 1e12,
    "peak_flops_per_s": {"fp32": 1e14, "bf16": 1e15, "fp16": 1e15, "fp8": 1e15, "int8": 1e15, "fp4": 1e15},
    "link": {"bandwidth_bytes_per_s": 1e11, "num_devices": 1 << 20},
}


# --- batches, formats, calibrations -------------------------------------------------------------------------------


@st.composite
def batches(
    draw: DrawFn, *, max_requests: int = 8, max_query_tokens: int = 4096, max_context_tokens: int = 200_000
) -> list[tuple[int, int]]:
    """Draw the requests of one step: (query_tokens, context_tokens) pairs, decodes, chunks and whole prompts mixed."""
    query = st.just(1) | st.integers(1, 16) | st.integers(1, max_query_tokens)
    requests = []
    for new in draw(st.lists(query, min_size=1, max_size=max_requests), label="query_tokens"):
        cached = draw(st.just(0) | st.integers(0, max(0, max_context_tokens - new)), label="cached tokens")
        requests.append((new, new + cached))
    return requests


def weight_dtypes() -> SearchStrategy[str]:
    """Draw a storage format of weights, ``auto`` included."""
    return st.sampled_from(
        ["auto", "bf16", "fp16", "fp8", "fp8-channel", "fp8-block", "int8", "int4", "int4-g32", "mxfp4", "nvfp4"]
    )


@st.composite
def calibrations(draw: DrawFn, *, families: Sequence[str] = ("hopper", "generic")) -> rs.Calibration:
    """Draw a calibrated law with random constants and error bars: the built-in one of a family, every constant moved.

    Efficiencies fall anywhere from 0.05 to 1, times and rates move by up to a factor of eight either way or vanish.
    Every draw is accepted by `roofsim.Calibration.from_json`.
    """
    device = {**_LINKED, "family": draw(st.sampled_from(list(families)), label="family")}
    constants = json.loads(rs.Accelerator(**device).calibration.to_json())
    constants["name"] = "drawn"
    laws = [*constants["gemm"].values(), *(constants[k] for k in _LAWS)]
    if draw(st.booleans(), label="prefix_excess") and constants["attention"]["law"] == "kernels":
        constants["attention"]["prefix_excess"] = 0.3
    if draw(st.booleans(), label="direct_all_reduce"):
        constants["direct_all_reduce"] = {"t0_s": 4e-6, "hop_s": 1e-7, "e_link": 0.7, "sync_s": 3e-6}
        laws.append(constants["direct_all_reduce"])
    for law in laws:
        for field, value in law.items():
            if field != "law":
                law[field] = draw(_constant(field, value), label=field)
    step = constants["step"]
    for field in ("compute_rate", "memory_rate", "sustained_compute"):
        step[field] = draw(_EFFICIENCY, label=field)
    # Beyond this a step costs more than two percent more than its two halves.
    step["slowdown"] = draw(st.floats(0.0, MAX_SLOWDOWN), label="slowdown")
    for field in ("slowdown_s", "dispatch_s"):
        step[field] = draw(st.floats(step[field] / 8, step[field] * 8), label=field)
    bars = constants["intervals"]
    for family in ("gemm", "grouped_gemm"):
        for bar in bars[family].values():
            bar.update(draw(_halves((*_PARTS, "unaligned", "narrow"))))
    for family in ("decode_attention", "prefill_attention", "elementwise", "collective"):
        bars[family].update(draw(_halves(_PARTS)))
    for kind in ("decode", "prefill", "moe_decode", "moe_prefill"):
        bars[f"{kind}_step"] = draw(_JOINTS, label=f"{kind}_step")
    return rs.Calibration.from_json(json.dumps(constants))


MAX_SLOWDOWN = 0.08
_JOINTS = st.fixed_dictionaries(
    {"correlation": st.floats(0.0, 1.0), "scale": st.floats(0.0, 0.75), "share": st.floats(0.0, 0.25)}
)
_PARTS = ("share", "fixed_s")
"""Parts that both halves of every bar may have."""
_LAWS = ("attention", "grouped_gemm", "elementwise", "collective")
_EFFICIENCY = st.just(1.0) | st.floats(0.05, 1.0)


def _halves(parts: Sequence[str]) -> SearchStrategy[dict[str, dict[str, float]]]:
    """Half-widths of a bar: shares of up to 0.2 each, up to 20 microseconds."""

    def half(*names: str) -> SearchStrategy[dict[str, float]]:
        sizes = {name: st.just(0.0) | st.floats(0.0, 2e-5 if name == "fixed_s" else 0.2) for name in names}
        return st.fixed_dictionaries(sizes)

    return st.fixed_dictionaries({"below": half(*parts, "excess"), "above": half(*parts, "overlap")})


_UNUSUAL = {"head_s": 2e-5, "prepare_bytes": 10.0}
"""Constants that are 0 where a calibration starts, and the largest value to draw."""


def _constant(field: str, value: float) -> SearchStrategy[float]:
    if field in {"tail", "exposed", "own", "e_switch", "overlap", "split_tiles", "prefix_excess"}:
        return st.just(0.0) | st.floats(0.0, 1.0)
    if field.startswith("e_") or field.endswith("_e_c") or field in {"tile_spread", "tile_last"}:
        return _EFFICIENCY
    if field in _UNUSUAL:
        return st.just(0.0) | st.floats(0.0, _UNUSUAL[field])
    if field in {"stream_bytes_per_s", "crowd_heads", "tile_exp_per_s"} or field.startswith("load_bytes_per_"):
        return st.floats(value / 8, value * 8)
    return st.just(0.0) | st.floats(value / 8, value * 8)
