"""What each law is fitted to: which observations share which constants, where they start, which are held."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np

from roofsim import Accelerator, Calibration

if TYPE_CHECKING:
    from collections.abc import Sequence

    from roofsim.calibrate.observations import Observations

__all__ = ["BY_DTYPE", "COLLECTIVES", "held_constants", "laws", "starting", "with_own_law"]

BY_DTYPE = {"gemm": ("gemm",), "grouped_gemm": ("grouped_gemm", "moe_layer")}
"""Bars of their own for each operand type, and the classes that determine them."""
COLLECTIVES = ("collective", "direct_all_reduce")
PIPELINED = {
    "law": "pipelined",
    "t0_s": 6e-6,
    "hop_s": 1e-6,
    "e_link": 0.85,
    "own": 0.4,
    "pipe_s": 15e-6,
    "e_switch": 0.5,
}
"""Where fits of a collective library start."""
DIRECT = {"t0_s": 4e-6, "hop_s": 1e-7, "e_link": 0.7, "sync_s": 2e-6}
"""Where fits of an engine's own all-reduce start."""
WIDE, NARROW = "bf16", "fp8"
"""Operand types: of GEMMs that are fitted first; whose attention kernels are fitted apart."""
OF_CHUNKS = ("prefix_tile_s", "split_rows_s", "split_e_c", "split_t0_s", "split_c_s")
"""Constants of attention that chunks behind a cached prefix determine: decodes alone may never need a split."""
SPLIT_T0_S = 8e-6
"""Start of a KV split where no chunk was measured, seconds: four times what an H100's chunks give, since the prompts of
such tables are not served by splits. Left free it runs off, and one more draft token falls off a cliff."""
SWITCH_REDUCES = ("hopper", "blackwell")
"""Families whose NVLink switch reduces (NVLS)."""


def laws(observed: Sequence[Observations]) -> list[tuple[list[Observations], list[str]]]:
    """Which observations share which constants: GEMM by operand type, both kinds of attention together."""
    products = sorted((one for one in observed if one.family == "gemm"), key=lambda one: one.dtype != WIDE)
    found: list[tuple[list[Observations], list[str]]] = [([one], [f"gemm.{one.dtype}."]) for one in products]
    for families, prefix in (
        (("decode_attention", "prefill_attention"), "attention."),
        (("grouped_gemm",), "grouped_gemm."),
        (("elementwise",), "elementwise."),
        (("moe_layer",), "grouped_gemm."),
        (("collective",), "collective."),
        (("direct_all_reduce",), "direct_all_reduce."),
    ):
        members = [one for one in observed if one.family in families]
        narrow = [one for one in members if prefix == "attention." and one.dtype == NARROW]
        wide = [one for one in members if one not in narrow]
        # Operands of 8 bits have kernels of their own.
        for own, path in ((wide, prefix), (narrow, f"attention_by_dtype.{NARROW}.")):
            if own:
                found.append((own, [path]))
    return found


def starting(
    accelerator: Accelerator, observed: Sequence[Observations], prior: Calibration | None = None
) -> Accelerator:
    """Return the device under what is known before the fit, with a GEMM law for every operand type observed."""
    tree = json.loads((prior or Calibration.assumed()).to_json())
    families = {one.family for one in observed}
    if "collective" in families and prior is None:
        tree["collective"] = dict(PIPELINED)
    if accelerator.family not in SWITCH_REDUCES and "e_switch" in tree["collective"]:
        tree["collective"]["e_switch"] = 0.0
    attends = any("attention" in family for family in families)
    if prior is None and attends and not _has_chunks(observed):
        tree["attention"]["split_t0_s"] = SPLIT_T0_S
    for one in observed:
        if one.family == "gemm":
            tree["gemm"].setdefault(one.dtype, tree["gemm"]["bf16"])
    return accelerator.with_calibration(tree)


def with_own_law(accelerator: Accelerator, members: Sequence[Observations]) -> Accelerator:
    """Return the device with a law of its own for what is fitted next: an engine's all-reduce, narrow attention.

    The library's collectives are fitted without the former; the latter starts from the constants of the wide one. A
    narrow GEMM takes over the fixed time of the wide one, which is fitted before it.
    """
    tree = json.loads(accelerator.calibration.to_json())
    if all(one.family == "gemm" and one.dtype == NARROW for one in members) and "t0_s" in tree["gemm"].get(WIDE, {}):
        tree["gemm"][NARROW]["t0_s"] = tree["gemm"][WIDE]["t0_s"]
        return accelerator.with_calibration(tree)
    if all(one.family == "direct_all_reduce" for one in members):
        return accelerator.with_calibration({**tree, "direct_all_reduce": dict(DIRECT)})
    if all("attention" in one.family and one.dtype == NARROW for one in members):
        return accelerator.with_calibration({**tree, "attention_by_dtype": {NARROW: tree["attention"]}})
    return accelerator


def _quantises(kernel_library: str, dtype: str, products: Sequence[str]) -> bool:
    """Whether a library's GEMM times contain the quantising of activations: of narrow types, but for torch's kernels.

    What is fixed in them is then told from the GEMM's own fixed time by that of 16-bit operands.
    """
    return kernel_library != "torch" and dtype == NARROW and WIDE in products


def _has_chunks(observed: Sequence[Observations]) -> bool:
    """Whether any attention point adds several tokens to a longer context."""
    attention = [one.columns for one in observed if "attention" in one.family]
    return any(np.any((one["query_tokens"] > 1) & (one["query_tokens"] < one["context_tokens"])) for one in attention)


def held_constants(accelerator: Accelerator, kernel_library: str, observed: Sequence[Observations]) -> list[str]:
    """Return constants that no class determines.

    Of latent attention; of quantising, or of the fixed time that cannot be told from it; of experts in formats that
    were not measured; of switches that do not reduce.
    """
    products = [one.dtype for one in observed if one.family == "gemm"]
    held = [
        f"gemm.{dtype}.{name}"
        for dtype in products
        for name in (("t0_s",) if _quantises(kernel_library, dtype, products) else ("quantise_s", "quantise_bytes"))
    ]
    if accelerator.family not in SWITCH_REDUCES:
        held.append("collective.e_switch")
    experts = [one.dtype for one in observed if one.family in BY_DTYPE["grouped_gemm"]]
    if all(dtype in ("bf16", "fp16", "tf32", "fp32") for dtype in experts):
        held.append("grouped_gemm.e_c_narrow")
    if not _has_chunks(observed):
        held += [f"attention.{name}" for name in OF_CHUNKS]
    latent = [
        f"{law}.latent_{name}" for law in ("attention", f"attention_by_dtype.{NARROW}") for name in ("e_c", "t0_s")
    ]
    return [*latent, *held]
