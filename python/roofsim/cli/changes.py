"""`roofsim regimes` and `roofsim levers`: what binds as the batch grows, and what each change would do."""

from typing import Annotated, Any

import typer
from rich.text import Text

import roofsim
from roofsim.advice.levers import FAMILIES
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

ModeOption = Annotated[
    str,
    typer.Option(
        "--capacity-mode", help="ideal (closed form) or runtime (what vLLM allocates).", rich_help_panel=shared.MEMORY
    ),
]


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
    capacity_mode: ModeOption = "runtime",
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
    console.print(Text(f"{found.model} on {found.accelerator}", style="bold"))
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


def levers(
    model: shared.ModelOption,
    accelerator: shared.AcceleratorOption,
    batch_size: Annotated[int, typer.Option(help="Sequences per replica.")] = 8,
    context_tokens: Annotated[int, typer.Option(help="Tokens of each sequence, new ones included.")] = 4096,
    tensor_parallel_size: shared.TensorOption = 1,
    pipeline_parallel_size: shared.PipelineOption = 1,
    data_parallel_size: shared.DataOption = 1,
    expert_parallel_size: shared.ExpertOption = 1,
    weight_dtype: shared.WeightOption = "auto",
    kv_cache_dtype: shared.KvOption = "auto",
    calibration: shared.CalibrationOption = "calibrated",
    max_devices: Annotated[int, typer.Option(help="Most devices of the levers that add some.")] = 8,
    capacity_mode: ModeOption = "runtime",
    gpu_memory_utilization: shared.UtilizationOption = 0.9,
    as_json: shared.JsonOption = False,
) -> None:
    """Show what each change would do to a decode step: more work for the same bytes, fewer bytes, more devices."""
    layout = shared.layout_arguments(
        tensor_parallel_size, pipeline_parallel_size, data_parallel_size, expert_parallel_size
    )
    found = roofsim.levers(
        model,
        accelerator,
        batch_size=batch_size,
        context_tokens=context_tokens,
        max_devices=max_devices,
        capacity_mode=capacity_mode,
        weight_dtype=weight_dtype,
        kv_cache_dtype=kv_cache_dtype,
        calibration=calibration,
        gpu_memory_utilization=gpu_memory_utilization,
        **layout,
    )
    if as_json:
        print_json(found.to_dict())
        return
    console = stdout()
    base = found.base
    title = (
        f"{batch_size:,} sequences of {context_tokens:,} tokens: {duration(base['time_s'])}, bound by {base['bound']}"
    )
    console.print(Text(title, style="bold"))
    if not base["fits"]:
        console.print(Text(f"Does not fit: the memory holds {base['max_sequences']:,} sequences.", style="red"))
    columns = [
        Column("lever"),
        number("step"),
        number("x time"),
        number("x bytes", 1),
        number("x tokens/s\nper GPU"),
        Column("bound", 2),
        Column("fits", 1),
    ]
    for family, meaning in FAMILIES.items():
        options = [one for one in found.options if one["family"] == family]
        if not options:
            continue
        console.print()
        console.print(Text(f"{family}: {meaning}"))
        note_dropped(console, print_table(console, columns, [_lever(one) for one in options]))
    if any("break_even_tokens" in one for one in found.options):
        console.print()
        console.print(Text("Drafts pay from so many tokens a step on average: their x time.", style="dim"))
    for one in found.refused:
        console.print(Text(f"Not here: {one['lever']}: {one['reason']}.", style="dim"))


def _lever(one: dict[str, Any]) -> list[str]:
    most = "up to " if "break_even_tokens" in one else ""
    return [
        one["lever"],
        duration(one["time_s"]),
        significant(one["time_ratio"]),
        significant(one["bytes_ratio"]),
        most + significant(one["per_gpu_ratio"]),
        one["bound"],
        "yes" if one["fits"] else "no",
    ]


def _span(ends: list[dict[str, float]], name: str, write: Any) -> str:
    first, last = (write(end[name]) for end in ends)
    return str(first) if first == last else f"{first} to {last}"


def _reasons(found: roofsim.Regimes) -> dict[str, list[str]]:
    reasons: dict[str, list[str]] = {}
    for one in found.contexts:
        if not one["stretches"]:
            reasons.setdefault(one["reason"], []).append(f"{one['context_tokens']:,}")
    return reasons
