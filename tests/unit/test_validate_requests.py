"""Points that are asked for: a deployment's own kernels, and rows of a sweep."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

import roofsim as rs
from roofsim.validate import ARCHITECTURES, load_rows, points_from_deployment, points_from_rows, step_points
from roofsim.validate.plan_step import layers_that_fit, max_kv_tokens

CONFIGS = Path(__file__).parents[1] / "fixtures" / "models" / "configs"


def deployment(model: str, **layout: object) -> rs.Deployment:
    return rs.Deployment(model, "h100-sxm", calibration="ideal", **layout)  # type: ignore[arg-type]


@pytest.mark.parametrize(("query", "family"), [(1, "decode_attention"), (64, "prefill_attention")])
def test_a_dense_deployment_runs_the_shapes_of_its_rank(query: int, family: str) -> None:
    points = points_from_deployment(deployment("llama-3.1-70b", tensor_parallel_size=4), [(8, query, 1024)])
    gemms = {(point.params["m"], point.params["n"], point.params["k"]) for point in points if point.family == "gemm"}
    rows = 8 * query
    # Llama-3.1-70B: d 8192, 64 query and 8 KV heads of 128, intermediate 28672, vocabulary 128256; a quarter of each
    layer = {(rows, 2560, 8192), (rows, 8192, 2048), (rows, 14336, 8192), (rows, 8192, 7168)}
    assert gemms == layer | {(8, 32064, 8192)}
    (attention,) = [point for point in points if point.family == family]
    assert attention.params["num_heads"] == 16
    assert attention.params["num_kv_heads"] == 2
    assert attention.params["context_tokens"] == 1024
    ops = {point.params["op"]: point.params["width"] for point in points if point.family == "elementwise"}
    assert ops == {"add_rms_norm": 8192, "silu_mul": 7168, "rotary": 18}


def test_the_flops_of_the_shapes_are_the_flops_of_the_step() -> None:
    step = deployment("mixtral-8x7b").decode(batch_size=16, context_tokens=512)
    by_name = {op.name: op for op in step.ops}
    for shape in step.shapes:
        if shape["family"] == "gemm":
            flops = 2 * shape["m"] * shape["n"] * shape["k"]
        elif shape["family"] == "grouped_gemm":
            flops = 2 * shape["num_tokens"] * shape["experts_per_token"] * shape["n"] * shape["k"]
        else:
            continue
        assert by_name[shape["name"]].flops == flops
        assert by_name[shape["name"]].count == shape["count"]


def test_a_mixture_asks_for_grouped_gemms() -> None:
    points = points_from_deployment(deployment("mixtral-8x7b", tensor_parallel_size=2), [(16, 1, 512)])
    grouped = {(p.params["n"], p.params["k"]): p for p in points if p.family == "grouped_gemm"}
    assert set(grouped) == {(14336, 4096), (4096, 7168)}
    assert all(p.params["num_tokens"] == 16 and p.params["num_experts"] == 8 for p in grouped.values())


def test_whole_steps_come_with_one_device_and_a_known_model() -> None:
    points = points_from_deployment(deployment("qwen3-8b"), [(4, 1, 2048), (1, 512, 512)])
    steps = [point for point in points if point.family == "step"]
    assert [(p.params["batch_size"], p.params["query_tokens"]) for p in steps] == [(4, 1), (1, 512)]
    sharded = points_from_deployment(deployment("qwen3-8b", tensor_parallel_size=2), [(4, 1, 2048)])
    assert not [point for point in sharded if point.family == "step"]


def test_rows_of_a_sweep(tmp_path: Path) -> None:
    rows = [
        {"model": "qwen3-8b", "batch_size": 4, "query_tokens": 1, "context_tokens": 2048, "time_s": 0.01},
        {"model": "qwen3-8b", "tensor_parallel_size": 2, "batch_size": 4, "context_tokens": 2048},
    ]
    lines, table = tmp_path / "rows.jsonl", tmp_path / "rows.csv"
    lines.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    table.write_text(
        "model,tensor_parallel_size,batch_size,query_tokens,context_tokens\nqwen3-8b,,4,1,2048\nqwen3-8b,2,4,,2048\n",
        encoding="utf-8",
    )
    from_lines = points_from_rows(load_rows(lines))
    assert {p.point_id for p in from_lines} == {p.point_id for p in points_from_rows(load_rows(table))}
    families = Counter(point.family for point in from_lines)
    assert families["step"] == 1
    assert families["decode_attention"] == 2
    lines.write_text('{"model": "qwen3-8b"}', encoding="utf-8")
    with pytest.raises(ValueError, match=r"row 1 must hold .*batch_size"):
        load_rows(lines)


@pytest.mark.parametrize("name", sorted(set(ARCHITECTURES) - {"mistral-7b"}))  # its config is not in the repository
def test_the_table_of_architectures_agrees_with_the_models(name: str) -> None:
    source = CONFIGS / "allenai--OLMoE-1B-7B-0924.json" if name == "olmoe-1b-7b" else name
    architecture, model = ARCHITECTURES[name], rs.Model.load(source)
    matrices = architecture.num_hidden_layers * architecture.layer_bytes() + architecture.embedding_bytes()
    # what the table leaves out is vectors: norms and biases
    assert 0 <= model.weight_bytes() - matrices < 1e-3 * matrices
    layers = architecture.num_hidden_layers
    assert architecture.kv_bytes_per_token(layers) == model.kv_bytes_per_token()
    step = rs.Deployment(model, "h100-sxm").decode(batch_size=1, context_tokens=64)
    products = {s["name"]: (s["n"], s["k"]) for s in step.shapes if s["family"] in ("gemm", "grouped_gemm")}
    table = {shape[-2:] for shape in architecture.layer_weights().values()}
    assert {shape for operation, shape in products.items() if operation != "lm_head"} == table


def test_steps_fit_the_memory_and_stay_together() -> None:
    points = step_points(80e9)
    models = [point.params["model"] for point in points]
    assert len(dict.fromkeys(models)) == sum(a != b for a, b in zip(models, [None, *models], strict=False))
    for point in points:
        model, layers = ARCHITECTURES[point.text("model")], point.integer("num_layers")
        assert layers == layers_that_fit(model, 80e9)
        tokens = point.integer("batch_size") * point.integer("context_tokens")
        assert tokens <= max_kv_tokens(model, layers, 80e9)
        held = layers * model.layer_bytes() + model.embedding_bytes() + tokens * model.kv_bytes_per_token(layers)
        assert held < 0.93 * 80e9
    cut = {point.params["num_layers"] for point in points if point.params["model"] == "mixtral-8x7b"}
    assert cut
    assert all(isinstance(layers, int) and layers < 32 for layers in cut)
    with pytest.raises(ValueError, match="nonsense"):
        step_points(80e9, models=["nonsense"])
