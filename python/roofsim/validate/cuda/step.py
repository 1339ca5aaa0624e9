"""Whole steps of a published architecture with random weights, replayed as one CUDA graph."""

from __future__ import annotations

import math
import statistics
import time
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from ..architectures import ARCHITECTURES, Architecture
from ..points import Point
from .bench import Bench, Candidate
from .decode import decode_candidates
from .energy import idle_power_w, steady_load
from .prefill import prefill_candidates
from .step_check import step_error
from .transformer import Step, Transformer

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["choose_attention", "choose_experts", "measure_step"]

BURST_GAP_SECONDS = 0.025
BURST_SECONDS = 0.015  # of replays in a row: short against what the clock takes to come down
BURST_WAIT_CYCLES = 3_000_000  # about 1.5 ms, in which the host enqueues the replays
LONG_STEP_S = 0.05
MAX_SETS = 4
PREFILL_BACKENDS = ("sdpa_cudnn", "sdpa_flash", "cudnn_parts")  # they take queries laid out as rows


def _best(bench: Bench, candidates: list[Candidate], sets: list[tuple[Any, ...]], num_bytes: float) -> Candidate:
    """Return the fastest candidate; the others' times are not recorded here.

    Raises
    ------
    RuntimeError
        None of them runs.
    """
    best: Candidate | None = None
    best_s = math.inf
    errors: list[str] = []
    for candidate in candidates:
        row = bench.time_candidate(candidate, sets, num_bytes, None if best is None else best_s)
        if row.get("error") is not None:
            errors.append(f"{candidate.backend}: {row['error']}")
        elif row["repeats"] > 1 and row["median_s"] < best_s:
            best, best_s = candidate, row["median_s"]
    if best is None:
        raise RuntimeError(f"no kernel runs: {'; '.join(errors)[:200]}")
    return best


def choose_attention(bench: Bench, step: Step) -> Candidate:
    """Time the attention kernels on the step's own caches and give the step the fastest."""
    a = step.model.architecture
    sizes = {"batch_size": step.batch, "query_tokens": step.query, "context_tokens": step.context}
    heads = {"num_heads": a.num_attention_heads, "num_kv_heads": a.num_key_value_heads, "head_dim": a.head_dim}
    point = Point("attention", {"dtype": "bf16", **sizes, **heads})
    kv_bytes = 4.0 * step.batch * step.context * a.num_key_value_heads * a.head_dim
    flops = 4.0 * step.rows * a.num_attention_heads * a.head_dim * (step.context - step.query / 2)
    if step.query == 1:
        found = decode_candidates(bench, point)
    else:
        found = [c for c in prefill_candidates(bench, point) if c.backend in PREFILL_BACKENDS]

    def flat(call: Any, query: Any, key: Any, value: Any) -> Any:
        return step.flat(call(query, key, value))

    candidates = [Candidate(c.backend, partial(flat, c.call), c.extra) for c in found]
    count = min(len(step.caches), MAX_SETS, bench.stopwatch.launches(bench.estimate_s(flops, kv_bytes), kv_bytes))
    view = step.query_view()
    best = _best(bench, candidates, [(view, key, value) for key, value in step.caches[:count]], kv_bytes)
    step.attention = next(c.call for c in found if (c.backend, c.extra) == (best.backend, best.extra))
    return best


def choose_experts(bench: Bench, step: Step) -> Candidate | None:
    """Time the grouped kernels on the whole feed-forward of some layers and give the step the fastest."""
    from .triton_moe import tile_configs

    experts = step.experts
    if experts is None:
        return None
    a = step.model.architecture
    routed = step.rows * a.num_experts_per_tok
    hit = min(a.num_experts, routed)

    def run(tile: Any, layer: int) -> Any:
        experts.use(tile)
        experts.counts[layer].zero_()
        return experts(layer, step.normed, step.update)

    step.normed.normal_()
    candidates = [
        Candidate("triton_grouped", partial(run, tile), {"experts_tile": list(tile)})
        for tile in tile_configs(routed / hit)
    ]
    candidates.append(Candidate("torch._grouped_mm", partial(run, None), {"experts_tile": None}))
    weight_bytes = 6.0 * hit * a.hidden_size * a.intermediate_size
    count = min(step.model.num_layers, 4)
    best = _best(bench, candidates, [(layer,) for layer in range(count)], weight_bytes)
    tiles = {str(list(tile)): tile for tile in tile_configs(routed / hit)}
    experts.use(tiles.get(str(best.extra["experts_tile"])))
    return best


