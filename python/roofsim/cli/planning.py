"""`roofsim plan`."""

from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

import roofsim
from roofsim.cli import options as shared
from roofsim.cli.display import (
    Column,
    duration,
    interval,
    layout,
    note_dropped,
    number,
    print_json,
    print_table,
    significant,
    stdout,
)
from roofsim.cli.options import FORMATS, LAWS, MEMORY
from roofsim.cli.provenance import print_calibrations

LIMITS = "Limits"
WHY = "why not first"

HINTS = {
    "capacity": "allow more devices (--max-devices), try narrower weights (--weight-dtypes fp8) or KV "
    "(--kv-cache-dtypes fp8), or offer an accelerator with more memory",
    "tpot": "relax --tpot, allow more devices (--max-devices), try narrower weights (--weight-dtypes fp8), or offer an "
    "accelerator with more memory bandwidth",
    "ttft": "relax --ttft, allow more devices (--max-devices), or offer an accelerator with a higher peak",
    "token_budget": "raise --max-num-batched-tokens",
    "max_num_seqs": "raise --max-num-seqs",
}
ALIKE = 0.01
"""Share by which two misses may differ and say the same."""
LIMIT_NAMES = {
    "tpot": "TPOT",
    "ttft": "TTFT",
    "capacity": "memory",
    "token_budget": "the token budget",
    "max_num_seqs": "max_num_seqs",
    "objective": "1, where latency is least",
}


def plan(
    model: shared.ModelOption,
    accelerators: Annotated[
        list[str],
        typer.Option(
            "--accelerators", "-a", help="Names or spec files, comma-separated or repeated.", show_default=False
        ),
    ],
    input_tokens: Annotated[int, typer.Option(help="Prompt tokens of a request.", show_default=False)],
    output_tokens: Annotated[int, typer.Option(help="Generated tokens of a request.", show_default=False)],
    ttft: Annotated[
        float | None,
        typer.Option("--ttft", "--ttft-s", help="Limit on the time to first token, seconds.", rich_help_panel=LIMITS),
    ] = None,
    tpot: Annotated[
        float | None,
        typer.Option("--tpot", "--tpot-s", help="Limit on the time per output token, seconds.", rich_help_panel=LIMITS),
    ] = None,
    objective: Annotated[
        str,
        typer.Option(
            help="What ranks first: usd_per_mtok, tokens_per_s_per_gpu, tokens_per_s_per_user or ttft_s.",
            rich_help_panel=LIMITS,
        ),
    ] = "usd_per_mtok",
    max_devices: Annotated[int, typer.Option(help="Most devices of one deployment.", rich_help_panel=LIMITS)] = 8,
    price: Annotated[
        list[str] | None,
        typer.Option(help="Your price: name=USD per device-hour; repeat for more.", rich_help_panel=LIMITS),
    ] = None,
    price_kind: Annotated[
        str,
        typer.Option(
            help="on-demand, reserved, cost-of-ownership, or auto: the one known for most devices.",
            rich_help_panel=LIMITS,
        ),
    ] = "auto",
    weight_dtypes: Annotated[
        list[str] | None, typer.Option(help="Formats to try; as published by default.", rich_help_panel=FORMATS)
    ] = None,
    kv_cache_dtypes: Annotated[
        list[str] | None, typer.Option(help="Formats to try; as published by default.", rich_help_panel=FORMATS)
    ] = None,
    max_num_batched_tokens: shared.BudgetOption = 8192,
    max_num_seqs: shared.SequencesOption = 1024,
    gpu_memory_utilization: shared.UtilizationOption = 0.9,
    block_size: shared.BlockOption = 16,
    capacity_mode: Annotated[
        str, typer.Option(help="runtime (what an engine allocates) or ideal.", rich_help_panel=MEMORY)
    ] = "runtime",
    calibration: Annotated[
        str | None,
        typer.Option(help=f"calibrated (the default), {shared.CALIBRATION_WORDS}.", rich_help_panel=LAWS),
    ] = None,
    engine: Annotated[str, typer.Option(help="ideal or vllm.", rich_help_panel=LAWS)] = "ideal",
    rows: Annotated[int, typer.Option(help="Most rows of the table.", rich_help_panel=shared.OUTPUT, min=1)] = 10,
    every_layout: Annotated[
        bool,
        typer.Option(
            "--every-layout",
            help="Show every layout, not only the best of the same devices and formats.",
            rich_help_panel=shared.OUTPUT,
        ),
    ] = False,
    as_json: shared.JsonOption = False,
) -> None:
    """Rank the accelerators, layouts and formats that serve a model within its latencies.

    For each way the largest batch that holds the latencies in steady state is found. Queueing is left out.
    "Nothing fits" is an answer with the nearest miss, not an error.
    """
    devices = [roofsim.Accelerator.load(name) for name in shared.words(accelerators)]
    loaded = roofsim.Model.load(model)
    answer = roofsim.plan(
        loaded,
        devices,
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        ttft_s=ttft,
        tpot_s=tpot,
        objective=objective,
        max_devices=max_devices,
        max_num_batched_tokens=max_num_batched_tokens,
        weight_dtypes=shared.words(weight_dtypes) if weight_dtypes else None,
        kv_cache_dtypes=shared.words(kv_cache_dtypes) if kv_cache_dtypes else None,
        prices=shared.prices(price) if price else None,
        price_kind=price_kind,
        calibration=None if calibration == "calibrated" else calibration,
        engine=engine,
        capacity_mode=capacity_mode,
        gpu_memory_utilization=gpu_memory_utilization,
        block_size=block_size,
        max_num_seqs=max_num_seqs,
    )
    if as_json:
        print_json(answer.to_dict())
        return
    behind = [(device.name, device.with_calibration(calibration or "calibrated").calibration) for device in devices]
    show(stdout(), answer, loaded, behind, rows, every_layout=every_layout)


