"""The accuracy report: predictions beside measurements, recomputed from raw files.

Errors are in percent of the measured time. It needs scipy (extra `roofsim[calibrate]`) and, for pictures, matplotlib
(extra `roofsim[plot]`).
"""

from __future__ import annotations

from roofsim.report.accuracy import ClassAccuracy, DeviceAccuracy, accuracy
from roofsim.report.markdown import render

__all__ = ["ClassAccuracy", "DeviceAccuracy", "accuracy", "render"]
