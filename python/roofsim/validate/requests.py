"""Points that somebody asked for: the kernels of a deployment's steps, or the rows of a sweep's result.

Shapes come from roofsim's own deployment, so that what is measured is what is predicted. roofsim is imported only
when a function here is called with rows; the rest of the package stands alone.
"""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .architectures import ARCHITECTURES
from .plan_moe import grouped_gemm_point
from .plan_step import layers_that_fit, max_kv_tokens, step_point
from .points import Point, Scalar, unique

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Mapping, Sequence

__all__ = ["load_rows", "points_from_deployment", "points_from_rows"]

OPERAND_BYTES = {"bf16": 2, "fp16": 2, "fp8": 1, "int8": 1}
NARROW = ("fp8", "int8", "fp4")
MEASURED_HEAD_DIMS = (64, 128, 256)
# operation -> (kernel, bf16 bytes a row and unit of width)
ELEMENTWISE = {"norm": ("add_rms_norm", 8), "activation": ("silu_mul", 6), "rotary": ("rotary", 512)}
STEP_KEYS = ("batch_size", "query_tokens", "context_tokens")
LAYOUT_KEYS = (
    "tensor_parallel_size",
    "pipeline_parallel_size",
    "data_parallel_size",
    "expert_parallel_size",
    "weight_dtype",
    "kv_cache_dtype",
)


def _attention(shape: Mapping[str, Any], step: tuple[int, int, int], labels: Mapping[str, Scalar]) -> Point | None:
    """Return the attention point of a step, or None where no kernel here computes it."""
    _, query, context = step
    plain = shape["kv_cache_dtype"] == "bf16" and shape["head_dim"] == shape["v_head_dim"]
    whole = shape.get("sliding_window", context) >= context and "attention_chunk" not in shape
    if not plain or not whole or shape["head_dim"] not in MEASURED_HEAD_DIMS:
        return None
    heads = {name: shape[name] for name in ("num_heads", "num_kv_heads", "head_dim")}
    sizes = dict(zip(STEP_KEYS, step, strict=True))
    family = "decode_attention" if query == 1 else "prefill_attention"
    return Point(family, {"dtype": "bf16", **sizes, **heads}, labels)


def _point(shape: Mapping[str, Any], step: tuple[int, int, int], labels: Mapping[str, Scalar]) -> Point | None:
    """Return the point of one operation, or None where the harness has no kernel for it."""
    family = shape["family"]
    if family == "attention":
        return _attention(shape, step, labels)
    if family == "elementwise":
        if shape["name"] not in ELEMENTWISE:
            return None
        op, unit = ELEMENTWISE[shape["name"]]
        width, rest = divmod(shape["bytes_per_row"], unit)
        params: dict[str, Scalar] = {"op": op, "dtype": "bf16", "rows": shape["rows"], "width": int(width)}
        return None if rest else Point("elementwise", params, labels)
    if shape["dtype"] not in OPERAND_BYTES:
        return None
    if family == "gemm":
        if shape["weight_bytes"] < shape["n"] * shape["k"] * OPERAND_BYTES[shape["dtype"]]:
            return None  # weight-only quantisation: another kernel
        return Point("gemm", {name: shape[name] for name in ("dtype", "m", "n", "k")}, labels)
    if shape["weight_dtype"] != shape["dtype"]:
        return None
    point = grouped_gemm_point(
        shape["dtype"],
        shape["num_tokens"],
        shape["num_experts"],
        shape["experts_per_token"],
        shape["expert_ranks"],
        shape["n"],
        shape["k"],
        str(labels["source"]),
    )
    return Point(point.family, point.params, {**point.labels, **labels})


def points_from_deployment(
    deployment: Any,
    steps: Iterable[tuple[int, int, int]],
    *,
    memory_bytes: float = 80e9,
    sustained: bool = False,
) -> list[Point]:
    """Return the points that a deployment's steps run on one rank.

    Parameters
    ----------
    deployment
        A `roofsim.Deployment`.
    steps
        (batch_size, query_tokens, context_tokens) each; all requests of a step are equal, contexts count the new
        tokens.
    memory_bytes
        Memory of the device that will measure: whole steps that do not fit it are left out.
    sustained
        Measure whole steps under steady load too, with their energy.

    Returns
    -------
    list of Point
        Each operation that the harness has a kernel for, once; and the whole step, where the deployment is one device
        and the model is in `ARCHITECTURES`. Communication, latent and windowed attention and weight-only formats
        have no kernel here and are left out.
    """
    model = str(deployment.model.name)
    points: list[Point] = []
    for step in steps:
        batch, query, context = step
        shapes = deployment.step([(query, context)] * batch).shapes
        narrow = any(shape["family"] == "gemm" and shape["dtype"] in NARROW for shape in shapes)
        for shape in shapes:
            if narrow and shape["name"] in ("norm", "activation"):
                continue  # they write what the products multiply: other kernels
            labels: dict[str, Scalar] = {
                "source": f"deployment:{model}:{shape['name']}:tp{deployment.tensor_parallel_size}",
                "count": shape["count"],
            }
            point = _point(shape, step, labels)
            if point is not None:
                points.append(point)
        architecture = ARCHITECTURES.get(model)
        if architecture is not None and deployment.num_devices == 1:
            layers = layers_that_fit(architecture, memory_bytes)
            if layers and batch * context <= max_kv_tokens(architecture, layers, memory_bytes):
                points.append(step_point(architecture, layers, batch, query, context, sustained=sustained))
    return unique(points)


def load_rows(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Read rows of a sweep's result: a CSV file with a header, or JSON lines; numbers become numbers.

    Raises
    ------
    ValueError
        A row without `model`, `batch_size` or `context_tokens`.
    """
    text = Path(path).read_text(encoding="utf-8")
    rows: list[dict[str, Any]]
    if text.lstrip().startswith("{"):
        rows = [json.loads(line) for line in text.splitlines() if line.strip()]
    else:
        rows = [{key: _number(value) for key, value in row.items()} for row in csv.DictReader(text.splitlines())]
    for number, row in enumerate(rows, 1):
        missing = [key for key in ("model", "batch_size", "context_tokens") if row.get(key) in (None, "")]
        if missing:
            raise ValueError(f"path = {str(path)!r}: row {number} must hold {missing}")
    return rows


def _number(value: str | None) -> object:
    if value is None or value == "":
        return None
    for kind in (int, float):
        try:
            return kind(value)
        except ValueError:
            continue
    return value


def points_from_rows(
    rows: Sequence[Mapping[str, Any]], *, accelerator: str = "h100-sxm", memory_bytes: float = 80e9
) -> list[Point]:
    """Return the points that check rows of a sweep.

    Parameters
    ----------
    rows
        Each holds `model`, `batch_size`, `context_tokens`, and where they differ from 1 or "auto" `query_tokens` and
        the layout and formats under the names of `roofsim.Deployment`. Other columns are ignored.
    accelerator
        The device that measures, by its catalogue name: it decides which formats exist.
    memory_bytes
        Its memory.

    Raises
    ------
    SpecError, UnsupportedError
        A model, layout or format that roofsim refuses.
    """
    import roofsim

    points: list[Point] = []
    for row in rows:
        given = {key: row[key] for key in LAYOUT_KEYS if row.get(key) is not None}
        deployment = roofsim.Deployment(row["model"], accelerator, **given)
        query = 1 if row.get("query_tokens") is None else int(row["query_tokens"])
        step = (int(row["batch_size"]), query, int(row["context_tokens"]))
        points += points_from_deployment(deployment, [step], memory_bytes=memory_bytes)
    return unique(points)
