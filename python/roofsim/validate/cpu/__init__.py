"""The CPU backend: real NumPy kernels, timed with cold caches, so that a CPU gets a calibrated roofline too."""

from __future__ import annotations

from .backend import CpuBackend

__all__ = ["CpuBackend"]
