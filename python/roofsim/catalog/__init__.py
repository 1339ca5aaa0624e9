"""Data that ships with roofsim: accelerators and models, every value with its source and date.

The functions here find text and hand it to the core unread: names, aliases, paths and mappings in, JSON out. What the
values mean and whether they can be right is decided in one place, the core.
"""

from __future__ import annotations

from roofsim.catalog.accelerators import accelerator_names, accelerator_text, read_accelerator
from roofsim.catalog.calibrations import calibration_names, read_calibration
from roofsim.catalog.models import model_names, read_model

__all__ = [
    "accelerator_names",
    "accelerator_text",
    "calibration_names",
    "model_names",
    "read_accelerator",
    "read_calibration",
    "read_model",
]
