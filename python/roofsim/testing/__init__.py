"""Strategies and invariants for testing anything that embeds roofsim; needs hypothesis.

The strategies draw valid models (as ``config.json`` mappings), accelerators, layouts, batches and calibrations. The
invariants are plain functions that raise `AssertionError` with the numbers when a law of the oracle does not hold.

>>> from hypothesis import given
>>> from roofsim import testing
>>> @given(testing.models(), testing.accelerators(), testing.batches())
... def test_bounds(model, accelerator, requests):
...     import roofsim as rs
...     testing.check_bounds(rs.Deployment(model, accelerator).step(requests))
"""

from __future__ import annotations

try:
    import hypothesis as _hypothesis  # noqa: F401 - only to say early and clearly that it is missing
except ModuleNotFoundError as _error:  # pragma: no cover - tested in a subprocess
    raise ImportError("roofsim.testing needs hypothesis: install it with `pip install hypothesis`") from _error

from roofsim.testing.invariants import (
    check_bounds,
    check_calibrated_at_least_ideal,
    check_capacity_is_exact,
    check_monotone,
    check_pareto,
    check_search,
    check_step_is_sum_of_ops,
    check_subadditive,
    check_sweep_equals_step,
    check_top_k,
    subadditive_excess,
)
from roofsim.testing.strategies import (
    FAMILIES,
    accelerators,
    batches,
    calibrations,
    layouts,
    models,
    weight_dtypes,
)

__all__ = [
    "FAMILIES",
    "accelerators",
    "batches",
    "calibrations",
    "check_bounds",
    "check_calibrated_at_least_ideal",
    "check_capacity_is_exact",
    "check_monotone",
    "check_pareto",
    "check_search",
    "check_step_is_sum_of_ops",
    "check_subadditive",
    "check_sweep_equals_step",
    "check_top_k",
    "layouts",
    "models",
    "subadditive_excess",
    "weight_dtypes",
]
