"""`roofsim capacity`."""

from typing import Annotated

import typer
from rich.text import Text

import roofsim
from roofsim.cli import options as shared
from roofsim.cli.display import Column, gigabytes, number, print_json, print_table, stdout

FIELDS = (
    "mode",
    "usable_bytes",
    "weight_bytes",
    "activation_bytes",
    "overhead_bytes",
    "kv_cache_bytes",
    "bytes_per_block",
    "num_blocks",
    "kv_tokens",
    "fits",
    "reason",
)


def capacity(
    model: shared.ModelOption,
    accelerator: shared.AcceleratorOption,
    tensor_parallel_size: shared.TensorOption = 1,
    pipeline_parallel_size: shared.PipelineOption = 1,
    data_parallel_size: shared.DataOption = 1,
    expert_parallel_size: shared.ExpertOption = 1,
    weight_dtype: shared.WeightOption = "auto",
    kv_cache_dtype: shared.KvOption = "auto",
    context_tokens: Annotated[
        list[str] | None, typer.Option(help="Contexts to count sequences at: 4096,8192 or start:stop:step.")
    ] = None,
    mode: Annotated[
        str,
        typer.Option(
            "--capacity-mode",
            "--mode",
            help="ideal (closed form) or runtime (what vLLM allocates).",
            rich_help_panel=shared.MEMORY,
        ),
    ] = "runtime",
    gpu_memory_utilization: shared.UtilizationOption = 0.9,
    block_size: shared.BlockOption = 16,
    max_num_batched_tokens: shared.BudgetOption = 8192,
    max_num_seqs: shared.SequencesOption = 1024,
    as_json: shared.JsonOption = False,
) -> None:
    """Show how many sequences fit beside the weights, on the fullest rank, and why no more."""
    deployment = roofsim.Deployment(
        model,
        accelerator,
        weight_dtype=weight_dtype,
        kv_cache_dtype=kv_cache_dtype,
        **shared.layout_arguments(
            tensor_parallel_size, pipeline_parallel_size, data_parallel_size, expert_parallel_size
        ),
    )
    room = deployment.capacity(
        mode=mode,
        gpu_memory_utilization=gpu_memory_utilization,
        block_size=block_size,
        max_num_batched_tokens=max_num_batched_tokens,
        max_num_seqs=max_num_seqs,
    )
    contexts = shared.counts("context_tokens", context_tokens or ["1024,4096,16384,65536,131072"])
    sequences = [(tokens, room.max_sequences(tokens)) for tokens in contexts]
    if as_json:
        fields = {name: getattr(room, name) for name in FIELDS}
        print_json({**fields, "max_sequences": [{"context_tokens": t, "max_sequences": n} for t, n in sequences]})
        return
    console = stdout()
    console.print(Text(repr(deployment), style="bold"))
    console.print()
    parts = [
        ("weights", room.weight_bytes),
        ("activation peak", room.activation_bytes),
        ("engine", room.overhead_bytes),
        ("KV cache", room.kv_cache_bytes),
        ("usable", room.usable_bytes),
    ]
    print_table(
        console,
        [Column(f"per rank, {room.mode}"), number("size"), number("bytes")],
        [[name, gigabytes(size), f"{size:,}"] for name, size in parts],
    )
    console.print()
    if not room.fits:
        console.print(Text(f"Does not fit: {room.reason}.", style="bold red"))
        return
    blocks = f" in {room.num_blocks:,} blocks of {room.bytes_per_block:,} bytes" if room.num_blocks else ""
    console.print(Text(f"The pool holds {room.kv_tokens:,} tokens{blocks}."))
    console.print()
    print_table(
        console,
        [number("context tokens"), number("sequences per replica")],
        [[f"{tokens:,}", f"{most:,}"] for tokens, most in sequences],
    )
