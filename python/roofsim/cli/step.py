"""`roofsim step` and `roofsim roofline`."""

from typing import Annotated, Any

import typer
from rich.console import Console
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
    print_pairs,
    print_table,
    scaled,
    significant,
    stdout,
)
from roofsim.cli.provenance import print_calibrations
from roofsim.errors import SpecError

COST = (
    "time_s",
    "time_low_s",
    "time_high_s",
    "ideal_s",
    "compute_s",
    "memory_s",
    "network_s",
    "overhead_s",
    "bound",
    "flops",
    "bytes",
    "arithmetic_intensity",
    "mfu",
    "mbu",
)

LEAST_SHARE = 0.001
"""Share of a step below which an operation is folded away."""

BatchOption = Annotated[int, typer.Option(help="Sequences per data-parallel replica.")]
ContextOption = Annotated[int, typer.Option(help="Context of each sequence, its new tokens included.")]
QueryOption = Annotated[int, typer.Option(help="New tokens of each sequence: 1 is a decode step.")]
RequestOption = Annotated[
    list[str] | None,
    typer.Option("--request", help="QUERY:CONTEXT of one request, or QUERY:CONTEXTxN; repeat for a mixed batch."),
]


def step(
    model: shared.ModelOption,
    accelerator: shared.AcceleratorOption,
    batch_size: BatchOption = 1,
    context_tokens: ContextOption = 4096,
    query_tokens: QueryOption = 1,
    request: RequestOption = None,
    tensor_parallel_size: shared.TensorOption = 1,
    pipeline_parallel_size: shared.PipelineOption = 1,
    data_parallel_size: shared.DataOption = 1,
    expert_parallel_size: shared.ExpertOption = 1,
    weight_dtype: shared.WeightOption = "auto",
    kv_cache_dtype: shared.KvOption = "auto",
    calibration: shared.CalibrationOption = "calibrated",
    engine: shared.EngineOption = "ideal",
    every_operation: Annotated[
        bool,
        typer.Option(
            "--every-operation",
            help="Show every operation, however short.",
            rich_help_panel=shared.OUTPUT,
        ),
    ] = False,
    as_json: shared.JsonOption = False,
) -> None:
    """Cost one forward step, operation by operation, in the order of a forward pass."""
    deployment = roofsim.Deployment(
        model,
        accelerator,
        weight_dtype=weight_dtype,
        kv_cache_dtype=kv_cache_dtype,
        calibration=calibration,
        engine=engine,
        **shared.layout_arguments(
            tensor_parallel_size, pipeline_parallel_size, data_parallel_size, expert_parallel_size
        ),
    )
    cost = _cost(deployment, batch_size, context_tokens, query_tokens, request)
    if as_json:
        print_json(_step_fields(deployment, cost))
        return
    console = stdout()
    _summary(console, deployment, cost)
    columns = [
        Column("operation"),
        number("count"),
        number("time"),
        number("all"),
        number("of step"),
        Column("bound"),
        number("FLOPs", 3),
        number("bytes", 3),
        number("FLOP/B", 2),
        number("MFU", 4),
        number("MBU", 4),
    ]
    ops = cost.forward_pass
    shown = [op for op in ops if every_operation or op.count * op.time_s >= LEAST_SHARE * cost.time_s]
    rows = [
        [
            op.name,
            str(op.count),
            duration(op.time_s),
            duration(op.count * op.time_s),
            percent(op.count * op.time_s / cost.time_s),
            op.bound,
            scaled(op.flops),
            scaled(op.bytes),
            significant(op.arithmetic_intensity),
            percent(op.mfu),
            percent(op.mbu),
        ]
        for op in shown
    ]
    dropped = print_table(console, columns, rows)
    folded = [op for op in ops if op not in shown]
    if folded:
        together = sum(op.count * op.time_s for op in folded)
        names = ", ".join(dict.fromkeys(op.name for op in folded))
        console.print(
            Text(
                f"Under {percent(LEAST_SHARE)} each: {names}, {duration(together)} together (--every-operation).",
                style="dim",
            )
        )
    if any(op.name == "clock_slowdown" for op in shown):
        console.print(Text("clock_slowdown: what the arithmetic takes longer as the clock falls.", style="dim"))
    note_dropped(console, dropped)
    console.print()
    print_calibrations(console, [(deployment.accelerator.name, deployment.calibration)])


