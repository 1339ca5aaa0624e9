"""Costs of observed points, evaluated by the core."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from roofsim import _core
from roofsim.calibrate.steps import StepObservations, step_costs

if TYPE_CHECKING:
    import numpy as np
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
    if family == "grouped_gemm":
        return _core._grouped_gemm_costs(accelerator, **columns, dtype=observed.dtype)
    return _core._elementwise_costs(accelerator, **columns)
