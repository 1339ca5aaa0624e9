"""Measure kernels and steps on the machine in front of you, into one portable file.

The package stands alone: it needs NumPy, and torch only for the CUDA backend, imported lazily. It holds no cost
formula; fitting and prediction live in the Rust core.
"""

from __future__ import annotations

from .architectures import ARCHITECTURES
from .errors import ValidationUnavailableError
from .measure import measure
from .plan import CPU_FAMILIES, CUDA_FAMILIES, build_plan
from .plan_step import step_points
from .points import Point
from .record import load_measurements
from .requests import load_rows, points_from_deployment, points_from_rows

__all__ = [
    "ARCHITECTURES",
    "CPU_FAMILIES",
    "CUDA_FAMILIES",
    "Point",
    "ValidationUnavailableError",
    "build_plan",
    "load_measurements",
    "load_rows",
    "measure",
    "points_from_deployment",
    "points_from_rows",
    "step_points",
]
