"""Measured whole steps, decode and prefill, by model."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from roofsim import Deployment, Model, _core
from roofsim.calibrate.observations import Observations, best_kernels
from roofsim.validate.architectures import ARCHITECTURES

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from roofsim import Accelerator
    from roofsim.validate.architectures import Architecture

__all__ = ["STEP_CLASSES", "StepObservations", "joined", "measured_model", "observe_steps", "step_costs"]

STEP_CLASSES = ("decode_step", "prefill_step")
HOST_BOUND_S = 3.3e-3
"""Replays of shorter steps are launched more slowly than the device runs them, which steady load then measures."""
DTYPES = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32", "fp8": "bfloat16"}
"""Activations of a step whose products multiply the operand type."""
FP8_WEIGHTS = {"quant_method": "fp8", "activation_scheme": "static"}


@dataclass(frozen=True)
class StepObservations(Observations):
    """Steps of equal requests; column `model` is a position in `models`.

    Attributes
    ----------
    models
        What was measured, cut to the layers that fitted.
    sustained_s
        Seconds a step under about a second of unbroken load; NaN where it was not measured, or where the host's
        launches set the pace.
    energy_j
        Measured joules a step under that load; NaN likewise.
    """

    models: tuple[Model, ...] = ()
    sustained_s: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    energy_j: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))

    def take(self, chosen: NDArray[Any]) -> Self:
        """Return the points of a mask or of positions."""
        return replace(super().take(chosen), sustained_s=self.sustained_s[chosen], energy_j=self.energy_j[chosen])

    def under_load(self) -> StepObservations:
        """Return the steps measured under unbroken load, with that time as the measured one."""
        held = self.take(np.isfinite(self.sustained_s))
        return replace(held, measured_s=held.sustained_s)


def joined(steps: Sequence[StepObservations]) -> StepObservations:
    """Return steps of one family and several operand types as one; the operand type is the first's."""
    offsets = np.cumsum([0, *(len(one.models) for one in steps)])
    columns = {name: np.concatenate([one.columns[name] for one in steps]) for name in steps[0].columns}
    models = zip(steps, offsets, strict=False)
    columns["model"] = np.concatenate([one.columns["model"] + np.uint64(offset) for one, offset in models])
    return replace(
        steps[0],
        columns=columns,
        models=tuple(model for one in steps for model in one.models),
        measured_s=np.concatenate([one.measured_s for one in steps]),
        groups=np.concatenate([one.groups for one in steps]),
        labels=np.concatenate([one.labels for one in steps]),
        kernels=np.concatenate([one.kernels for one in steps]),
        sustained_s=np.concatenate([one.sustained_s for one in steps]),
        energy_j=np.concatenate([one.energy_j for one in steps]),
    )


def measured_model(architecture: Architecture, num_layers: int, dtype: str = "bf16") -> Model:
    """Return an architecture of the harness, cut to some layers, as the core reads a `config.json`."""
    a = architecture
    dense, mixture = {
        "none": ("LlamaForCausalLM", "MixtralForCausalLM"),
        "head": ("Qwen3ForCausalLM", "Qwen3MoeForCausalLM"),
        "row": ("Olmo2ForCausalLM", "OlmoeForCausalLM"),
    }[a.qk_norm]
    if a.qkv_bias:
        dense = "Qwen2ForCausalLM"
    kinds = {
        "LlamaForCausalLM": "llama", "MixtralForCausalLM": "mixtral", "Qwen3ForCausalLM": "qwen3",
        "Qwen3MoeForCausalLM": "qwen3_moe", "OlmoeForCausalLM": "olmoe", "Olmo2ForCausalLM": "olmo2",
        "Qwen2ForCausalLM": "qwen2",
    }  # fmt: skip
    name = mixture if a.num_experts else dense
    config: dict[str, Any] = {
        "architectures": [name],
        "model_type": kinds[name],
        "hidden_size": a.hidden_size,
        "intermediate_size": a.intermediate_size,
        "num_attention_heads": a.num_attention_heads,
        "num_key_value_heads": a.num_key_value_heads,
        "head_dim": a.head_dim,
        "vocab_size": a.vocab_size,
        "num_hidden_layers": num_layers,
        "tie_word_embeddings": a.tie_word_embeddings,
        "torch_dtype": DTYPES[dtype],
    }
    if dtype == "fp8":
        config["quantization_config"] = FP8_WEIGHTS
    if a.num_experts:
        config |= {"num_experts_per_tok": a.num_experts_per_tok, "norm_topk_prob": True}
        config["num_local_experts" if name == "MixtralForCausalLM" else "num_experts"] = a.num_experts
        if name == "Qwen3MoeForCausalLM":
            config |= {"moe_intermediate_size": a.intermediate_size, "decoder_sparse_step": 1, "mlp_only_layers": []}
    return Model.load(config)


