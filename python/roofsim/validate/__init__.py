"""Measure kernels and steps on the machine in front of you, into one portable file.

The package stands alone: it needs NumPy, and torch only for the CUDA backend, imported lazily. It holds no cost
formula; fitting and prediction live in the Rust core.
"""

from __future__ import annotations

from .errors import ValidationUnavailableError
from .measure import measure
from .plan import CPU_FAMILIES, CUDA_FAMILIES, build_plan
from .points import Point
from .record import load_measurements

__all__ = [
    "CPU_FAMILIES",
    "CUDA_FAMILIES",
    "Point",
    "ValidationUnavailableError",
    "build_plan",
    "load_measurements",
    "measure",
]
