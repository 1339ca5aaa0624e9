"""What is known of a device before it is measured: constants to start from and to stay near where data are few.

A quick run has a few points for a constant, and some of a law's constants act on a corner of the shapes only. Left to
the data alone such constants fit the noise of the points at hand. The fit therefore adds one term a constant,
`weight * (constant - prior) / spread`, in the units of a residual: a maximum a posteriori estimate whose prior is a
calibration of the same family. The weight falls to nothing where a class has points enough.

Source: C. M. Bishop, "Pattern Recognition and Machine Learning", 2006, section 3.3 (ridge as a Gaussian prior).
"""

from __future__ import annotations

import json

from roofsim import Accelerator, Calibration
from roofsim.catalog import accelerator_names, calibration_names

__all__ = ["ENOUGH_POINTS", "known_before", "relative", "spread", "weight"]

ENOUGH_POINTS = 20
"""Points a constant at which the prior no longer counts."""
POSITIVE_SPREAD = 0.3
"""Of the logarithm of a rate or a count: constants of two devices of one family differ by this much."""
DURATION_SPREAD, LEAST_DURATION_S = 0.25, 1e-7
"""Of a duration: a share of it, and at least this much."""
EFFICIENCY_SPREAD, FRACTION_SPREAD, SLIGHT_SPREAD = 0.05, 0.15, 0.02


def weight(points: int, constants: int, noise: float) -> float:
    """Return the weight of the prior in the units of a residual: `noise` without points, nothing with enough of them.

    Parameters
    ----------
    points, constants
        How many points are fitted, and how many constants.
    noise
        Residual (natural logarithm) that counts as much as a constant one spread off its prior.

    Examples
    --------
    >>> [round(weight(points, 5, 0.03), 3) for points in (0, 50, 100, 5000)]
    [0.03, 0.015, 0.0, 0.0]
    """
    return noise * max(0.0, 1.0 - points / (ENOUGH_POINTS * constants))


def spread(domain: str, unit: str, value: float) -> float:
    """Return how far a constant may plausibly lie from that of another device of the family, in its own unit.

    For the domain `positive` it is the spread of the logarithm.
    """
    if domain == "positive":
        return POSITIVE_SPREAD
    if domain == "efficiency":
        return EFFICIENCY_SPREAD
    if domain == "fraction":
        return FRACTION_SPREAD
    if domain == "slight":
        return SLIGHT_SPREAD
    return max(DURATION_SPREAD * abs(value), LEAST_DURATION_S if unit == "s" else DURATION_SPREAD)


def known_before(accelerator: Accelerator, kernel_library: str) -> Calibration | None:
    """Return the calibration that a fit of this device's measurements may lean on, or None.

    It is the one that the device carries, if kernels of the same library were measured for it: on such a device, or
    on one of its family. Else it is the first of that library in the box, its laws of tiles included: what another
    family's units do is not known before, but it is measured now.
    """
    calibration = accelerator.calibration
    provenance = calibration.provenance
    if calibration.kernel_library == kernel_library and (
        provenance["basis"] in ("measured", "published")
        or (provenance["basis"] == "borrowed" and Accelerator.load(provenance["device"]).family == accelerator.family)
    ):
        return calibration
    for name in calibration_names():
        tree = json.loads(Calibration.load(name).to_json())
        if tree["kernel_library"] == kernel_library and tree["provenance"]["basis"] == "measured":
            tree["provenance"]["family"] = accelerator.family
            return Calibration.load(tree)
    return None


def relative(accelerator: Accelerator, kernel_library: str = "torch") -> Accelerator | None:
    """Return another device of the same family whose own calibration is in the box, or None.

    To judge what a quick run of a device is worth, its own calibration must play no part.
    """
    for name in accelerator_names():
        if name == accelerator.name:
            continue
        other = Accelerator.load(name)
        own = other.calibration
        measured = own.provenance["basis"] in ("measured", "published") and own.kernel_library == kernel_library
        if measured and other.family == accelerator.family:
            return other
    return None