def show(
    console: Console,
    answer: roofsim.Plan,
    model: roofsim.Model,
    behind: list[tuple[str, roofsim.Calibration]],
    rows: int,
    *,
    every_layout: bool = False,
) -> None:
    """Print a plan for a person: the table and the answer in words, or the nearest misses; then what it rests on."""
    request = answer.request
    limits = [
        f"{name} <= {duration(request[key])}" for name, key in (("TTFT", "ttft_s"), ("TPOT", "tpot_s")) if request[key]
    ]
    workload = f"{request['input_tokens']} tokens in, {request['output_tokens']} out"
    title = "  |  ".join([request["model"], workload, *limits, f"ranked by {request['objective']}"])
    console.print(Text(title, style="bold"))
    console.print()
    if answer.options:
        _show_options(console, answer, model, rows, every_layout=every_layout)
    else:
        _show_misses(console, answer, rows)
    for note in answer.notes:
        console.print()
        console.print(Text(note, style="yellow"))
    console.print()
    console.print(Text("Left out: queueing, and requests of different lengths.", style="dim"))
    print_calibrations(console, behind)


def _show_options(
    console: Console, answer: roofsim.Plan, model: roofsim.Model, rows: int, *, every_layout: bool
) -> None:
    ranked = answer.options if every_layout else answer.distinct()
    shown = ranked[:rows]
    kinds = {option["price_kind"] for option in answer.options}
    price = f"$/Mtok\n{kinds.pop()}" if len(kinds) == 1 else "$/Mtok"
    columns = [
        number("#"),
        Column("devices"),
        Column("layout"),
        Column("weights", 6),
        Column("KV", 7),
        number("batch"),
        number("TTFT\nms", 2),
        Column("TTFT ms\n[low, high]", 8, "right"),
        number("TPOT\nms"),
        Column("TPOT ms\n[low, high]", 7, "right"),
        number("max ITL\nms", 4),
        number("tok/s/\ndevice", 1),
        number(price),
        *([Column("price", 1)] if kinds else []),
        Column("binds", 5),
        Column("limit", 3),
        Column("decode step ms\n[low, high]", 9, "right"),
        Column(WHY, 10, folds=True),
    ]
    table = []
    for rank, option in enumerate(shown, 1):
        usd = option["usd_per_mtok"]
        table.append(
            [
                str(rank),
                f"{option['num_devices']} x {option['accelerator']}",
                layout(option),
                _weights(option, model),
                option["kv_cache_dtype"],
                _batch(option),
                significant(1e3 * option["ttft_s"]),
                _ends(option, "ttft"),
                significant(1e3 * option["tpot_s"]),
                _ends(option, "tpot"),
                significant(1e3 * option["itl_max_s"]),
                significant(option["tokens_per_s_per_gpu"]),
                "unknown" if usd is None else significant(usd),
                *([option["price_kind"]] if kinds else []),
                option["bound"],
                option["limit"],
                interval(option["decode_step"]),
                option["why_not_first"],
            ]
        )
    dropped = print_table(console, columns, table, first_style="bold green")
    hidden = len(ranked) - len(shown)
    if hidden:
        console.print(Text(f"{hidden} more ways hold the limits (--rows {len(ranked)}).", style="dim"))
    if not every_layout:
        repeats = sum(option["no_better_than"] is not None for option in answer.options)
        behind = len(answer.options) - len(ranked) - repeats
        folded = [
            *([f"{_ways(behind)} the same devices and formats otherwise and rank lower"] if behind else []),
            *([f"{_ways(repeats, 'take', 'takes')} more devices and gain nothing by them"] if repeats else []),
        ]
        if folded:
            console.print(Text(f"{'; '.join(folded)} (--every-layout).", style="dim"))
    if any(option["pipeline_parallel_size"] > 1 for option in shown):
        text = "batch of a pipeline: microbatches in flight x sequences in each. Its stages are taken as equally long."
        console.print(Text(text, style="dim"))
    note_dropped(console, dropped)
    console.print()
    _answer_in_words(console, answer, model)


def _ways(count: int, several: str = "lay out", one: str = "lays out") -> str:
    return f"1 more way {one}" if count == 1 else f"{count} more ways {several}"


