"""Parts that a bar's width is made of, of every observed point: evaluated by the core, one part at a time."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from roofsim.calibrate.predict import costs

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from roofsim import Accelerator
    from roofsim.calibrate.observations import Observations

__all__ = ["Parts", "parts"]

BARS = {"moe_layer": "grouped_gemm", "direct_all_reduce": "collective"}
"""Classes that share the bar of another one."""
MATRICES = ("gemm", "grouped_gemm")
"""Bars of matrices, which have outputs and inputs, of one operand type each."""
UNITS = {"share": 1.0, "overlap": 1.0, "fixed_s": 1e-6}
MATRIX_UNITS = {"unaligned": 1.0, "narrow": 1.0}
"""What each part of an upper half is evaluated with: a microsecond, so that no digits are lost beside the time."""

Parts = dict[str, "NDArray[np.float64]"]
"""By name of a part of a half-width: its size at coefficient 1 in units of the predicted time, point by point."""


def parts(accelerator: Accelerator, observed: Observations) -> tuple[Parts, Parts]:
    """Return the parts of the lower and of the upper half-width of every point.

    Parameters
    ----------
    accelerator
        The device under the fitted constants.
    observed
        Points of one class.
    """
    tree: dict[str, Any] = json.loads(accelerator.calibration.to_json())
    above: Parts = {}
    name_of_bar = BARS.get(observed.family, observed.family)
    matrix = name_of_bar in MATRICES
    # What runs beside the operation in question has a bar of its own.
    tree["intervals"]["elementwise"] = {"below": 0.0, "above": 0.0}
    for name, unit in {**UNITS, **(MATRIX_UNITS if matrix else {})}.items():
        bar = {"below": 0.0, "above": {name: unit}}
        tree["intervals"][name_of_bar] = {observed.dtype: bar} if matrix else bar
        cost = costs(accelerator.with_calibration(tree), observed)
        above[name] = np.maximum(cost["time_high_s"] / cost["time_s"] - 1.0, 0.0) / unit
    bare = costs(accelerator, observed)
    below = {name: size for name, size in above.items() if name != "overlap"}
    return {**below, "excess": 1.0 - bare["ideal_s"] / bare["time_s"]}, above
