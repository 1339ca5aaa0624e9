"""What the CPU is: model name, cores, last-level cache, NumPy's BLAS."""

from __future__ import annotations

import contextlib
import os
import platform
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["describe_machine", "last_level_cache_bytes"]

FALLBACK_CACHE_BYTES = 32 << 20
UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def last_level_cache_bytes() -> int:
    """Return the size of the largest cache of CPU 0 as Linux reports it, or 32 MiB where it reports none."""
    largest = 0
    for path in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"):
        with contextlib.suppress(OSError, ValueError, KeyError):
            text = path.read_text(encoding="ascii").strip()
            largest = max(largest, int(text[:-1]) * UNITS[text[-1]])
    return largest or FALLBACK_CACHE_BYTES


def _model_name() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _blas() -> str:
    with contextlib.suppress(Exception):
        config = np.show_config(mode="dicts")
        blas = config["Build Dependencies"]["blas"]
        return f"{blas['name']} {blas['version']}"
    return "unknown"


def describe_machine() -> dict[str, Any]:
    """Return the header of a CPU run."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = 0
    with contextlib.suppress(ValueError, OSError, AttributeError):
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    threads = {name: os.environ[name] for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS") if name in os.environ}
    return {
        "backend": "cpu",
        "device": _model_name(),
        "cores": cores,
        "l2_bytes": last_level_cache_bytes(),
        "memory_bytes": memory,
        "numpy": np.__version__,
        "blas": _blas(),
        "threads": threads,
    }