def _batch(option: dict[str, Any]) -> str:
    """Write the sequences in flight in one replica, by microbatch where there are several."""
    stages, batch = option["pipeline_parallel_size"], option["batch_size"]
    return f"{stages} x {batch}" if stages > 1 else str(batch)


def _ends(option: dict[str, Any], name: str) -> str:
    return f"[{significant(1e3 * option[f'{name}_low_s'])}, {significant(1e3 * option[f'{name}_high_s'])}]"


def _answer_in_words(console: Console, answer: roofsim.Plan, model: roofsim.Model) -> None:
    best, request = answer.options[0], answer.request
    usd = best["usd_per_mtok"]
    price = (
        "at an unknown price"
        if usd is None
        else f"at ${significant(usd)} per million output tokens ({best['price_kind']})"
    )

    def against(name: str, key: str) -> str:
        limit = request[key]
        return f"{name} {duration(best[key])}" + (f" of {duration(limit)}" if limit else "")

    decode, mixed = best["decode_step"], best["mixed_step"]
    stages = best["pipeline_parallel_size"]
    microbatches = f" ({best['batch_size']} in each of {stages} microbatches)" if stages > 1 else ""
    text = Text.assemble(
        (f"Serve {request['model']} on {best['num_devices']} x {best['accelerator']}", "bold"),
        f" ({layout(best)}, {_weights(best, model)} weights, {best['kv_cache_dtype']} KV) with {best['sequences']} "
        f"sequences per replica{microbatches}: "
        f"{significant(best['tokens_per_s_per_gpu'])} tokens/s per device {price}. ",
        f"{against('TTFT', 'ttft_s')}, {against('TPOT', 'tpot_s')}, largest gap between two tokens "
        f"{duration(best['itl_max_s'])}. A decode step takes {interval(decode)} ms and is {best['bound']}-bound; "
        f"a step with a prefill chunk takes {interval(mixed)} ms. The batch stops growing at "
        f"{LIMIT_NAMES[best['limit']]}; memory would hold {best['max_sequences']} sequences per replica "
        f"({shared.MEMORY_RULES[request['capacity_mode'].strip().lower()]}).",
    )
    console.print(text)
    others: dict[str, dict[str, Any]] = {}
    for option in answer.distinct()[1:]:
        others.setdefault("Runner-up", option)
        device = option["accelerator"]
        if device != best["accelerator"]:
            others.setdefault(f"Best on {device}", option)
    if not others:
        return
    console.print()
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for label, option in others.items():
        way = f"{option['num_devices']} x {option['accelerator']} {layout(option)}"
        grid.add_row(Text(f"{label}: {way}"), Text(option["why_not_first"]))
    console.print(grid)


def _show_misses(console: Console, answer: roofsim.Plan, rows: int) -> None:
    console.print(Text("Nothing holds these limits.", style="bold red"))
    if not answer.misses:
        return
    nearest = answer.misses[0]
    where = f"{nearest['num_devices']} x {nearest['accelerator']} {layout(nearest)}"
    factor = nearest["factor"]
    by = "" if factor is None else f" (a factor of {factor:.2f})"
    console.print(Text(f"Nearest miss{by}: {where}: {nearest['reason']}."))
    if nearest["limit"] in HINTS:
        console.print(Text(f"What would help: {HINTS[nearest['limit']]}."))
    console.print()
    columns = [Column("devices"), Column("layout"), number("missed by"), Column("why", folds=True)]
    distinct = _distinct_misses(answer.misses)
    shown = distinct[:rows]
    table = [
        [
            f"{miss['num_devices']} x {miss['accelerator']}",
            layout(miss),
            "-" if miss["factor"] is None else f"{miss['factor']:.2f} x",
            miss["reason"],
        ]
        for miss in shown
    ]
    print_table(console, columns, table)
    hidden, same = len(distinct) - len(shown), len(answer.misses) - len(distinct)
    if hidden:
        console.print(Text(f"{hidden} more ways were tried (--rows {len(distinct)}).", style="dim"))
    if same:
        console.print(Text(f"{same} miss by as much on more devices (--json has them).", style="dim"))


def _distinct_misses(misses: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Leave out misses by as much as another one's of the same device and formats on fewer devices."""
    keys = ("accelerator", "weight_dtype", "kv_cache_dtype", "limit")

    def repeats(miss: dict[str, Any], other: dict[str, Any]) -> bool:
        if miss["factor"] is None or other["factor"] is None or any(miss[key] != other[key] for key in keys):
            return False
        return bool(other["num_devices"] < miss["num_devices"] and miss["factor"] >= (1 - ALIKE) * other["factor"])

    return [miss for miss in misses if not any(repeats(miss, other) for other in misses)]


def _weights(option: dict[str, Any], model: roofsim.Model) -> str:
    """Name the weight format; as published, the formats of the layers, experts last."""
    if option["weight_dtype"] != "auto":
        return str(option["weight_dtype"])
    formats = [layer[key] for key in ("mixer_dtype", "feed_forward_dtype") for layer in model.layers]
    return "+".join(dict.fromkeys(map(str, formats)))
