"""The CUDA backend: one device, its operand pool, and the table of families."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ..points import Point
from .bench import Bench
from .check import Checks
from .collective import measure_collective
from .decode import measure_decode
from .device import describe_device, import_torch, pci_bus_id
from .elementwise import measure_elementwise
from .gemm import measure_gemm
from .latent import measure_latent
from .moe import measure_grouped_gemm
from .nvml import Nvml
from .pool import OperandPool
from .prefill import measure_prefill
from .step import measure_step
from .system import measure_system
from .timing import Stopwatch

__all__ = ["FAMILIES", "CudaBackend"]

Measure = Callable[[Bench, Point], Iterator[Mapping[str, Any]]]

FAMILIES: dict[str, Measure] = {
    "system": measure_system,
    "gemm": measure_gemm,
    "decode_attention": measure_decode,
    "prefill_attention": measure_prefill,
    "latent_attention": measure_latent,
    "elementwise": measure_elementwise,
    "grouped_gemm": measure_grouped_gemm,
    "step": measure_step,
    "collective": measure_collective,
}
FALLBACK_L2_BYTES = 64 << 20
DATA_SHARE, DATA_LIMIT = 0.25, 32 << 30
SCRATCH_SHARE, SCRATCH_LIMIT = 0.06, 6 << 30
RESERVED_SHARE = 0.8  # above this share of the device's memory cached blocks are given back between points


class CudaBackend:
    """Measures torch and Triton kernels on the current CUDA device.

    Parameters
    ----------
    seed
        Seeds the operand data.
    quick
        Leave out kernels that hardly ever win.

    Raises
    ------
    ValidationUnavailableError
        torch is absent or sees no CUDA device.
    """

    name = "cuda"

    def __init__(self, *, seed: int = 0, quick: bool = False) -> None:
        torch = import_torch()
        torch.set_grad_enabled(False)
        self.torch = torch
        self.nvml = Nvml(pci_bus_id(torch))
        properties = torch.cuda.get_device_properties(torch.cuda.current_device())
        l2_bytes = int(getattr(properties, "L2_cache_size", 0) or FALLBACK_L2_BYTES)
        self.memory_bytes = int(properties.total_memory)
        pool = OperandPool(
            torch,
            data_bytes=min(DATA_LIMIT, int(DATA_SHARE * self.memory_bytes)),
            scratch_bytes=min(SCRATCH_LIMIT, int(SCRATCH_SHARE * self.memory_bytes)),
            seed=seed,
        )
        stopwatch = Stopwatch(torch, self.nvml, l2_bytes)
        sms = int(properties.multi_processor_count)
        self.bench = Bench(torch, self.nvml, pool, stopwatch, Checks(), sms, quick=quick)

    def describe(self) -> Mapping[str, Any]:
        """Return the header of a CUDA run."""
        described = describe_device(self.torch, self.nvml)
        return {**described, "replay_overhead_s": self.bench.stopwatch.replay_overhead_s}

    def recover(self) -> bool:
        """Free cached memory; return whether the device still answers."""
        try:
            self.bench.resident.clear()
            self.bench.release()
            probe = self.torch.ones(4, device="cuda")
            return bool(float(probe.sum()) == 4.0)
        except Exception:  # a sticky CUDA error: only a new process helps
            return False

    def measure(self, point: Point) -> Iterator[Mapping[str, Any]]:
        """Measure one point: a row a candidate kernel."""
        if point.family not in FAMILIES:
            raise ValueError(f"family = {point.family!r}: must be among {sorted(FAMILIES)}")
        with contextlib.suppress(Exception):
            if point.family != "step" and self.bench.resident:
                self.bench.resident.clear()
                self.bench.release()
            if self.torch.cuda.memory_reserved() > RESERVED_SHARE * self.memory_bytes:
                self.torch.cuda.empty_cache()
        yield from FAMILIES[point.family](self.bench, point)