def roofline(
    accelerator: shared.AcceleratorOption,
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="Place the operations of this model's step.")
    ] = None,
    gemm: Annotated[
        list[str] | None, typer.Option(help="Place a matrix product: MxNxK; repeat for more, instead of a model.")
    ] = None,
    dtype: Annotated[str | None, typer.Option(help="Operand type of --gemm; bf16 if not given.")] = None,
    batch_size: BatchOption = 1,
    context_tokens: ContextOption = 4096,
    query_tokens: QueryOption = 1,
    request: RequestOption = None,
    tensor_parallel_size: shared.TensorOption = 1,
    pipeline_parallel_size: shared.PipelineOption = 1,
    data_parallel_size: shared.DataOption = 1,
    expert_parallel_size: shared.ExpertOption = 1,
    weight_dtype: shared.WeightOption = "auto",
    kv_cache_dtype: shared.KvOption = "auto",
    calibration: shared.CalibrationOption = "calibrated",
    as_json: shared.JsonOption = False,
) -> None:
    """Place operations under the roofline: intensity, ridge, bare time, predicted time, and what binds."""
    if (model is None) == (not gemm):
        raise SpecError("model", model or "missing", "give either --model or --gemm")
    if model is not None and dtype is not None:
        raise SpecError("dtype", dtype, "is of --gemm; a model's formats are --weight-dtype and --kv-cache-dtype")
    device = roofsim.Accelerator.load(accelerator).with_calibration(calibration)
    if model is None:
        ops = [_gemm(device, text, dtype or "bf16") for text in shared.words(gemm or [])]
        behind = device.calibration
    else:
        deployment = roofsim.Deployment(
            model,
            device,
            weight_dtype=weight_dtype,
            kv_cache_dtype=kv_cache_dtype,
            **shared.layout_arguments(
                tensor_parallel_size, pipeline_parallel_size, data_parallel_size, expert_parallel_size
            ),
        )
        cost = _cost(deployment, batch_size, context_tokens, query_tokens, request)
        ops, behind = [(op.name, op) for op in cost.ops], deployment.calibration
    ridges = {name: device.balance(name) for name in device.peak_flops_per_s}
    if as_json:
        rows_json = [{"name": name, "count": op.count, **_fields(op)} for name, op in ops]
        print_json(
            {"accelerator": device.name, "ridge_flops_per_byte": ridges, "calibration": behind.name, "ops": rows_json}
        )
        return
    console = stdout()
    peaks = ", ".join(f"{name} {significant(ridge)}" for name, ridge in ridges.items())
    console.print(Text(f"{device.name}: {scaled(device.memory_bandwidth_bytes_per_s, 'B/s')}", style="bold"))
    console.print(Text(f"Ridge points, FLOP/byte: {peaks}"))
    console.print()
    columns = [
        Column("operation"),
        number("count", 2),
        number("FLOP/B"),
        number("roofline"),
        number("predicted"),
        number("[low, high] us", 3),
        number("x roofline", 1),
        Column("bound"),
        number("MFU", 1),
        number("MBU", 1),
    ]
    rows = [
        [
            name,
            str(op.count),
            significant(op.arithmetic_intensity),
            duration(op.ideal_s),
            duration(op.time_s),
            f"[{significant(1e6 * op.time_low_s)}, {significant(1e6 * op.time_high_s)}]",
            significant(op.time_s / op.ideal_s) if op.ideal_s > 0 else "-",
            op.bound,
            percent(op.mfu),
            percent(op.mbu),
        ]
        for name, op in ops
    ]
    note_dropped(console, print_table(console, columns, rows))
    console.print()
    print_calibrations(console, [(device.name, behind)])