def _resident(bench: Bench, architecture: Architecture, num_layers: int, dtype: str) -> Transformer:
    """Return the model, built if it is not the one in memory."""
    key = (architecture.name, num_layers, dtype)
    if key not in bench.resident:
        bench.resident.clear()
        bench.pool.clear()
        bench.release()
        bench.resident[key] = Transformer(bench.torch, architecture, num_layers, dtype)
        bench.torch.cuda.synchronize()
    model: Transformer = bench.resident[key]
    return model


def _burst(bench: Bench, graph: Any) -> tuple[list[float], list[float]]:
    """Replay in short bursts after pauses; return seconds a step and the clocks read meanwhile."""
    torch, stream = bench.torch, bench.stopwatch.stream
    clocks: list[float] = []

    def run(count: int) -> list[float]:
        pairs = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(count)]
        with torch.cuda.stream(stream):
            torch.cuda._sleep(BURST_WAIT_CYCLES)
            for start, end in pairs:
                start.record()
                graph.replay()
                end.record()
        clocks.append(bench.nvml.clock_mhz() or 0.0)
        stream.synchronize()
        overhead = bench.stopwatch.replay_overhead_s
        return [max(float(start.elapsed_time(end)) * 1e-3 - overhead, 0.0) for start, end in pairs]

    estimate = run(2)[1]
    clocks.clear()
    count = max(1, min(5, round(BURST_SECONDS / estimate)))
    samples: list[float] = []
    for _ in range(3 if estimate > LONG_STEP_S else 4):
        time.sleep(BURST_GAP_SECONDS)
        samples += run(count)
    return samples, clocks


def _check(bench: Bench, architecture: Architecture, query: int, dtype: str) -> dict[str, Any]:
    """Compare a small model of the same kind with float64, once a kind and phase.

    Rows are as wide as the model's own, so that the very kernels of the step are checked and none is compiled besides.
    """
    small = replace(architecture, intermediate_size=256, vocab_size=1024, num_hidden_layers=2)
    kind = (dtype, small.qk_norm, small.qkv_bias, small.num_experts)
    phase = "decode" if query == 1 else "prefill"
    shape = (3, 1, 70) if query == 1 else (2, 33, 33)
    tolerance = "fp8_step" if dtype == "fp8" else "step"
    return bench.checks.verdict(
        f"step:{kind}:{phase}", tolerance, lambda: step_error(bench, small, *shape, dtype=dtype), None
    )


def measure_step(bench: Bench, point: Point) -> Iterator[Mapping[str, Any]]:
    """Measure one step: in short bursts, and under steady load where the point asks for it."""
    architecture = ARCHITECTURES[point.text("model")]
    layers, dtype = point.integer("num_layers"), point.text("dtype")
    batch, query, context = (point.integer(name) for name in ("batch_size", "query_tokens", "context_tokens"))
    verdict = _check(bench, architecture, query, dtype)
    model = _resident(bench, architecture, layers, dtype)
    step = Step(bench, model, batch, query, context)
    attention = choose_attention(bench, step)
    experts = choose_experts(bench, step)
    with bench.torch.cuda.stream(bench.stopwatch.stream):
        logits = step()
    bench.torch.cuda.synchronize()
    row: dict[str, Any] = {
        "backend": "graph",
        "layers_of_model": architecture.num_hidden_layers,
        "attention_backend": attention.backend,
        **{f"attention_{name}": value for name, value in attention.extra.items()},
        "elementwise_per_layer": step.elementwise_per_layer(),
        "finite": bool(bench.torch.isfinite(logits).all()),
    }
    if experts is not None and step.experts is not None:
        row |= {"experts_backend": experts.backend, **experts.extra, "experts_hit": step.experts.hits()}
    graph = bench.stopwatch.capture([step])
    try:
        samples, clocks = _burst(bench, graph)
        row |= {**_quantiles(samples), "sm_clock_mhz": statistics.median(clocks) or None}
        if point.labels.get("sustained"):
            row |= steady_load(bench, graph, row["median_s"])
            row["idle_power_w"] = idle_power_w(bench)
    finally:
        graph.reset()
    yield {**row, **verdict}


def _quantiles(samples: list[float]) -> dict[str, Any]:
    ordered = sorted(samples)
    last = len(ordered) - 1
    spread = {"p10_s": ordered[round(0.1 * last)], "p90_s": ordered[round(0.9 * last)]}
    return {"median_s": statistics.median(ordered), **spread, "repeats": len(ordered)}
