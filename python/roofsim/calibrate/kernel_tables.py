"""Published tables of kernel latencies as sources of a calibration.

Columns as in NVIDIA's aiconfigurator collections (Apache-2.0): `op_name`, shape columns, `latency_ms` of one call on
one rank, `src_backend` for the engine. Rows that name another engine or operand type than asked for are passed over,
except those of NCCL.
"""

from __future__ import annotations

import csv
import hashlib
import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Any

from roofsim.calibrate.profile import Source
from roofsim.errors import SpecError

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator, Mapping, Sequence

__all__ = ["ENGINES", "read_kernel_tables"]

ENGINES = {"trtllm": "tensorrt-llm", "vllm": "vllm", "sglang": "sglang"}
"""Engine names of the tables, and of the kernel library in a calibration's name."""
MAX_POINTS = 400
"""Shapes a class that are kept: every one costs time in every fit."""
MAX_GROUP = 16
"""Query heads a KV head beyond which no published model goes; tables list up to 128."""
WIDE = ("bfloat16", "float16")
LEAST_PROMPT = LEAST_CONTEXT = 64
"""Tokens. Context kernels of the tables run shorter prompts too, which the law prices as packed rows of a decode.
Decodes behind fewer tokens, half of the tables' rows, are thousands of launches of next to nothing."""
DTYPES = {"bfloat16": "bf16", "float16": "fp16", "fp8": "fp8"}
"""Formats whose operands and weights are of one type; weight-only and block-scaled kernels are other classes."""
GEMM_DTYPES = {**DTYPES, "nvfp4": "fp4"}
"""Of GEMM also NVIDIA's scaled four-bit format, whose activations are four bits wide too."""


def _records(path: Path) -> Iterator[Mapping[str, Any]]:
    if path.suffix == ".csv":
        with path.open(newline="", encoding="utf-8") as stream:
            yield from csv.DictReader(stream)
        return
    import pyarrow.parquet

    yield from pyarrow.parquet.read_table(path).to_pylist()


def _gemm(row: Mapping[str, Any]) -> dict[str, Any] | None:
    dtype = GEMM_DTYPES.get(row["gemm_dtype"])
    if dtype is None:
        return None
    m, n, k = (int(row[name]) for name in "mnk")
    return {"family": "gemm", "dtype": dtype, "m": m, "n": n, "k": k, "shape_group": f"({n},{k})"}


def _attention(row: Mapping[str, Any]) -> dict[str, Any] | None:
    if row["attn_dtype"] not in DTYPES or row["kv_cache_dtype"] not in DTYPES or row.get("window_size"):
        return None
    decode = row["op_name"] == "generation_attention"
    query, step = int(row["isl"]), int(row["step"])
    if (step + query < LEAST_CONTEXT) if decode else (query < LEAST_PROMPT):
        return None
    # SGLang's prefills of 16-bit queries over an fp8 cache run a kernel of their own, far from the others.
    if row["src_backend"] == "sglang" and not decode and row["attn_dtype"] != row["kv_cache_dtype"]:
        return None
    heads, kv_heads, width = (int(row[name]) for name in ("num_heads", "num_key_value_heads", "head_dim"))
    if heads > MAX_GROUP * (kv_heads or heads):
        return None
    return {
        "family": "decode_attention" if decode else "prefill_attention",
        "dtype": DTYPES[row["attn_dtype"]],
        "kv_cache_dtype": DTYPES[row["kv_cache_dtype"]],
        "batch_size": int(row["batch_size"]),
        "query_tokens": query,
        "context_tokens": step + query,
        "num_heads": heads,
        "num_kv_heads": kv_heads or heads,
        "head_dim": width,
        "shape_group": f"({heads},{kv_heads},{width})",
    }


def _latent_attention(row: Mapping[str, Any]) -> dict[str, Any] | None:
    """Read a row of latent attention, which tables have for DeepSeek V3's widths alone."""
    if row["mla_dtype"] not in DTYPES or row["kv_cache_dtype"] not in DTYPES:
        return None
    decode = row["op_name"] == "mla_generation"
    query, step, heads = int(row["isl"]), int(row["step"]), int(row["num_heads"])
    context = step + query
    if context < LEAST_CONTEXT:
        return None
    return {
        "family": "latent_decode_attention" if decode else "latent_prefill_attention",
        "dtype": DTYPES[row["mla_dtype"]],
        "kv_cache_dtype": DTYPES[row["kv_cache_dtype"]],
        "batch_size": int(row["batch_size"]),
        "query_tokens": query,
        "context_tokens": context,
        "num_heads": heads,
        "shape_group": f"({heads})",
    }


