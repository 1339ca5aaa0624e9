"""The CUDA backend: torch and Triton kernels on one NVIDIA device. torch is imported only when it is constructed."""

from __future__ import annotations

from .backend import CudaBackend

__all__ = ["CudaBackend"]
