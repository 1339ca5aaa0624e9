"""Steps under unbroken load: their time at the power limit, and their energy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from roofsim.calibrate.predict import costs
from roofsim.calibrate.score import Score, score
from roofsim.calibrate.steps import StepObservations

if TYPE_CHECKING:
    from collections.abc import Sequence

    from roofsim import Accelerator
    from roofsim.calibrate.observations import Observations

__all__ = ["UnderLoad", "under_load"]


@dataclass(frozen=True)
class UnderLoad:
    """Errors on steps that were also measured over about a second without a pause.

    Attributes
    ----------
    default
        Of the default calibration, made for short runs.
    sustained
        Of the sustained one.
    energy
        Of joules a step, at the sustained one.
    """

    name: str
    default: Score
    sustained: Score
    energy: Score


def under_load(accelerator: Accelerator, observed: Sequence[Observations]) -> list[UnderLoad]:
    """Score the steps measured under unbroken load, class by class."""
    limited = accelerator.with_calibration(accelerator.calibration.sustained())
    found = []
    for one in observed:
        held = one.under_load() if isinstance(one, StepObservations) else None
        if held is None or not len(held):
            continue
        cost = costs(limited, held)
        known = np.isfinite(held.energy_j) & np.isfinite(cost["energy_j"])
        found.append(
            UnderLoad(
                one.name,
                score(costs(accelerator, held)["time_s"], held.measured_s),
                score(cost["time_s"], held.measured_s),
                score(cost["energy_j"][known], held.energy_j[known]),
            )
        )
    return found