def _thinned(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Keep at most `MAX_POINTS` shapes a class.

    They are spread evenly over groups, in the order of a hash of the shape.
    """
    fastest: dict[str, dict[str, Any]] = {}
    for row in rows:
        key = row["point_id"]
        if key not in fastest or row["median_s"] < fastest[key]["median_s"]:
            fastest[key] = row
    classes: dict[tuple[str, ...], dict[str, list[dict[str, Any]]]] = {}
    for row in sorted(fastest.values(), key=lambda row: hashlib.blake2s(row["point_id"].encode()).digest()):
        key = (row["family"], row["dtype"], row.get("kv_cache_dtype", ""))
        classes.setdefault(key, {}).setdefault(row["shape_group"], []).append(row)
    kept: list[dict[str, Any]] = []
    for groups in classes.values():
        turns = itertools.zip_longest(*groups.values())
        every = [row for turn in turns for row in turn if row is not None]
        kept += every[:MAX_POINTS]
    return kept


def _moe(row: Mapping[str, Any]) -> dict[str, Any] | None:
    # Uniform routing is what the law describes; experts without a gate are another layer.
    # Of engines that take the experts of each format from another library, the 16-bit ones count: one law serves all.
    formats = DTYPES if row["src_backend"] == "trtllm" else WIDE
    if row["moe_dtype"] not in formats or row["distribution"] != "balanced" or "nongated" in str(row["kernel_source"]):
        return None
    hidden, inner = int(row["hidden_size"]), int(row["inter_size"]) // int(row["moe_tp_size"])
    experts, chosen, ranks = (int(row[name]) for name in ("num_experts", "topk", "moe_ep_size"))
    if int(row["num_tokens"]) * chosen // ranks * inner > MOST_ACTIVATIONS:
        return None
    # Of so few experts on a rank the tables do not say how many a batch hits.
    if experts // ranks < MIN_LOCAL_EXPERTS or inner < MIN_SLICE:
        return None
    # vLLM's and SGLang's kernels pass over the rows of every rank's experts, which a step does not.
    if row["src_backend"] != "trtllm" and ranks > 1:
        return None
    return {
        "family": "moe_layer",
        "dtype": DTYPES[row["moe_dtype"]],
        "num_tokens": int(row["num_tokens"]),
        "num_experts": experts,
        "experts_per_token": chosen,
        "expert_ranks": ranks,
        "hidden_size": hidden,
        "intermediate_size": inner,
        "shape_group": f"({experts},{chosen},{ranks},{hidden},{inner})",
    }


def _collective(row: Mapping[str, Any]) -> dict[str, Any]:
    """Read a row of NCCL, or of an engine's own all-reduce: sizes are in elements."""
    library = row.get("src_backend") == NCCL
    kind = COLLECTIVES[str(row["op_name"])]
    size = int(row["message_size"]) * ELEMENT_BYTES[row["nccl_dtype" if library else "allreduce_dtype"]]
    return {
        "family": "collective" if library else "direct_all_reduce",
        "dtype": kind if library else "bf16",
        "num_bytes": size,
        "num_devices": int(row["num_gpus"]),
        "shape_group": f"{kind} {size}",
    }


NCCL = "nccl"
"""Engine name of the tables for NVIDIA's collectives, which every engine uses."""
COLLECTIVES = {
    "all_reduce": "all_reduce",
    "all_gather": "all_gather",
    "alltoall": "all_to_all",
    "reduce_scatter": "reduce_scatter",
}
ELEMENT_BYTES = {"half": 2, "bfloat16": 2, "int8": 1}
MIN_LOCAL_EXPERTS = 4
MIN_SLICE = 128
"""Columns of an expert on a rank: narrower slices, which no server runs, are padded to a tile."""
MOST_ACTIVATIONS = 1 << 29
"""Routed rows times their width, beyond which no step goes."""
READERS = {
    "gemm": _gemm,
    "context_attention": _attention,
    "generation_attention": _attention,
    "mla_context": _latent_attention,
    "mla_generation": _latent_attention,
    "moe": _moe,
    **dict.fromkeys(COLLECTIVES, _collective),
}


def read_kernel_tables(paths: Sequence[str | os.PathLike[str]], engine: str, *, note: str = "") -> Source:
    """Read the rows of one engine.

    Of several rows of one shape (kernel sources, versions) the fastest counts, as an engine picks its kernel.

    Parameters
    ----------
    paths
        Parquet (needs pyarrow) or CSV files of one device.
    engine
        `trtllm`, `vllm` or `sglang`.
    note
        What a reader of the provenance must know.

    Raises
    ------
    SpecError
        No such engine, an unreadable file, or no row of it.
    """
    if engine not in ENGINES:
        raise SpecError("engine", engine, f"must be one of {', '.join(ENGINES)}")
    rows: list[dict[str, Any]] = []
    versions: set[str] = set()
    for path in paths:
        try:
            for record in _records(Path(path)):
                read = READERS.get(str(record.get("op_name")))
                if read is None or record.get("src_backend") not in (engine, NCCL):
                    continue
                shape = read(record)
                if shape is not None:
                    if record["src_backend"] == engine:
                        versions.add(str(record.get("version")))
                    identity = repr(sorted(shape.items()))
                    seconds = 1e-3 * float(record["latency_ms"])
                    origin = {"point_id": identity, "backend": str(record.get("kernel_source")), "error": None}
                    rows.append({**shape, **origin, "median_s": seconds})
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise SpecError("files", path, f"must be a kernel table: {type(error).__name__}: {error}") from error
    if not rows:
        raise SpecError("files", ", ".join(map(str, paths)), f"hold no row of {engine}")
    rows = _thinned(rows)
    software = f"{ENGINES[engine]} {', '.join(sorted(versions))}"
    said = "kernel latencies published with aiconfigurator-core 0.12.0 (NVIDIA, Apache-2.0)"
    assumed = "constants of steps are assumed"
    said = "; ".join(part for part in (said, assumed, note) if part)
    return Source(rows, software, "2026-11", ENGINES[engine], said, cold=False, basis="published")
