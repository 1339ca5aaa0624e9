"""The command line: content, JSON equal to the library, refusals on one line, narrow terminals, pipes, Ctrl-C."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from rich.cells import cell_len
from typer.testing import CliRunner

import roofsim as rs
from roofsim.cli import table_file
from roofsim.cli.app import COMMANDS, app
from roofsim.cli.display import significant

THREE = ["--accelerators", "h100-sxm,h200-sxm,mi300x"]
WORKLOAD = ["--input-tokens", "4000", "--output-tokens", "500", "--ttft", "1.0", "--tpot", "0.03"]
ARGUMENTS = {"input_tokens": 4000, "output_tokens": 500, "ttft_s": 1.0, "tpot_s": 0.03}
PLAN = ["plan", "--model", "llama-3.1-70b", *THREE, *WORKLOAD]
SWEEP = ["sweep", "-m", "llama-3.1-8b", "-a", "h100-sxm,l4", "--tp", "1,3", "--batch-size", "1,8"]
SPACE = {
    "models": "llama-3.1-8b",
    "accelerators": ["h100-sxm", "l4"],
    "tensor_parallel_size": [1, 3],
    "batch_size": [1, 8],
}
ANSWERS = [
    PLAN,
    ["plan", "--model", "llama-3.1-405b", "--accelerators", "h100-sxm", *WORKLOAD],
    ["plan", "--model", "deepseek-r1", *THREE, *WORKLOAD],
    ["step", "-m", "llama-3.1-70b", "-a", "h100-sxm", "--tp", "4", "--batch-size", "32"],
    ["roofline", "-m", "llama-3.1-8b", "-a", "h100-sxm"],
    ["roofline", "-a", "mi300x", "--gemm", "8x8192x8192", "--gemm", "8192x8192x8192"],
    ["capacity", "-m", "llama-3.1-70b", "-a", "h100-sxm", "--tp", "2"],
    ["regimes", "-m", "deepseek-v3", "-a", "h200-sxm", "--tp", "8"],
    ["regimes", "-m", "llama-3.1-70b", "-a", "h100-sxm"],
    ["levers", "-m", "llama-3.1-70b", "-a", "h100-sxm", "--tp", "4"],
    ["models"],
    ["models", "deepseek-r1"],
    ["accelerators"],
    ["accelerators", "mi300x"],
    SWEEP,
    [*SWEEP, "--top-k", "3", "--where", "fits"],
    [*SWEEP, "--pareto", "tokens_per_s_per_gpu,tokens_per_s_per_user"],
]


@pytest.fixture
def run(monkeypatch):
    def call(*words: str, columns: int = 80):
        monkeypatch.setenv("COLUMNS", str(columns))
        return CliRunner().invoke(app, list(words))

    return call


def answer(run, *words: str, columns: int = 80) -> str:
    result = run(*words, columns=columns)
    assert result.exit_code == 0, result.output
    return result.stdout


def parsed(run, *words: str):
    return json.loads(answer(run, *words, "--json"))


def command(*words: str, **options) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "roofsim", *words], capture_output=True, text=True, timeout=120, check=False, **options
    )


def plain(text: str) -> str:
    return " ".join(text.split())


def test_plan_json_is_the_librarys_answer(run):
    expected = rs.plan("llama-3.1-70b", THREE[1].split(","), **ARGUMENTS).to_dict()
    assert parsed(run, *PLAN) == json.loads(json.dumps(expected))


def test_plan_passes_every_option_on(run):
    words = ["plan", "-m", "llama-3.1-8b", "-a", "h100-sxm", "-a", "l40s", "--input-tokens", "1000"]
    words += ["--output-tokens", "200", "--tpot-s", "0.02", "--objective", "tokens_per_s_per_gpu", "--max-devices", "4"]
    words += ["--price", "h100-sxm=2.5", "--price-kind", "reserved", "--weight-dtypes", "bf16,fp8"]
    words += ["--kv-cache-dtypes", "fp8", "--max-num-batched-tokens", "4096", "--max-num-seqs", "128"]
    words += ["--gpu-memory-utilization", "0.8", "--block-size", "32", "--capacity-mode", "ideal"]
    words += ["--calibration", "ideal", "--engine", "vllm"]
    expected = rs.plan(
        "llama-3.1-8b",
        ["h100-sxm", "l40s"],
        input_tokens=1000,
        output_tokens=200,
        tpot_s=0.02,
        objective="tokens_per_s_per_gpu",
        max_devices=4,
        prices={"h100-sxm": 2.5},
        price_kind="reserved",
        weight_dtypes=["bf16", "fp8"],
        kv_cache_dtypes=["fp8"],
        max_num_batched_tokens=4096,
        max_num_seqs=128,
        gpu_memory_utilization=0.8,
        block_size=32,
        capacity_mode="ideal",
        calibration="ideal",
        engine="vllm",
    ).to_dict()
    assert parsed(run, *words) == json.loads(json.dumps(expected))


def test_plan_table_says_what_a_person_acts_on(run):
    plan = rs.plan("llama-3.1-70b", THREE[1].split(","), **ARGUMENTS)
    best, second = plan.distinct()[:2]
    wide = plain(answer(run, *PLAN, columns=250))
    for heading in ("devices", "layout", "weights", "KV", "batch", "binds", "limit", "why not first"):
        assert heading in wide
    assert f"{best['num_devices']} x {best['accelerator']}" in wide
    assert f"Serve llama-3.1-70b on {best['num_devices']} x {best['accelerator']}" in wide
    assert f"with {best['sequences']} sequences per replica" in wide
    assert f"memory would hold {best['max_sequences']} sequences per replica" in wide
    for name in ("ttft", "tpot"):
        low, high = (significant(1e3 * best[f"{name}_{end}_s"]) for end in ("low", "high"))
        assert f"[{low}, {high}]" in wide
    assert f"{best['usd_per_mtok']:.2f} per million output tokens ({best['price_kind']})" in wide
    assert second["why_not_first"] in wide
    # The interval of a step, and what stands behind the numbers.
    assert f"{1e3 * best['decode_step']['time_s']:.1f} [" in wide
    assert {"measured", "borrowed", "queueing"} <= {word.strip(".,;:") for word in wide.split()}


def test_plan_without_an_answer_names_the_nearest_miss_and_a_way_out(run):
    plan = rs.plan("llama-3.1-405b", ["h100-sxm"], **ARGUMENTS)
    assert plan.best is None
    text = plain(answer(run, *ANSWERS[1], columns=250))
    nearest = plan.misses[0]
    assert nearest["limit"] == "capacity"
    assert "Nothing holds these limits" in text
    assert f"a factor of {nearest['factor']:.2f}" in text
    assert nearest["reason"] in text
    assert "What would help: allow more devices (--max-devices)" in text
    assert parsed(run, *ANSWERS[1])["options"] == []


def test_unknown_price_is_said(run):
    words = ["plan", "-m", "llama-3.1-8b", "-a", "l4,h100-sxm", "--input-tokens", "100", "--output-tokens", "100"]
    text = answer(run, *words, columns=250)
    assert "unknown" in text
    assert "no on-demand price of it is known" in text
    assert "No price of l4 is known: it ranks last by price until you give one." in plain(text)


FIELDS = {
    "plan": (PLAN, {"request", "offers", "notes", "options", "misses"}),
    "step": (
        ["step", "-m", "llama-3.1-8b", "-a", "h100-sxm"],
        {"model", "accelerator", "num_devices", "calibration", "time_s", "time_low_s", "time_high_s", "ideal_s"}
        | {"compute_s", "memory_s", "network_s", "overhead_s", "bound", "flops", "bytes", "arithmetic_intensity"}
        | {"mfu", "mbu", "ops"},
    ),
    "roofline": (
        ["roofline", "-a", "h100-sxm", "--gemm", "8x8x8"],
        {"accelerator", "ridge_flops_per_byte", "calibration", "ops"},
    ),
    "capacity": (
        ["capacity", "-m", "llama-3.1-8b", "-a", "h100-sxm"],
        {"mode", "usable_bytes", "weight_bytes", "activation_bytes", "overhead_bytes", "kv_cache_bytes"}
        | {"bytes_per_block", "num_blocks", "kv_tokens", "fits", "reason", "max_sequences"},
    ),
    "regimes": (["regimes", "-m", "llama-3.1-8b", "-a", "h100-sxm"], {"model", "accelerator", "contexts"}),
    "levers": (["levers", "-m", "llama-3.1-8b", "-a", "h100-sxm"], {"base", "families", "options", "refused"}),
    "sweep": (SWEEP, {"num_configurations", "price_kind", "notes", "columns"}),
    "sweep for the best": (
        [*SWEEP, "--top-k", "1"],
        {"num_configurations", "price_kind", "notes", "rows", "num_unranked", "unranked"},
    ),
}
OPTION = {"accelerator", "num_devices", "tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size"}
OPTION |= {"expert_parallel_size", "weight_dtype", "kv_cache_dtype", "batch_size", "sequences", "max_sequences"}
OPTION |= {f"{name}{end}_s" for name in ("ttft", "tpot") for end in ("", "_low", "_high")} | {
    "itl_max_s",
    "mixed_steps",
}
OPTION |= {"tokens_per_s", "tokens_per_s_per_gpu", "tokens_per_s_per_user", "usd_per_mtok", "price_kind", "bound"}
OPTION |= {"limit", "weight_bytes", "kv_cache_bytes", "decode_step", "mixed_step", "calibration", "no_better_than"}
OPTION |= {"why_not_first"}


@pytest.mark.parametrize(("words", "fields"), FIELDS.values(), ids=FIELDS)
def test_the_fields_of_json_are_those_that_programs_know(run, words, fields):
    """Programs read these names: one that goes or changes breaks them, a new one belongs here too."""
    found = parsed(run, *words)
    assert set(found) == fields
    if "offers" in fields:
        assert set(found["options"][0]) == OPTION
        assert set(found["offers"][0]) == {
            "accelerator", "calibration", "kernel_library", "basis", "note", "usd_per_hour", "price_kind"
        }  # fmt: skip


@pytest.mark.parametrize(("one", "example"), COMMANDS, ids=lambda one: getattr(one, "__name__", "example"))
def test_the_example_of_a_help_runs(run, one, example):
    """Those that measure, or need a measurement, name options that exist."""
    told = answer(run, one.__name__, "--help", columns=200)
    assert f"Example: roofsim {one.__name__} {example}" in told
    if one.__name__ in ("validate", "calibrate", "report"):
        options = [word for word in example.split() if word.startswith("-")]
        assert options
        assert set(options) <= set(told.replace("Example:", "\0").split("\0")[0].replace("│", " ").split())
    else:
        assert answer(run, one.__name__, *example.split())


@pytest.mark.parametrize("words", ANSWERS, ids=" ".join)
def test_eighty_columns_hold_every_line(run, words):
    for line in answer(run, *words).splitlines():
        assert cell_len(line) <= 80, line


@pytest.mark.parametrize("words", ANSWERS, ids=" ".join)
def test_json_parses_and_no_word_of_a_person_is_in_it(run, words):
    json.loads(answer(run, *words, "--json"), parse_constant=pytest.fail)


def test_dropped_columns_are_named(run):
    assert "Too narrow for:" in answer(run, *PLAN)
    assert "Too narrow for:" not in answer(run, *PLAN, columns=250)
    answer(run, *PLAN, columns=30)


def test_step_equals_the_library(run):
    cost = rs.Deployment("llama-3.1-70b", "h100-sxm", tensor_parallel_size=4).step([(1, 4096)] * 8 + [(512, 700)])
    words = [
        "step",
        "-m",
        "llama-3.1-70b",
        "-a",
        "h100-sxm",
        "--tp",
        "4",
        "--request",
        "1:4096x8",
        "--request",
        "512:700",
    ]
    found = parsed(run, *words)
    assert (found["time_s"], found["bound"], found["flops"]) == (cost.time_s, cost.bound, cost.flops)
    assert [op["time_s"] for op in found["ops"]] == [op.time_s for op in cost.ops]


def test_short_operations_are_folded_and_named(run):
    words = ["step", "-m", "llama-3.1-8b", "-a", "h100-sxm"]
    short, every = answer(run, *words, columns=200), answer(run, *words, "--every-operation", columns=200)
    table, _, folded = short.partition("Under 0.1% each: ")
    assert "clock_slowdown" in folded
    assert "clock_slowdown" not in table
    assert "Under 0.1%" not in every
    assert "clock_slowdown" in every
    names = [line.split()[0] for line in every.splitlines() if line.strip()]
    order = ["embedding", "qkv_proj", "attention", "o_proj", "gate_up_proj", "down_proj", "lm_head"]
    assert [name for name in names if name in order] == order
    assert len(parsed(run, *words)["ops"]) == len(parsed(run, *words, "--every-operation")["ops"])


def test_what_a_calibration_rests_on_is_called_what_it_is(run):
    told = plain(answer(run, "step", "-m", "llama-3.1-8b", "-a", "b200-sxm", columns=250))
    assert "b200-sxm: calibration fitted to published tables (tensorrt-llm" in told
    told = plain(answer(run, "step", "-m", "llama-3.1-8b", "-a", "h100-sxm", columns=250))
    assert "h100-sxm: measured calibration (torch" in told


def test_what_sets_devices_apart_is_printed(run):
    words = ["-a", "h100-sxm,b200-sxm", "-m", "llama-3.1-8b"]
    asked = ["plan", *words, "--input-tokens", "500", "--output-tokens", "100"]
    assert "Kernel libraries differ: tensorrt-llm (b200-sxm), torch (h100-sxm)." in plain(answer(run, *asked))
    assert "Kernel libraries differ" not in answer(run, *asked, "--calibration", "tensorrt-llm")
    swept = ["sweep", *words, "--top-k", "1", "--by", "usd_per_mtok"]
    told = plain(answer(run, *swept))
    assert "Kernel libraries differ" in told
    assert "Prices that you did not give are reserved." in told
    found = parsed(run, *swept, "--price-kind", "on-demand", "--calibration", "tensorrt-llm")
    assert (found["price_kind"], found["notes"]) == ("on-demand", [])


def test_a_command_that_needs_no_array_starts_without_numpy():
    words = [sys.executable, "-X", "importtime", "-m", "roofsim", "accelerators"]
    told = subprocess.run(words, capture_output=True, text=True, timeout=120, check=True)
    assert "rich" in told.stderr
    assert "numpy" not in told.stderr


def test_query_tokens_are_a_chunk_of_prefill(run):
    words = ["step", "-m", "llama-3.1-8b", "-a", "h100-sxm", "--batch-size", "2", "--context-tokens", "900"]
    expected = rs.Deployment("llama-3.1-8b", "h100-sxm").step([(100, 900)] * 2)
    assert parsed(run, *words, "--query-tokens", "100")["time_s"] == expected.time_s


def test_roofline_equals_the_library(run):
    device = rs.Accelerator.load("h100-sxm").with_calibration("ideal")
    found = parsed(run, "roofline", "-a", "h100-sxm", "--gemm", "16x4096x4096", "--calibration", "ideal")
    assert found["ridge_flops_per_byte"]["bf16"] == device.balance("bf16")
    assert found["ops"][0]["time_s"] == device.gemm(m=16, n=4096, k=4096).time_s


def test_capacity_equals_the_library(run):
    room = rs.Deployment("llama-3.1-70b", "h100-sxm", tensor_parallel_size=4).capacity("runtime")
    found = parsed(run, "capacity", "-m", "llama-3.1-70b", "-a", "h100-sxm", "--tp", "4", "--context-tokens", "4096")
    assert found["num_blocks"] == room.num_blocks
    assert found["max_sequences"] == [{"context_tokens": 4096, "max_sequences": room.max_sequences(4096)}]
    assert "Does not fit" in answer(run, "capacity", "-m", "llama-3.1-70b", "-a", "h100-sxm")


def test_catalogues(run):
    names = {model["name"] for model in parsed(run, "models")}
    assert {"llama-3.1-70b", "deepseek-r1", "gpt-oss-120b"} <= names
    spec = parsed(run, "accelerators", "NVIDIA H100 80GB HBM3")
    assert spec == json.loads(rs.Accelerator.load("h100-sxm").to_json())
    assert "2026" in answer(run, "accelerators", "mi300x")


def test_example_spec_of_the_rust_planner_is_the_catalogues():
    path = Path(__file__).parents[2] / "rust/roofsim-core/examples/h100-sxm.json"
    assert rs.Accelerator.load(path) == rs.Accelerator.load("h100-sxm")


def test_sweep_reductions_equal_the_library(run):
    space = rs.SweepSpace(**SPACE)
    best = space.top_k(3, by="time_s", where=["fits"])
    assert parsed(run, *SWEEP, "--top-k", "3", "--by", "time_s", "--where", "fits")["rows"] == best.to_dicts()
    objectives = ["tokens_per_s_per_gpu", "tokens_per_s_per_user"]
    assert parsed(run, *SWEEP, "--pareto", ",".join(objectives))["rows"] == space.pareto(objectives).to_dicts()


def test_sweep_files_hold_the_columns(run, tmp_path):
    columns = ["time_s", "bound", "max_sequences", "status"]
    expected = rs.SweepSpace(**SPACE).run(columns)
    for name in ("rows.csv", "rows.npz"):
        answer(run, *SWEEP, "--columns", ",".join(columns), "--output", str(tmp_path / name))
    with (tmp_path / "rows.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["status"] for row in rows] == expected["status"].tolist()
    times = [float(row["time_s"]) if row["time_s"] else None for row in rows]
    assert times == expected["time_s"].tolist()
    assert [row["tensor_parallel_size"] for row in rows] == ["1", "1", "3", "3"] * 2
    with np.load(tmp_path / "rows.npz") as arrays:
        assert np.array_equal(arrays["time_s.null"], np.ma.getmaskarray(expected["time_s"]))
        assert np.array_equal(arrays["time_s"], expected["time_s"].data, equal_nan=True)
        assert arrays["status"].tolist() == expected["status"].tolist()


@pytest.mark.parametrize("name", ["rows.csv", "rows.npz"])
def test_a_stopped_write_leaves_what_stood_there(tmp_path, name):
    held = tmp_path / name
    table_file.write(str(held), {"time_s": [1.0]})
    before = held.read_bytes()

    class Unwritable:
        def __reduce__(self):
            raise KeyboardInterrupt

        def __str__(self):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        table_file.write(str(held), {"time_s": np.array([Unwritable()], dtype=object)})
    assert held.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == [name]


def test_sweep_groups_counts_and_histograms_equal_the_library(run):
    space = rs.SweepSpace(**SPACE)
    groups = space.best_per_group(["accelerator", "bound"], by="time_s", k=2, where="batch_size < 9")
    words = ["--group-by", "accelerator,bound", "--by", "time_s", "--top-k", "2", "--where", "batch_size < 9"]
    assert parsed(run, *SWEEP, *words)["rows"] == groups.to_dicts()
    assert parsed(run, *SWEEP, "--count-by", "status,bound")["rows"] == space.counts(["status", "bound"]).to_dicts()
    bars = space.histogram("time_s", 4, where="fits", log=True)
    found = parsed(run, *SWEEP, "--histogram", "time_s", "--bins", "4", "--log", "--where", "fits")["rows"]
    assert [row["count"] for row in found] == bars.counts.tolist()
    assert [row["from"] for row in found] == bars.edges[:-1].tolist()


def test_sweep_keeps_the_rows_that_pass(run):
    found = parsed(run, *SWEEP, "--columns", "time_s,fits", "--where", "fits")["columns"]
    expected = rs.SweepSpace(**SPACE).run(["time_s", "fits"], where="fits")
    assert found["time_s"] == expected["time_s"].tolist()
    assert found["fits"] == [True] * expected.num_rows


def test_sweep_writes_parquet_and_goes_on_with_it(run, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    words = [*SWEEP, "--columns", "time_s,bound", "--where", "fits", "--output", str(tmp_path / "rows.parquet")]
    answer(run, *words)
    expected = rs.SweepSpace(**SPACE).run(["time_s"], where="fits")
    assert parquet.read_table(tmp_path / "rows.parquet")["time_s"].to_pylist() == expected["time_s"].tolist()
    answer(run, *words)
    assert len(list((tmp_path / "rows.parquet").glob("*.parquet"))) == 1


def test_sweep_ranges_include_their_stop(run):
    words = ["sweep", "-m", "llama-3.1-8b", "-a", "h100-sxm", "--context-tokens", "256:131072:256", "--top-k", "1"]
    assert parsed(run, *words)["num_configurations"] == 512


def test_sweep_lists_its_columns(run):
    better = {row["name"]: row["better"] for row in parsed(run, "sweep", "--columns", "?")}
    assert (better["time_s"], better["fits"], better["bound"]) == ("lower", "higher", "none")


def test_a_narrow_front_keeps_its_objectives(run):
    words = [*SWEEP, "--pareto", "tokens_per_s_per_gpu,tokens_per_s_per_user,energy_j"]
    text = answer(run, *words, columns=50)
    assert "Too narrow for: tensor_parallel_size, batch_size" in text
    for heading in ("_per_gpu", "_per_user", "energy_j"):
        assert heading in text


def test_a_misspelt_column_is_answered_by_its_neighbours(run):
    told = run("sweep", *ON_8B, "--top-k", "1", "--by", "tokens_per_s_gpu").stderr
    assert told.startswith("by = tokens_per_s_gpu: must be a column; near it are ")
    assert "tokens_per_s_per_gpu" in told


def test_misses_of_memory_stand_behind_misses_of_time():
    plan = rs.plan("llama-3.1-70b", ["h100-sxm", "l4"], input_tokens=4000, output_tokens=500, ttft_s=0.001)
    kinds = ["memory" if miss["limit"] == "capacity" else "time" for miss in plan.misses]
    assert plan.best is None
    assert kinds == sorted(kinds, reverse=True)
    assert set(kinds) == {"time", "memory"}
    for kind in ("time", "memory"):
        factors = [miss["factor"] for miss, one in zip(plan.misses, kinds, strict=True) if one == kind]
        assert factors == sorted(factors)


ON_8B = ["-m", "llama-3.1-8b", "-a", "h100-sxm"]
REFUSED = [
    (["step", "-m", "nope", "-a", "h100-sxm"], "model = 'nope': "),
    (["step", "-m", "llama-3.1-8b", "-a", "h999"], "accelerator = 'h999': "),
    (["step", *ON_8B, "--batch-size", "0"], "batch_size = 0: "),
    (["step", *ON_8B, "--batch-size", "-3"], "batch_size = -3: "),
    (["step", *ON_8B, "--query-tokens", "9999"], "query_tokens = 9999: "),
    (["step", *ON_8B, "--tp", "7"], "tensor_parallel_size = 7: "),
    (["step", *ON_8B, "--tp", "9" * 30], "tensor_parallel_size = 9999"),
    (["step", *ON_8B, "--request", "1-2"], "request = 1-2: "),
    (["step", *ON_8B, "--request", "1:2x0"], "request = 1:2x0: "),
    (["step", *ON_8B, "--weight-dtype", "fp7"], "weight_dtype = fp7: "),
    (["step", *ON_8B, "--calibration", "guessed"], "calibration = 'guessed': "),
    (["roofline", "-a", "h100-sxm"], "model = missing: "),
    (["roofline", "-a", "h100-sxm", "--gemm", "1x2"], "gemm = 1x2: "),
    (["capacity", *ON_8B, "--gpu-memory-utilization", "1.5"], "gpu_memory_utilization = 1.5: "),
    (["capacity", *ON_8B, "--mode", "exact"], "mode = exact: "),
    (["sweep", *ON_8B, "--batch-size", "5:1"], "batch_size = 5:1: "),
    (["sweep", *ON_8B, "--batch-size", "1:9:0"], "batch_size = 1:9:0: "),
    (["sweep", *ON_8B, "--batch-size", "many"], "batch_size = many: "),
    (["sweep", *ON_8B, "--gpu-memory-utilization", "half"], "gpu_memory_utilization = half: "),
    (["sweep", *ON_8B, "--where", "speed > 1"], "where = "),
    (["sweep", *ON_8B, "--group-by", "bound", "--pareto", "time_s,mfu"], "group_by = bound: "),
    (["sweep", *ON_8B, "--count-by", "time_s"], "by = time_s: "),
    (["sweep", *ON_8B, "--histogram", "bound"], "column = bound: "),
    (["sweep", *ON_8B, "--bins", "4"], "bins = 4: "),
    (["sweep", *ON_8B, "--log"], "log = true: "),
    (["sweep", "-m", "llama-3.1-8b"], "accelerators = none: "),
    (["sweep", *ON_8B, "--top-k", "1", "--output", "x.parquet"], "output = x.parquet: "),
    (["sweep", *ON_8B, "--top-k", "1", "--where", "speed > 1"], "where = "),
    (["sweep", *ON_8B, "--top-k", "1", "--pareto", "time_s"], "pareto = time_s: "),
    (["sweep", *ON_8B, "--output", "rows.txt"], "output = rows.txt: "),
    (["sweep", *ON_8B, "--output", "/no/such/place/rows.csv"], "output = /no/such/place/rows.csv: "),
    (["plan", *ON_8B, "--input-tokens", "10", "--output-tokens", "0"], "output_tokens = 0: "),
    (["plan", *ON_8B, "--input-tokens", "10", "--output-tokens", "9", "--tpot", "-1"], "tpot_s = -1: "),
    (["plan", *ON_8B, "--input-tokens", "10", "--output-tokens", "9", "--price", "h100-sxm"], "price = h100-sxm: "),
    (["plan", *ON_8B, "--input-tokens", "10", "--output-tokens", "9", "--price", "l4=1"], "prices = l4: "),
    (["plan", *ON_8B, "--input-tokens", "10", "--output-tokens", "9", "--objective", "joy"], "objective = joy: "),
    (["plan", "-m", "llama-3.1-8b", "-a", ",", "--input-tokens", "10", "--output-tokens", "9"], "accelerators = []: "),
]


@pytest.mark.parametrize(("words", "start"), REFUSED, ids=lambda value: value if isinstance(value, str) else "")
def test_refusals_are_one_line_with_field_value_and_rule(run, words, start):
    result = run(*words, columns=40)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith(start)
    assert result.stderr.count("\n") == 1
    assert len(result.stderr) > len(start) + 8


@pytest.mark.parametrize("words", [["frob"], ["plan"], ["step", *ON_8B, "--batch-size", "many"]])
def test_usage_errors_exit_with_two(run, words):
    result = run(*words)
    assert result.exit_code == 2
    assert "Traceback" not in result.output


def test_help_names_every_command(run):
    text = answer(run, "--help")
    names = [
        "plan",
        "step",
        "roofline",
        "capacity",
        "regimes",
        "levers",
        "sweep",
        "validate",
        "calibrate",
        "report",
        "models",
        "accelerators",
    ]
    for name in names:
        assert name in text
        assert "Usage" in answer(run, name, "--help")
    assert rs.__version__ in answer(run, "--version")


def test_plan_as_a_process():
    found = command(*PLAN, env={**os.environ, "NO_COLOR": "1"})
    assert (found.returncode, found.stderr) == (0, "")
    assert "Serve llama-3.1-70b on" in found.stdout
    assert "\x1b" not in found.stdout


def test_refusal_as_a_process_has_no_traceback():
    found = command("step", "-m", "nope", "-a", "h100-sxm")
    assert (found.returncode, found.stdout) == (2, "")
    assert found.stderr.startswith("model = 'nope': ")
    assert len(found.stderr.splitlines()) == 1


def test_a_closed_pipe_is_quiet():
    with subprocess.Popen(
        [sys.executable, "-m", "roofsim", "models", "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == ""
        process.wait(timeout=120)


def test_ctrl_c_leaves_with_130():
    words = [
        "sweep",
        "-m",
        "llama-3.1-8b",
        "-a",
        "h100-sxm",
        "--batch-size",
        "1:65536",
        "--context-tokens",
        "1:1048576",
    ]
    # Groups by bound are scanned: a search would be done before the signal.
    words += ["--group-by", "bound", "--by", "time_s", "--num-threads", "1"]
    with subprocess.Popen(
        [sys.executable, "-m", "roofsim", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        time.sleep(2)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=120)
    assert (process.returncode, out) == (130, "")
    assert "Traceback" not in err


def test_import_is_lean():
    unwanted = ["rich", "typer", "torch", "matplotlib", "pyarrow", "pandas", "polars", "hypothesis", "tomllib"]
    code = f"import sys, roofsim; print([name for name in {unwanted} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert found.stdout.strip() == "[]"


@pytest.mark.parametrize("objective", ["tokens_per_s_per_user", "ttft_s"])
def test_plan_says_in_words_what_stops_a_lone_sequence(run, objective):
    words = ["plan", *ON_8B, "--input-tokens", "1000", "--output-tokens", "200", "--objective", objective]
    assert "stops growing at 1, where latency is least" in plain(run(*words).stdout)


def test_measurements_are_not_overwritten(run, tmp_path):
    file = tmp_path / "m.jsonl.gz"
    file.write_bytes(b"earlier work")
    answer = run("validate", "--output", str(file), "--backend", "cpu", "--quick")
    assert answer.exit_code == 2
    assert "--resume" in answer.stderr
    assert file.read_bytes() == b"earlier work"


def test_a_long_front_is_shown_evenly_and_written_whole(run):
    words = ["sweep", "-m", "llama-3.1-8b", "-a", "h100-sxm", "--batch-size", "1:9:1"]
    words += ["--pareto", "tokens_per_s_per_user,batch_size"]
    whole = parsed(run, *words)["rows"]
    assert len(whole) == 9
    text = answer(run, *words, "--rows", "3")
    assert "9 of 9 configurations are the front; 3 spread evenly" in " ".join(text.split())
    assert "6 left out: --rows 9, --json or" in " ".join(text.split())
    best_first = sorted(whole, key=lambda row: -row["tokens_per_s_per_user"])
    at = [text.index(significant(row["tokens_per_s_per_user"], 4)) for row in best_first[::4]]
    assert at == sorted(at)
