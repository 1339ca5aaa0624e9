"""Predictions beside public measurements of whole servers; run as a script it writes docs/serving.md."""

from __future__ import annotations

import csv
import functools
import json
import math
import statistics
from pathlib import Path
from typing import Any

import roofsim as rs

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
PAGE = ROOT / "docs" / "serving.md"
CONFIGS = ROOT / "tests" / "fixtures" / "models" / "configs"

# Of experts and dense feed-forwards, as NVIDIA's checkpoints of DeepSeek are: attention stays 16 bits wide.
NVFP4_FEED_FORWARD = {
    "quant_method": "modelopt",
    "quant_algo": "NVFP4",
    "ignore": ["lm_head", "*self_attn*"],
    "config_groups": {
        "group_0": {
            "weights": {"num_bits": 4, "type": "float", "group_size": 16},
            "input_activations": {"num_bits": 4, "type": "float", "group_size": 16},
            "targets": ["Linear"],
        }
    },
}
QWEN = "Qwen--Qwen3.5-397B-A17B"
MODELS: dict[tuple[str, str], tuple[str, str | None]] = {
    ("Llama-3.1-8B-Instruct", "bf16"): ("llama-3.1-8b", None),
    ("Llama-3.1-70B", "fp8"): ("llama-3.1-70b", "fp8"),
    ("Llama-3.1-70B", "fp4"): ("llama-3.1-70b", "nvfp4"),
    ("Qwen3-235B-A22B-FP8", "fp8"): ("qwen3-235b-a22b-fp8", None),
    ("Qwen3.5-397B-A17B", "bf16"): (f"{QWEN}.json", None),
    ("Qwen3.5-397B-A17B", "fp8"): (f"{QWEN}.json", "fp8"),
    ("Qwen3.5-397B-A17B", "fp4"): (f"nvidia--{QWEN.removeprefix('Qwen--')}-NVFP4.json", None),
    ("MiniMax-M2.5", "fp8"): ("minimax-m2.5", None),
    ("MiniMax-M2.5", "fp4"): ("nvidia--MiniMax-M2.7-NVFP4.json", None),  # the same shape
    ("DeepSeek-R1", "fp8"): ("deepseek-r1", None),
    ("DeepSeek-V3", "fp8"): ("deepseek-r1", None),
    ("DeepSeek-V3", "fp4"): ("nvidia--DeepSeek-V3-0324-NVFP4.json", "checkpoint"),
    ("DeepSeek-V3.1-NVFP4", "fp4"): ("nvidia--DeepSeek-V3.1-NVFP4.json", "checkpoint"),
    ("GLM-5", "fp8"): ("zai-org--GLM-5.1-FP8.json", None),  # the same shape
    ("GLM-5", "fp4"): ("nvidia--GLM-5.1-NVFP4.json", None),
    ("Kimi-K2.5", "fp4"): ("kimi-k2.5", "nvfp4"),
}
"""Catalogue name or file of a config, and the format of its matrices where the file does not say it."""

CALIBRATIONS = {"vllm": "b200-sxm-vllm", "sglang": "b200-sxm-sglang", "tensorrt-llm": "b200-sxm-vllm"}
"""Kernels on Blackwell. TensorRT-LLM's published fp8 rows have a floor of 12 us on a Hopper and a Blackwell alike, a
chain of launches that no server spends: vLLM's kernels stand in. Hopper has the default, measured by this project."""

BURST = 0.15
"""Share of requests that meet all others of their round. Ten rounds make a tenth; variation of lengths spreads the
rest but partly."""
REQUEST_MS = {
    ("inferencex", "vllm"): 50.0,
    ("inferencex", "tensorrt-llm"): 20.0,
    ("inferencex", "sglang"): 0.0,
    ("aiconfigurator", "tensorrt-llm"): 130.0,
    ("aiconfigurator", "sglang"): 0.0,
}
"""Client, HTTP and tokenizer before the first token."""
HELD_STEPS = {"sglang": 25.0}
"""Decode steps until a first token is seen: the benchmarks ran SGLang with `--stream-interval 30` and polled for
requests every 10 to 30 steps."""
FITTED = {"Llama-3.1-70B", "Llama-3.1-8B-Instruct", "Qwen3.5-397B-A17B"}
"""Models that BURST, REQUEST_MS and HELD_STEPS were chosen on. TPOT has no constant of these measurements."""


def points() -> list[dict[str, Any]]:
    """Read the measured points."""
    with (HERE / "points.csv").open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


@functools.cache
def _deployment(
    model: str,
    precision: str,
    gpu: str,
    engine: str,
    source: str,
    layout: tuple[int, int, int],
    calibration: str | None,
) -> rs.Deployment:
    name, weights = MODELS[model, precision]
    config: Any = name
    if name.endswith(".json"):
        config = json.loads((CONFIGS / name).read_text(encoding="utf-8"))
        if weights == "checkpoint":
            config["quantization_config"], weights = NVFP4_FEED_FORWARD, None
    tensor, data, expert = layout
    return rs.Deployment(
        rs.Model.load(config),
        gpu,
        tensor_parallel_size=tensor,
        data_parallel_size=data,
        expert_parallel_size=expert,
        weight_dtype=weights,
        kv_cache_dtype="fp8" if source == "inferencex" else None,
        calibration=calibration or (CALIBRATIONS[engine] if gpu.startswith("b") else None),
    )


