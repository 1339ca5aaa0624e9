"""`roofsim regimes`: what binds as the batch grows."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.text import Text

import roofsim
from roofsim.cli import options as shared
from roofsim.cli.display import (
    Column,
    duration,
    note_dropped,
    number,
    percent,
    print_json,
    print_table,
    significant,
    stdout,
)


def regimes(
    model: shared.ModelOption,
    accelerator: shared.AcceleratorOption,
    context_tokens: Annotated[
        list[str] | None, typer.Option(help="Contexts to look at: 4096,8192 or start:stop:step.")
    ] = None,
    query_tokens: Annotated[int, typer.Option(help="New tokens of each sequence.")] = 1,
    tensor_parallel_size: shared.TensorOption = 1,
    pipeline_parallel_size: shared.PipelineOption = 1,
    data_parallel_size: shared.DataOption = 1,
    expert_parallel_size: shared.ExpertOption = 1,
    weight_dtype: shared.WeightOption = "auto",
    kv_cache_dtype: shared.KvOption = "auto",
    calibration: shared.CalibrationOption = "calibrated",
    capacity_mode: shared.CapacityModeOption = "runtime",
    gpu_memory_utilization: shared.UtilizationOption = 0.9,
    as_json: shared.JsonOption = False,
) -> None:
    """Show what binds a step as its batch grows to all that fits: memory, compute, then capacity."""
    found = roofsim.regimes(
        model,
        accelerator,
        context_tokens=shared.counts("context_tokens", context_tokens or ["1024,8192,32768,131072"]),
        query_tokens=query_tokens,
        capacity_mode=capacity_mode,
        weight_dtype=weight_dtype,
        kv_cache_dtype=kv_cache_dtype,
        calibration=calibration,
        gpu_memory_utilization=gpu_memory_utilization,
        **shared.layout_arguments(
            tensor_parallel_size, pipeline_parallel_size, data_parallel_size, expert_parallel_size
        ),
    )
    if as_json:
        print_json(found.to_dict())
        return
    console = stdout()
    rule = shared.MEMORY_RULES[capacity_mode.strip().lower()]
    console.print(Text(f"{found.model} on {found.accelerator}, memory {rule}", style="bold"))
    console.print()
    columns = [
        number("context\ntokens"),
        Column("bound"),
        number("batch"),
        number("step"),
        number("tokens/s\nper GPU", 1),
        number("tokens/s\nper user", 2),
        number("MFU", 3),
        number("MBU", 3),
    ]
    rows: list[list[str]] = []
    for one in found.contexts:
        context = f"{one['context_tokens']:,}"
        for stretch in one["stretches"]:
            ends = [stretch["at_first"], stretch["at_last"]]
            span = f"{stretch['first_batch']:,} to {stretch['last_batch']:,}"
            cells = [
                _span(ends, "time_s", duration),
                *(_span(ends, name, significant) for name in ("tokens_per_s_per_gpu", "tokens_per_s_per_user")),
                *(_span(ends, name, percent) for name in ("mfu", "mbu")),
            ]
            rows.append([context, stretch["bound"], span, *cells])
            context = ""
        rows.append([context, one["ends"], f"{one['max_sequences']:,}", *[""] * 5])
    note_dropped(console, print_table(console, columns, rows))
    for reason, contexts in _reasons(found).items():
        console.print(Text(f"{', '.join(contexts)} tokens: {reason}.", style="dim"))


def _span(ends: list[dict[str, float]], name: str, write: Any) -> str:
    first, last = (write(end[name]) for end in ends)
    return str(first) if first == last else f"{first} to {last}"


def _reasons(found: roofsim.Regimes) -> dict[str, list[str]]:
    reasons: dict[str, list[str]] = {}
    for one in found.contexts:
        if not one["stretches"]:
            reasons.setdefault(one["reason"], []).append(f"{one['context_tokens']:,}")
    return reasons
