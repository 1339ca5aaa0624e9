"""A spec file for a device that the catalogue does not know, begun from what a measurement file says of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from roofsim.calibrate.empirical import empirical_accelerator

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["draft_spec"]

FAMILIES = {"8.0": "ampere", "8.6": "ampere", "8.9": "ada", "9.0": "hopper", "10.0": "blackwell", "10.3": "blackwell"}
"""Architecture by compute capability. Source: NVIDIA, "CUDA GPU compute capability", read 2026-11-24."""

REPLACE = "replace: the best that was measured"


def draft_spec(header: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> str:
    """Return a spec file (TOML) to be completed from the device's datasheet.

    Memory, compute units, caches and family are as the driver has them. Peaks and bandwidth are the best measured
    rates: every datasheet promises more, and a roofline of measured rates is no bound.

    Raises
    ------
    SpecError
        The file holds no GEMM, or neither a read nor a copy of memory.
    """
    measured = empirical_accelerator(header, rows)
    capability = str(header.get("compute_capability") or "")
    lines = [
        f"# {header.get('device')}: a draft. Replace what is marked by the datasheet's figures.",
        f'name = "{measured.name}"',
        f'family = "{FAMILIES.get(capability, measured.name)}"',
        f"memory_bytes = {measured.memory_bytes}",
        f"memory_bandwidth_bytes_per_s = {measured.memory_bandwidth_bytes_per_s:.4g}  # {REPLACE}",
        f"num_compute_units = {measured.num_compute_units}",
    ]
    if header.get("l2_bytes"):
        lines.append(f"cache_bytes = {int(header['l2_bytes'])}")
    if header.get("power_limit_w"):
        lines.append(f"power_w = {float(header['power_limit_w']):g}")
    lines += ["", "[peak_flops_per_s]  # dense, never with 2:4 sparsity"]
    peaks = measured.peak_flops_per_s
    lines += [f"{dtype} = {rate:.4g}  # {REPLACE}" for dtype, rate in peaks.items()]
    return "\n".join(lines) + "\n"