def _tiny(dtype: str) -> Model:
    """Return the model that the CPU backend times."""
    from roofsim.validate.cpu.model import TINY

    fields = {**TINY.__dict__, "architectures": ["LlamaForCausalLM"], "model_type": "llama"}
    return Model.load({**fields, "tie_word_embeddings": False, "torch_dtype": DTYPES[dtype]})


def observe_steps(rows: Iterable[Mapping[str, Any]]) -> list[StepObservations]:
    """Sort the step rows of measurement files into decode and prefill, by operand type of their products.

    The time of a step is its median in short runs, between pauses in which the clock recovers; under unbroken load it
    is kept apart. Models that the harness no longer knows are passed over.
    """
    best, _ = best_kernels(row for row in rows if row["family"] == "step")
    found = []
    known = [row for row in best if row["model"] in ARCHITECTURES or row["model"] == "tiny"]
    for dtype in dict.fromkeys(["bf16", *sorted(str(row["dtype"]) for row in known)]):
        for family in STEP_CLASSES:
            chosen = [
                row
                for row in known
                if row["dtype"] == dtype and (row["query_tokens"] == 1) == (family == "decode_step")
            ]
            if chosen:
                found.append(_gather(family, chosen))
    return found


def _gather(family: str, rows: list[Mapping[str, Any]]) -> StepObservations:
    keys = sorted({(str(row["model"]), int(row.get("num_layers", 0)), str(row["dtype"])) for row in rows})
    position = {key: index for index, key in enumerate(keys)}
    models = tuple(
        _tiny(dtype) if name == "tiny" else measured_model(ARCHITECTURES[name], layers, dtype)
        for name, layers, dtype in keys
    )
    columns = {
        name: np.array([int(row[name]) for row in rows], np.uint64)
        for name in ("batch_size", "query_tokens", "context_tokens")
    }
    of_row = [position[str(row["model"]), int(row.get("num_layers", 0)), str(row["dtype"])] for row in rows]
    columns["model"] = np.array(of_row, np.uint64)
    names = [str(row["model"]) for row in rows]
    return StepObservations(
        family,
        str(rows[0]["dtype"]),
        columns,
        np.array([row["median_s"] for row in rows], np.float64),
        np.array(names, np.str_),
        np.array(["moe" if name in ARCHITECTURES and ARCHITECTURES[name].num_experts else "dense" for name in names]),
        np.array([str(row.get("attention_backend", row.get("backend"))) for row in rows], np.str_),
        models=models,
        sustained_s=np.array([_under_load(row, "sustained_s") for row in rows], np.float64),
        energy_j=np.array([_under_load(row, "energy_j") for row in rows], np.float64),
    )


def _under_load(row: Mapping[str, Any], name: str) -> float:
    """Return a figure of steady load; NaN where replays of the graph come slower than the device works them off."""
    return float(row.get(name) or np.nan) if row["median_s"] >= HOST_BOUND_S else float("nan")


def step_costs(accelerator: Accelerator, observed: StepObservations) -> dict[str, NDArray[np.float64]]:
    """Return the core's costs of every step, and its energy in joules."""
    model = observed.columns["model"]
    found: dict[str, NDArray[np.float64]] = {}
    for index in np.unique(model):
        own = model == index
        shape = [observed.columns[name][own] for name in ("batch_size", "query_tokens", "context_tokens")]
        # Engines cast float32 checkpoints to bf16, and the model reader with them; what was measured did not.
        weights, cache = ("fp32", "fp32") if observed.dtype == "fp32" else ("auto", "auto")
        deployment = Deployment(observed.models[int(index)], accelerator, weight_dtype=weights, kv_cache_dtype=cache)
        for name, values in _core._step_costs(deployment, *shape).items():
            found.setdefault(name, np.full(len(model), np.nan))[own] = values
    return found
