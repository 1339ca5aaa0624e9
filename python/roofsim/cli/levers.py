"""`roofsim levers`: what each change would do to a decode step."""

from typing import Annotated, Any

import typer
from rich.text import Text

import roofsim
from roofsim.cli import options as shared
from roofsim.cli.display import Column, duration, note_dropped, number, print_json, print_table, significant, stdout


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
    capacity_mode: shared.CapacityModeOption = "runtime",
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
    rule = shared.MEMORY_RULES[capacity_mode.strip().lower()]
    if not base["fits"]:
        console.print(
            Text(f"Does not fit: the memory holds {base['max_sequences']:,} sequences ({rule}).", style="red")
        )
    else:
        console.print(Text(f"Memory is counted {rule} (--capacity-mode).", style="dim"))
    columns = [
        Column("lever"),
        number("step"),
        number("x time"),
        number("x bytes", 1),
        number("x tokens/s\nper GPU"),
        Column("bound", 2),
        Column("fits", 1),
    ]
    for family, meaning in found.to_dict()["families"].items():
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