def budget(point: dict[str, Any]) -> int:
    """Rows of a step, as the benchmarks' scripts set them."""
    prompt, output, flight = (int(point[name]) for name in ("input_tokens", "output_tokens", "concurrency"))
    if point["engine"] == "sglang":
        return 32768
    if point["engine"] == "vllm":
        return 8192 if point["model"].startswith("Llama") else 2 * prompt
    return prompt + output + 200 if point["model"] == "Llama-3.1-70B" else max(8192, prompt + flight + 64)


def compare(point: dict[str, Any], calibration: str | None = None) -> dict[str, Any]:
    """One point: predicted over measured TTFT and TPOT, less 1, or why there is none."""
    layout = tuple(int(point[f"{kind}_parallel"]) for kind in ("tensor", "data", "expert"))
    names = (point[key] for key in ("model", "precision", "gpu", "engine", "source"))
    deployment = _deployment(*names, layout, calibration)  # type: ignore[arg-type]
    mean = 0.9 if point["source"] == "inferencex" else 1.0
    prompt, output = (int(mean * int(point[f"{kind}_tokens"])) for kind in ("input", "output"))
    batch = max(1, round(int(point["concurrency"]) / layout[1]))
    room = deployment.capacity(mode="runtime").max_sequences(prompt + output)
    if room < batch:
        return {**point, "why": "more requests than the KV cache holds: they queue for memory"}
    try:
        state = deployment.steady_state(
            batch_size=batch, input_tokens=prompt, output_tokens=output, max_num_batched_tokens=budget(point)
        )
    except rs.SpecError:
        return {**point, "why": "prompts do not fit between the decodes under the token budget"}
    # A prompt that arrives alone shares its steps with the decodes, not with other prompts.
    chunk = min(prompt, budget(point) - batch)
    shared = deployment.step([(chunk, prompt), *[(1, prompt + output // 2)] * batch])
    computed = (1.0 - BURST) * shared.time_s * math.ceil(prompt / chunk) + BURST * state["burst_ttft_s"]
    held = HELD_STEPS.get(point["engine"], 0.0) * state["decode_step"]["time_s"]
    ttft = 1e3 * (computed + held) + REQUEST_MS[point["source"], point["engine"]]
    measured = {what: float(point[f"{what}_ms"]) for what in ("ttft", "tpot")}
    return {**point, "ttft": ttft / measured["ttft"] - 1, "tpot": 1e3 * state["tpot_s"] / measured["tpot"] - 1}


@functools.cache
def compared(calibration: str | None = None) -> tuple[dict[str, Any], ...]:
    """All points; `ideal` for the bare roofline."""
    return tuple(compare(point, calibration) for point in points())


def errors(rows: list[dict[str, Any]], what: str) -> tuple[float, float, float]:
    """Mean and median absolute error and mean error, percent."""
    values = [100 * row[what] for row in rows]
    sizes = [abs(value) for value in values]
    return statistics.fmean(sizes), statistics.median(sizes), statistics.fmean(values)


def _line(label: str, rows: list[dict[str, Any]]) -> str:
    cells = [f"{value:.1f}" for what in ("tpot", "ttft") for value in errors(rows, what)]
    return f"| {label} | {len(rows)} | " + " | ".join(cells) + " |"


HEAD = """| {} | points | TPOT mean | median | bias | TTFT mean | median | bias |
|---|---:|---:|---:|---:|---:|---:|---:|"""


def page() -> str:
    """docs/serving.md."""
    rows = [row for row in compared() if "why" not in row]
    parts = [(HERE / "page.md").read_text(encoding="utf-8").rstrip(), ""]
    parts += [HEAD.format("all"), _line("every point that can be represented", rows)]
    for label, own in (("constants were chosen on", True), ("constants were not chosen on", False)):
        some = [row for row in rows if (row["model"] in FITTED) is own]
        parts.append(_line(f"models that the TTFT's {label}", some))
    bare = [row for row in compared("ideal") if "why" not in row]
    below = sum(row["tpot"] > 0 for row in bare)
    parts += [
        "",
        f"The bare roofline's TPOT is {errors(bare, 'tpot')[0]:.0f}% off; {below or 'none'} of the {len(bare)} points "
        "was measured faster than it "
        f"(at the nearest, the bound is {100 + 100 * max(row['tpot'] for row in bare):.1f}% of it).",
    ]
    for title, keys in (
        ("model, device, engine, format", ("model", "gpu", "engine", "precision")),
        ("device", ("gpu",)),
        ("engine", ("engine",)),
        ("format", ("precision",)),
        ("requests in flight", ("concurrency",)),
        ("tokens in, out", ("input_tokens", "output_tokens")),
    ):
        groups: dict[tuple[str, ...], list[dict[str, Any]]] = {}
        for row in rows:
            groups.setdefault(tuple(row[key] for key in keys), []).append(row)
        order = sorted(groups, key=lambda key: [(int(part), "") if part.isdigit() else (0, part) for part in key])
        parts += ["", HEAD.format(title), *(_line(", ".join(key), groups[key]) for key in order)]
    parts += ["", "## Not represented", "", "| why | points |", "|---|---:|"]
    reasons = [row["why"] for row in compared() if "why" in row]
    parts += [f"| {why} | {reasons.count(why)} |" for why in sorted(set(reasons))]
    return "\n".join(parts) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
