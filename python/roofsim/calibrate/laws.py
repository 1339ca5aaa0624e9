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
    "graph_s": 0.0,
}
"""Where fits of a collective library start."""
DIRECT = {"t0_s": 4e-6, "hop_s": 1e-7, "e_link": 0.7, "sync_s": 2e-6}
"""Where fits of an engine's own all-reduce start."""
WIDE, NARROW = "bf16", "fp8"
"""Operand types: of GEMMs that are fitted first; whose attention kernels are fitted apart."""
OF_CHUNKS = ("prefix_tile_s", "prefix_excess", "split_rows_s")
"""Constants of attention that chunks behind a cached prefix determine."""
CROWD = ("crowd_s", "crowd_heads")
"""Constants of what a launch over many heads costs at most; engines' kernels pay for every head instead."""
UNGROUPED = {"ungrouped_t0_s": "pass_t0_s", "ungrouped_e_m": "e_m", "ungrouped_head_s": "head_s"}
"""Constants that engines' kernels of one query head a KV head have of their own, and where these start."""
PREFIX_EXCESS = 0.2
"""Where torch's fits start: several kernels, of which the one that takes a cached prefix in one launch is slower."""
ROTATES = "tensorrt-llm"
"""Library whose tables count in rotating the queries and keys and storing the latter."""
ATTENTION = ("attention.", "attention_by_kv_cache.", "attention_by_dtype.", "latent_attention.")
SWITCH_REDUCES = ("hopper", "blackwell")
"""Families whose NVLink switch reduces (NVLS)."""


def laws(observed: Sequence[Observations]) -> list[tuple[list[Observations], list[str]]]:
    """Which observations share which constants: GEMM by operand type, both kinds of attention together."""
    products = sorted((one for one in observed if one.family == "gemm"), key=lambda one: one.dtype != WIDE)
    found: list[tuple[list[Observations], list[str]]] = [([one], [f"gemm.{one.dtype}."]) for one in products]
    for families, prefix in (
        (("grouped_gemm",), "grouped_gemm."),
        (("elementwise",), "elementwise."),
        (("moe_layer",), "grouped_gemm."),
        (("collective",), "collective."),
        (("direct_all_reduce",), "direct_all_reduce."),
    ):
        members = [one for one in observed if one.family in families]
        if members:
            found.append((members, [prefix]))
    attention = [one for one in observed if one.family.endswith("attention")]
    paths = sorted({_attention_path(one) for one in attention}, key=_order)
    found += [([one for one in attention if _attention_path(one) == path], [path]) for path in paths]
    return found


def _order(path: str) -> tuple[int, str]:
    """Sort laws of attention so that each comes after the one that it starts from."""
    return ATTENTION.index(path[: path.index(".") + 1]), path


def _attention_path(one: Observations) -> str:
    """Return where the law of a class of attention stands: 8-bit operands, 8-bit caches and latents have their own."""
    if one.family.startswith("latent"):
        return f"latent_attention.{one.kv_cache_dtype}."
    if one.dtype == NARROW:
        return f"attention_by_dtype.{NARROW}."
    return f"attention_by_kv_cache.{NARROW}." if one.kv_cache_dtype == NARROW else "attention."


def starting(
    accelerator: Accelerator,
    observed: Sequence[Observations],
    prior: Calibration | None = None,
    kernel_library: str = "torch",
) -> Accelerator:
    """Return the device under what is known before the fit, with a GEMM law for every operand type observed."""
    tree = json.loads((prior or Calibration.assumed()).to_json())
    families = {one.family for one in observed}
    if "collective" in families and prior is None:
        tree["collective"] = dict(PIPELINED)
    if accelerator.family not in SWITCH_REDUCES and "e_switch" in tree["collective"]:
        tree["collective"]["e_switch"] = 0.0
    if prior is None and kernel_library != "torch":
        tree["attention"] |= {"crowd_s": 0.0, "head_s": 2e-6, "split_e_c": 0.1, "pass_t0_s": 6e-6, "tile_t0_s": 1e-5}
        tree["attention"] |= {name: tree["attention"][other] for name, other in UNGROUPED.items()}
        tree["attention"]["prepare_bytes"] = 4.0 if kernel_library == ROTATES else 0.0
    if kernel_library == "torch":
        tree["attention"].setdefault("prefix_excess", PREFIX_EXCESS)
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
    paths = {_attention_path(one) for one in members if one.family.endswith("attention")} - {"attention."}
    for section, key in (path.strip(".").split(".") for path in paths):
        own = dict(tree["attention"])
        if section == "latent_attention":
            own = {name: value for name, value in own.items() if not name.startswith("ungrouped")}
            own |= {"prepare_bytes": 4.0, "latent_t0_s": 4e-6, "split_t0_s": 2e-6}
        tree.setdefault(section, {}).setdefault(key, own)
    return accelerator.with_calibration(tree)


def assume_chunks(accelerator: Accelerator, kernel_library: str, observed: Sequence[Observations]) -> Accelerator:
    """Return the device whose attention packs more rows of a KV head than one pass takes into whole tiles.

    Of chunks and drafts behind a cached context, which published tables lack: without it one more draft token would
    take a tile for every query head. It is assumed after the fit, which would lend it to prompts.
    """
    if kernel_library == "torch" or _has_chunks(observed) or not any("attention" in one.family for one in observed):
        return accelerator
    tree = json.loads(accelerator.calibration.to_json())
    for law in (
        tree["attention"],
        *(tree.get("attention_by_dtype") or {}).values(),
        *(tree.get("attention_by_kv_cache") or {}).values(),
    ):
        law["split_tiles"] = 1.0
    return accelerator.with_calibration(tree)


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

    Of graphs that replay collectives; of latent attention; of quantising, or of the fixed time that cannot be told from
    it; of experts in formats that were not measured; of switches that do not reduce.
    """
    products = [one.dtype for one in observed if one.family == "gemm"]
    held = [
        f"gemm.{dtype}.{name}"
        for dtype in products
        for name in (("t0_s",) if _quantises(kernel_library, dtype, products) else ("quantise_s", "quantise_bytes"))
    ]
    # Beside the fixed time of a call nothing tells it apart.
    held.append("collective.graph_s")
    if accelerator.family not in SWITCH_REDUCES:
        held.append("collective.e_switch")
    experts = [one.dtype for one in observed if one.family in BY_DTYPE["grouped_gemm"]]
    if all(dtype in ("bf16", "fp16", "tf32", "fp32") for dtype in experts):
        held.append("grouped_gemm.e_c_narrow")
    paths = {_attention_path(one): one for one in observed if one.family.endswith("attention")}
    for path in paths:
        latent = path.startswith("latent_attention.")
        if not _has_chunks(observed):
            held += [path + name for name in OF_CHUNKS]
        held.append(path + "split_tiles")
        if kernel_library != "torch":
            held += [path + name for name in CROWD]
        if latent:
            held += [path + name for name in ("head_s", "split_e_c")]
        else:
            held += [path + name for name in ("latent_e_c", "latent_t0_s")]
            held += [path + "prepare_bytes"] if kernel_library != ROTATES else []
    return held
