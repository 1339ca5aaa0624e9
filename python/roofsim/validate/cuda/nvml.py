"""NVIDIA's management library through ctypes: clocks, power, the energy counter. Reads only, never sets."""

from __future__ import annotations

import contextlib
import ctypes
from typing import Any

__all__ = ["Nvml"]

SM_CLOCK, MEMORY_CLOCK = 1, 2


class Nvml:
    """Readings of one device; every reading is None where the driver does not give it.

    Parameters
    ----------
    pci_bus_id
        Which device, as "domain:bus:device.function"; the first one when absent or unknown.
    """

    def __init__(self, pci_bus_id: str | None = None) -> None:
        self._library: Any = None
        self._device = ctypes.c_void_p()
        with contextlib.suppress(OSError, AttributeError):
            library = ctypes.CDLL("libnvidia-ml.so.1")
            if library.nvmlInit_v2() != 0:
                return
            found = 1
            if pci_bus_id is not None:
                found = library.nvmlDeviceGetHandleByPciBusId_v2(pci_bus_id.encode(), ctypes.byref(self._device))
            if found != 0:
                found = library.nvmlDeviceGetHandleByIndex_v2(ctypes.c_uint(0), ctypes.byref(self._device))
            if found == 0:
                self._library = library

    def _read(self, name: str, value: Any, *arguments: Any) -> float | None:
        if self._library is None:
            return None
        with contextlib.suppress(AttributeError, OSError):
            function = getattr(self._library, name)
            if function(self._device, *arguments, ctypes.byref(value)) == 0:
                return float(value.value)
        return None

    def clock_mhz(self, kind: int = SM_CLOCK) -> float | None:
        """Return the current clock of the multiprocessors (or of the memory)."""
        return self._read("nvmlDeviceGetClockInfo", ctypes.c_uint(), ctypes.c_uint(kind))

    def max_clock_mhz(self, kind: int = SM_CLOCK) -> float | None:
        """Return the highest clock the device may run at."""
        return self._read("nvmlDeviceGetMaxClockInfo", ctypes.c_uint(), ctypes.c_uint(kind))

    def power_w(self) -> float | None:
        """Return the power drawn, averaged by the driver over about a second on recent devices."""
        milliwatts = self._read("nvmlDeviceGetPowerUsage", ctypes.c_uint())
        return None if milliwatts is None else milliwatts / 1e3

    def power_limit_w(self) -> float | None:
        """Return the enforced power limit."""
        milliwatts = self._read("nvmlDeviceGetEnforcedPowerLimit", ctypes.c_uint())
        return None if milliwatts is None else milliwatts / 1e3

    def energy_j(self) -> float | None:
        """Return the energy used since the driver was loaded."""
        millijoules = self._read("nvmlDeviceGetTotalEnergyConsumption", ctypes.c_ulonglong())
        return None if millijoules is None else millijoules / 1e3

    def compute_capability(self) -> int | None:
        """Return the compute capability times ten, 90 for 9.0; no context is made for it."""
        major, minor = ctypes.c_int(), ctypes.c_int()
        if self._library is None:
            return None
        with contextlib.suppress(AttributeError, OSError):
            if (
                self._library.nvmlDeviceGetCudaComputeCapability(self._device, ctypes.byref(major), ctypes.byref(minor))
                == 0
            ):
                return 10 * major.value + minor.value
        return None

    def temperature_c(self) -> float | None:
        """Return the die's temperature."""
        return self._read("nvmlDeviceGetTemperature", ctypes.c_uint(), ctypes.c_uint(0))

    def throttle_reasons(self) -> int | None:
        """Return the driver's bit mask of reasons for the current clock."""
        mask = self._read("nvmlDeviceGetCurrentClocksThrottleReasons", ctypes.c_ulonglong())
        return None if mask is None else int(mask)

    def driver_version(self) -> str | None:
        """Return the driver's version."""
        if self._library is None:
            return None
        text = ctypes.create_string_buffer(96)
        with contextlib.suppress(AttributeError, OSError):
            if self._library.nvmlSystemGetDriverVersion(text, ctypes.c_uint(96)) == 0:
                return text.value.decode()
        return None
