"""Costs of observed points, evaluated by the core."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from roofsim import _core
from roofsim.calibrate.steps import StepObservations, step_costs

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from roofsim import Accelerator
    from roofsim.calibrate.observations import Observations

__all__ = ["costs"]


def costs(accelerator: Accelerator, observed: Observations) -> dict[str, NDArray[np.float64]]:
    """Return `time_s`, `time_low_s`, `time_high_s`, `ideal_s`, `flops` and `bytes` of every point.

    Operations are priced as they run alone, steps as short runs measure them.

    Parameters
    ----------
    accelerator
        The device under the calibration in question.
    observed
        Points of one class.
    """
    family = observed.family
    columns: dict[str, Any] = dict(observed.columns)
    if isinstance(observed, StepObservations):
        return step_costs(accelerator, observed)
    if family == "gemm":
        return _core._gemm_costs(accelerator, **columns, dtype=observed.dtype)
    if family in ("decode_attention", "prefill_attention"):
        return _core._attention_costs(
            accelerator, **columns, dtype=observed.dtype, kv_cache_dtype=observed.kv_cache_dtype
        )
    if family in ("latent_decode_attention", "latent_prefill_attention"):
        return _core._latent_attention_costs(
            accelerator, **columns, dtype=observed.dtype, kv_cache_dtype=observed.kv_cache_dtype
        )
    if family == "grouped_gemm":
        return _core._grouped_gemm_costs(accelerator, **columns, dtype=observed.dtype)
    if family == "moe_layer":
        return moe_layer_costs(accelerator, columns, observed.dtype)
    if family == "collective":
        return _core._collective_costs(accelerator, **columns, kind=observed.dtype)
    if family == "direct_all_reduce":
        return _core._collective_costs(accelerator, **columns, kind="all_reduce")
    return _core._elementwise_costs(accelerator, **columns)


def moe_layer_costs(
    accelerator: Accelerator, columns: dict[str, NDArray[np.uint64]], dtype: str
) -> dict[str, NDArray[np.float64]]:
    """Return the costs of a layer of routed experts as a step prices it, for tokens dealt out evenly.

    Choosing the experts, bringing the tokens to them, gate and up together, the activation, down, the weighted sum. The
    published tables deal the tokens out in turn (`balanced`): no expert is hit twice before all are hit once.
    """
    names = ("num_tokens", "num_experts", "experts_per_token", "expert_ranks")
    experts: dict[str, Any] = {name: columns[name] for name in names}
    tokens, hidden, inner = columns["num_tokens"], columns["hidden_size"], columns["intermediate_size"]
    dealt = tokens * columns["experts_per_token"]
    ranks = columns["expert_ranks"]
    experts["active_experts"] = (np.minimum(dealt, columns["num_experts"]) + ranks - 1) // ranks
    rows = np.maximum(dealt // ranks, 1)
    unreduced = np.zeros_like(rows)
    chosen = tokens * (4 * columns["num_experts"] + 8 * columns["experts_per_token"])
    copied = 2 * (rows + tokens) * hidden
    parts = (
        _core._elementwise_costs(accelerator, chosen, unreduced),
        _core._dispatch_costs(accelerator, copied),
        _core._grouped_gemm_costs(accelerator, **experts, n=2 * inner, k=hidden, dtype=dtype),
        # 16-bit gate and up are read, their product is written.
        _core._elementwise_costs(accelerator, 6 * rows * inner, unreduced),
        _core._grouped_gemm_costs(accelerator, **experts, n=hidden, k=inner, dtype=dtype),
        _core._elementwise_costs(accelerator, copied, unreduced),
    )
    return {name: np.sum([part[name] for part in parts], axis=0) for name in parts[0]}
