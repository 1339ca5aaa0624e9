"""Candidate kernels of the CUDA backend against float64, on a real device."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest

from roofsim.validate import ARCHITECTURES, Point, ValidationUnavailableError

HAS_TORCH = importlib.util.find_spec("torch") is not None


def has_cuda() -> bool:
    if not HAS_TORCH:
        return False
    import torch

    return bool(torch.cuda.is_available())


needs_cuda = pytest.mark.skipif(not has_cuda(), reason="torch with a CUDA device is absent on this machine")


@pytest.mark.skipif(has_cuda(), reason="a CUDA device is present")
def test_without_a_device_the_refusal_is_clear() -> None:
    from roofsim.validate.cuda import CudaBackend

    with pytest.raises(ValidationUnavailableError):
        CudaBackend()


@pytest.fixture(scope="module")
def backend() -> Any:
    from roofsim.validate.cuda import CudaBackend

    return CudaBackend(seed=1)


GEMMS = [("bf16", 33, 192, 320), ("fp16", 33, 192, 320), ("fp8", 33, 192, 320), ("int8", 33, 192, 320)]
DECODES = [(2, 8, 2, 777, 128), (1, 8, 8, 300, 64), (3, 16, 4, 1024, 256), (2, 56, 8, 333, 128)]
PREFILLS = [
    (2, 8, 2, 197, 197, 128),
    (1, 8, 8, 100, 333, 64),
    (1, 4, 2, 128, 256, 256),
    (1, 4, 4, 65, 65, 128),
    (1, 8, 2, 5, 300, 128),
]
OPS = ("rms_norm", "add_rms_norm", "silu_mul", "rotary", "residual_add", "embedding")


def right(rows: list[dict[str, Any]], required: str) -> None:
    """Demand that no candidate is wrong (it may be unsupported) and that the required one ran and was checked."""
    assert not [row for row in rows if (row.get("error") or "").startswith("incorrect")], rows
    found = [row for row in rows if row["backend"] == required]
    assert found, rows
    assert all(row.get("error") is None for row in found), found
    assert found[0]["checked"] is not None


@needs_cuda
@pytest.mark.parametrize(("dtype", "m", "n", "k"), GEMMS)
def test_gemm(backend: Any, dtype: str, m: int, n: int, k: int) -> None:
    from roofsim.validate.cuda.gemm import GEMM_KERNELS

    rows = list(backend.measure(Point("gemm", {"dtype": dtype, "m": m, "n": n, "k": k})))
    right(rows, GEMM_KERNELS[dtype])


def attention_point(family: str, batch: int, heads: int, kv_heads: int, rows: int, context: int, width: int) -> Point:
    sizes = {"batch_size": batch, "query_tokens": rows, "context_tokens": context}
    return Point(family, {"dtype": "bf16", **sizes, "num_heads": heads, "num_kv_heads": kv_heads, "head_dim": width})


@needs_cuda
@pytest.mark.parametrize(("batch", "heads", "kv_heads", "context", "width"), DECODES)
def test_decode(backend: Any, batch: int, heads: int, kv_heads: int, context: int, width: int) -> None:
    point = attention_point("decode_attention", batch, heads, kv_heads, 1, context, width)
    right(list(backend.measure(point)), "triton_split")


@needs_cuda
@pytest.mark.parametrize(("batch", "heads", "kv_heads", "rows", "context", "width"), PREFILLS)
def test_prefill(backend: Any, batch: int, heads: int, kv_heads: int, rows: int, context: int, width: int) -> None:
    point = attention_point("prefill_attention", batch, heads, kv_heads, rows, context, width)
    right(list(backend.measure(point)), "triton_prefill")


@needs_cuda
@pytest.mark.parametrize("op", OPS)
def test_elementwise(backend: Any, op: str) -> None:
    width = 3 if op == "rotary" else 1792
    rows = list(backend.measure(Point("elementwise", {"op": op, "dtype": "bf16", "rows": 37, "width": width})))
    right(rows, "triton")


GROUPED = [("bf16", 40, 6, 2, 1, 192, 320), ("bf16", 500, 8, 2, 2, 256, 128), ("fp8", 40, 6, 2, 1, 192, 320)]


@needs_cuda
@pytest.mark.parametrize(("dtype", "tokens", "experts", "per_token", "ranks", "n", "k"), GROUPED)
def test_grouped_gemm(
    backend: Any, dtype: str, tokens: int, experts: int, per_token: int, ranks: int, n: int, k: int
) -> None:
    from roofsim.validate.plan_moe import grouped_gemm_point

    rows = list(backend.measure(grouped_gemm_point(dtype, tokens, experts, per_token, ranks, n, k, "test")))
    right(rows, "triton_grouped")


@needs_cuda
@pytest.mark.parametrize("model", ["llama-3.1-8b", "qwen2.5-7b", "qwen3-8b", "olmoe-1b-7b", "mixtral-8x7b"])
@pytest.mark.parametrize(("query", "context"), [(1, 90), (40, 40)])
def test_step(backend: Any, model: str, query: int, context: int) -> None:
    from roofsim.validate.plan_step import step_point

    rows = list(backend.measure(step_point(ARCHITECTURES[model], 2, 2, query, context, sustained=False)))
    right(rows, "graph")
    assert rows[0]["finite"]


@needs_cuda
@pytest.mark.parametrize("model", ["llama-3.1-8b", "qwen2.5-7b", "qwen3-8b"])
@pytest.mark.parametrize(("query", "context"), [(1, 90), (40, 40)])
def test_fp8_step(backend: Any, model: str, query: int, context: int) -> None:
    from roofsim.validate.plan_step import step_point

    point = step_point(ARCHITECTURES[model], 2, 2, query, context, sustained=False, dtype="fp8")
    rows = list(backend.measure(point))
    right(rows, "graph")
    assert rows[0]["finite"]


@needs_cuda
@pytest.mark.parametrize(("heads", "context"), [(16, 300), (128, 1030)])
def test_absorbed_latent_attention(backend: Any, heads: int, context: int) -> None:
    rows = list(backend.measure(latent_point("absorbed", 3, 1, context, heads)))
    right(rows, "triton_latent")


@needs_cuda
@pytest.mark.parametrize(("rows", "context"), [(130, 130), (64, 300)])
def test_expanded_latent_attention(backend: Any, rows: int, context: int) -> None:
    found = list(backend.measure(latent_point("expanded", 2, rows, context, 8)))
    right(found, "sdpa_flash")


def latent_point(form: str, batch: int, query: int, context: int, heads: int) -> Point:
    from roofsim.validate.plan_latent import WIDTHS

    sizes = {"batch_size": batch, "query_tokens": query, "context_tokens": context, "num_heads": heads}
    return Point("latent_attention", {"dtype": "bf16", **sizes, **WIDTHS, "form": form})