def _gemm(device: roofsim.Accelerator, text: str, dtype: str) -> tuple[str, roofsim.OpCost]:
    sizes = text.lower().split("x")
    if len(sizes) != 3 or not all(size.isascii() and size.isdigit() and len(size) < 19 for size in sizes):
        raise SpecError("gemm", text, "must be three whole numbers MxNxK, like 4096x8192x8192")
    m, n, k = map(int, sizes)
    return f"gemm {m}x{n}x{k}", device.gemm(m=m, n=n, k=k, dtype=dtype)


def _cost(
    deployment: roofsim.Deployment, batch_size: int, context_tokens: int, query_tokens: int, requests: list[str] | None
) -> roofsim.StepCost:
    if requests:
        return deployment.step([pair for text in shared.words(requests) for pair in _request(text)])
    if query_tokens == 1:
        return deployment.decode(batch_size=batch_size, context_tokens=context_tokens)
    if not 1 <= query_tokens <= context_tokens:
        return deployment.step([(query_tokens, context_tokens)])  # refused there, by name
    cached = context_tokens - query_tokens
    return deployment.prefill(prompt_tokens=context_tokens, batch_size=batch_size, cached_tokens=cached)


def _request(text: str) -> list[tuple[int, int]]:
    pair, _, times = text.lower().partition("x")
    numbers = [*pair.split(":"), times or "1"]
    if len(numbers) != 3 or not all(part.isascii() and part.isdigit() and len(part) < 19 for part in numbers):
        raise SpecError("request", text, "must be QUERY:CONTEXT or QUERY:CONTEXTxN, like 1:4096x32")
    query, context, count = map(int, numbers)
    if not 1 <= count <= 1_000_000:
        raise SpecError("request", text, "must stand for between 1 and 1000000 requests")
    return [(query, context)] * count


def _fields(cost: roofsim.OpCost | roofsim.StepCost) -> dict[str, Any]:
    return {name: getattr(cost, name) for name in COST}


def _step_fields(deployment: roofsim.Deployment, cost: roofsim.StepCost) -> dict[str, Any]:
    return {
        "model": deployment.model.name,
        "accelerator": deployment.accelerator.name,
        "num_devices": deployment.num_devices,
        "calibration": cost.calibration,
        **_fields(cost),
        "ops": [{"name": op.name, "count": op.count, **_fields(op)} for op in cost.ops],
    }


def _summary(console: Console, deployment: roofsim.Deployment, cost: roofsim.StepCost) -> None:
    console.print(Text(repr(deployment), style="bold"))
    room = deployment.capacity("runtime")
    if not room.fits:
        why = f"Does not fit (as vLLM allocates): {room.reason}. The time is that of a device that holds it."
        console.print(Text(why, style="red"))
    console.print()
    parts = [(name, getattr(cost, f"{name}_s")) for name in ("compute", "memory", "network", "overhead")]
    low, high = duration(cost.time_low_s), duration(cost.time_high_s)
    pairs = [
        ("time", f"{duration(cost.time_s)}, between {low} and {high}; bare roofline {duration(cost.ideal_s)}"),
        ("bound", f"{cost.bound} ({', '.join(f'{name} {duration(part)}' for name, part in parts)})"),
        (
            "work",
            f"{scaled(cost.flops, 'FLOP')}, {scaled(cost.bytes, 'B')} per rank, "
            f"{significant(cost.arithmetic_intensity)} FLOP/B",
        ),
        ("utilisation", f"MFU {percent(cost.mfu)}, MBU {percent(cost.mbu)}"),
    ]
    print_pairs(console, pairs)
    console.print()
