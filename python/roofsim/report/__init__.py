"""The accuracy report: predictions beside measurements, recomputed from raw files.

Errors are in percent of the measured time. It needs scipy (extra `roofsim[calibrate]`) and, for pictures, matplotlib
(extra `roofsim[plot]`).
"""

from __future__ import annotations

from roofsim.report.accuracy import ClassAccuracy, DeviceAccuracy, accuracy
from roofsim.report.comparison import Comparison, compare
from roofsim.report.devices import device_accuracies
from roofsim.report.markdown import render
from roofsim.report.profiles import render_profiles

__all__ = [
    "ClassAccuracy",
    "Comparison",
    "DeviceAccuracy",
    "accuracy",
    "compare",
    "device_accuracies",
    "render",
    "render_profiles",
]
