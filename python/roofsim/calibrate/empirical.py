"""A device that no datasheet describes, as its own measurements see it: the empirical roofline.

Peaks are the best rates that any measured kernel reached. Source: Lo et al., "Roofline Model Toolkit", PMBS 2014.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from roofsim import Accelerator
from roofsim.calibrate.observations import observe
from roofsim.calibrate.predict import costs
from roofsim.errors import SpecError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["empirical_accelerator"]


def empirical_accelerator(header: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> Accelerator:
    """Return an accelerator whose peaks are the best measured rates of GEMM and of reads and copies.

    Raises
    ------
    SpecError
        The file holds no GEMM, or neither a read nor a copy.
    """
    gemms = [one for one in observe(rows) if one.family == "gemm"]
    unit = Accelerator(
        name="unit",
        memory_bytes=1 << 40,
        memory_bandwidth_bytes_per_s=1e9,
        peak_flops_per_s={one.dtype: 1e9 for one in gemms} or {"fp32": 1e9},
    ).with_calibration("ideal")
    peaks = {one.dtype: float((costs(unit, one)["flops"] / one.measured_s).max()) for one in gemms}
    rates = [
        row["bytes"] / row["median_s"]
        for row in rows
        if row["family"] == "system" and row.get("op") in ("read", "copy") and row.get("error") is None
    ]
    missing = [name for name, found in (("a GEMM", peaks), ("a read or a copy of memory", rates)) if not found]
    if missing:
        rule = f"must hold {' and '.join(missing)}, from which the roofline of a device without a datasheet is made: "
        raise SpecError("measurements", header.get("device"), rule + "`roofsim validate --resume` measures more")
    return Accelerator(
        name=re.sub(r"[^a-z0-9]+", "-", str(header.get("device", "unknown")).lower()).strip("-"),
        family="measured",
        memory_bytes=int(header.get("memory_bytes") or 1 << 30),
        memory_bandwidth_bytes_per_s=max(rates),
        peak_flops_per_s=peaks,
        num_compute_units=header.get("cores") or header.get("sms") or 1,
    )
