"""Find torch and a CUDA device, and describe both."""

from __future__ import annotations

import contextlib
from typing import Any

from ..errors import ValidationUnavailableError
from .nvml import MEMORY_CLOCK, Nvml

__all__ = ["describe_device", "import_torch", "pci_bus_id"]


def import_torch() -> Any:
    """Import torch and see that it reaches a CUDA device.

    Raises
    ------
    ValidationUnavailableError
        torch is not installed, or sees no CUDA device.
    """
    try:
        import torch
    except ImportError as error:
        rule = "must be installed (the extra roofsim[cuda]); without a GPU use backend='cpu'"
        raise ValidationUnavailableError("torch", None, rule) from error
    if not torch.cuda.is_available():
        rule = "must reach a CUDA device; without one use backend='cpu'"
        raise ValidationUnavailableError("torch.cuda.is_available()", False, rule)
    return torch


def pci_bus_id(torch: Any) -> str | None:
    """Return the current device's PCI address as NVML spells it."""
    with contextlib.suppress(Exception):
        properties = torch.cuda.get_device_properties(torch.cuda.current_device())
        return f"{properties.pci_domain_id:08x}:{properties.pci_bus_id:02x}:{properties.pci_device_id:02x}.0"
    return None


def _triton_version() -> str | None:
    with contextlib.suppress(Exception):
        import triton

        return str(triton.__version__)
    return None


def describe_device(torch: Any, nvml: Nvml) -> dict[str, Any]:
    """Return the header of a CUDA run."""
    properties = torch.cuda.get_device_properties(torch.cuda.current_device())
    described: dict[str, Any] = {
        "backend": "cuda",
        "device": properties.name,
        "num_devices": torch.cuda.device_count(),
        "compute_capability": f"{properties.major}.{properties.minor}",
        "sms": properties.multi_processor_count,
        "l2_bytes": getattr(properties, "L2_cache_size", None),
        "memory_bytes": properties.total_memory,
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "triton": _triton_version(),
        "driver": nvml.driver_version(),
        "sm_clock_max_mhz": nvml.max_clock_mhz(),
        "memory_clock_max_mhz": nvml.max_clock_mhz(MEMORY_CLOCK),
        "memory_clock_mhz": nvml.clock_mhz(MEMORY_CLOCK),
        "power_limit_w": nvml.power_limit_w(),
        "temperature_c": nvml.temperature_c(),
    }
    with contextlib.suppress(Exception):
        described["cudnn"] = torch.backends.cudnn.version()
    return described
