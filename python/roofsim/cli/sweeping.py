"""`roofsim sweep`."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

import roofsim
from roofsim.cli import options as shared
from roofsim.cli.display import Column, note_dropped, print_json, print_table, significant, stdout
from roofsim.cli.table_file import check_path, is_parquet, write
from roofsim.errors import SpecError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

AXES, ANSWER = "Axes: one value, a list 1,2,4 or a range start:stop:step (stop included)", "Answer"

HEADING_CHARS = 14

Names = list[str]


def sweep(
    models: Annotated[
        Names | None, typer.Option("--models", "--model", "-m", help="Names or files; at least one.")
    ] = None,
    accelerators: Annotated[
        Names | None, typer.Option("--accelerators", "--accelerator", "-a", help="Names or spec files; at least one.")
    ] = None,
    batch_size: Annotated[Names | None, typer.Option(rich_help_panel=AXES)] = None,
    context_tokens: Annotated[Names | None, typer.Option(rich_help_panel=AXES)] = None,
    query_tokens: Annotated[Names | None, typer.Option(rich_help_panel=AXES)] = None,
    tensor_parallel_size: Annotated[
        Names | None, typer.Option("--tensor-parallel-size", "--tp", rich_help_panel=AXES)
    ] = None,
    pipeline_parallel_size: Annotated[
        Names | None, typer.Option("--pipeline-parallel-size", "--pp", rich_help_panel=AXES)
    ] = None,
    data_parallel_size: Annotated[
        Names | None, typer.Option("--data-parallel-size", "--dp", rich_help_panel=AXES)
    ] = None,
    expert_parallel_size: Annotated[
        Names | None, typer.Option("--expert-parallel-size", "--ep", rich_help_panel=AXES)
    ] = None,
    weight_dtype: Annotated[Names | None, typer.Option(rich_help_panel=AXES)] = None,
    kv_cache_dtype: Annotated[Names | None, typer.Option(rich_help_panel=AXES)] = None,
    calibration: Annotated[Names | None, typer.Option(rich_help_panel=AXES)] = None,
    engine: Annotated[Names | None, typer.Option(rich_help_panel=AXES)] = None,
    capacity_mode: Annotated[Names | None, typer.Option(rich_help_panel=AXES)] = None,
    gpu_memory_utilization: Annotated[Names | None, typer.Option(rich_help_panel=AXES)] = None,
    block_size: Annotated[Names | None, typer.Option(rich_help_panel=AXES)] = None,
    max_num_batched_tokens: Annotated[Names | None, typer.Option(rich_help_panel=AXES)] = None,
    max_num_seqs: Annotated[Names | None, typer.Option(rich_help_panel=AXES)] = None,
    price: Annotated[Names | None, typer.Option(help="name=USD per device-hour.")] = None,
    price_kind: Annotated[
        str, typer.Option(help="on-demand, reserved, cost-of-ownership, or auto: the one known for most devices.")
    ] = "auto",
    top_k: Annotated[int | None, typer.Option(help="Keep the best rows by one column.", rich_help_panel=ANSWER)] = None,
    by: Annotated[
        str, typer.Option(help="The column of --top-k; each knows which direction is better.", rich_help_panel=ANSWER)
    ] = "tokens_per_s_per_gpu",
    pareto: Annotated[
        Names | None, typer.Option(help="Keep rows no other beats in all these columns.", rich_help_panel=ANSWER)
    ] = None,
    where: Annotated[
        Names | None,
        typer.Option(help="Condition, like 'time_s <= 0.03' or fits; repeat for more.", rich_help_panel=ANSWER),
    ] = None,
    group_by: Annotated[
        Names | None,
        typer.Option(help="Keep the best rows of each group of these columns (--by, --top-k).", rich_help_panel=ANSWER),
    ] = None,
    count_by: Annotated[
        Names | None, typer.Option(help="Count rows by the values of these columns.", rich_help_panel=ANSWER)
    ] = None,
    histogram: Annotated[
        str | None, typer.Option(help="Count rows by where this column's value lies.", rich_help_panel=ANSWER)
    ] = None,
    bins: Annotated[
        int | None, typer.Option(help="Bins of --histogram, 10 if not given.", rich_help_panel=ANSWER)
    ] = None,
    log: Annotated[bool, typer.Option("--log", help="Bins in ratio.", rich_help_panel=ANSWER)] = False,
    columns: Annotated[
        Names | None, typer.Option(help="Result columns of a full sweep; ? lists them.", rich_help_panel=ANSWER)
    ] = None,
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            help="Write to a .csv or .npz file, or into a .parquet directory, which a stopped run continues.",
            rich_help_panel=ANSWER,
        ),
    ] = None,
    rows: Annotated[int, typer.Option(help="Most rows to print.", rich_help_panel=shared.OUTPUT, min=1)] = 20,
    num_threads: Annotated[
        int | None, typer.Option(help="Threads; all CPUs by default.", rich_help_panel=shared.OUTPUT)
    ] = None,
    as_json: shared.JsonOption = False,
) -> None:
    """Evaluate every combination of axes: the best rows, the Pareto front, groups, counts, or all rows into a file.

    Rows that no engine would run carry their reason in `status` and never rank. Ctrl-C stops at once (exit code 130).
    """
    if columns and shared.words(columns) == ["?"]:
        _list_columns(as_json)
        return
    for field, value in (("models", models), ("accelerators", accelerators)):
        if not value:
            raise SpecError(field, "none", f"give at least one: --{field} NAME")
    if histogram is None and (bins is not None or log):
        raise SpecError(
            "bins" if bins is not None else "log", str(bins or log).lower(), "belongs to --histogram COLUMN"
        )
    if output is not None:
        check_path(output)
    answers = {
        "top_k": "" if top_k is None or group_by else str(top_k),
        "pareto": ",".join(pareto or []),
        "group_by": ",".join(group_by or []),
        "count_by": ",".join(count_by or []),
        "histogram": histogram or "",
    }
    given = [name for name, value in answers.items() if value]
    if len(given) > 1:
        flags = " or ".join(f"--{name.replace('_', '-')}" for name in given)
        raise SpecError(given[1], answers[given[1]], f"give either {flags}")
    if given and is_parquet(output):
        raise SpecError("output", output, f"holds the rows of a full sweep; --{given[0].replace('_', '-')} keeps few")
    counted = {
        "batch_size": batch_size,
        "context_tokens": context_tokens,
        "query_tokens": query_tokens,
        "tensor_parallel_size": tensor_parallel_size,
        "pipeline_parallel_size": pipeline_parallel_size,
        "data_parallel_size": data_parallel_size,
        "expert_parallel_size": expert_parallel_size,
        "block_size": block_size,
        "max_num_batched_tokens": max_num_batched_tokens,
        "max_num_seqs": max_num_seqs,
    }
    named = {
        "weight_dtype": weight_dtype,
        "kv_cache_dtype": kv_cache_dtype,
        "calibration": calibration,
        "engine": engine,
        "capacity_mode": capacity_mode,
    }
    axes: dict[str, Any] = {name: shared.counts(name, texts) for name, texts in counted.items() if texts}
    axes |= {name: shared.words(texts) for name, texts in named.items() if texts}
    if gpu_memory_utilization:
        axes["gpu_memory_utilization"] = shared.shares("gpu_memory_utilization", gpu_memory_utilization)
    names_of_models, names_of_devices = shared.words(models or []), shared.words(accelerators or [])
    priced = shared.prices(price) if price else None
    space = roofsim.SweepSpace(names_of_models, names_of_devices, prices=priced, price_kind=price_kind, **axes)
    varying = _varying(axes, names_of_models, names_of_devices)
    filters = where or []
    if not given:
        asked = shared.words(columns) if columns else list(roofsim.sweep.DEFAULT_COLUMNS)
        _full(space, list(dict.fromkeys([*varying, *asked])), filters, output, rows, num_threads, as_json)
        return
    if count_by or histogram:
        with _progress(space) as tick:
            if histogram:
                bars = space.histogram(
                    histogram,
                    10 if bins is None else bins,
                    log=log,
                    where=filters,
                    progress=tick,
                    num_threads=num_threads,
                )
                groups_found, names = histogram_rows(bars), ["from", "to", "count"]
            else:
                names = shared.words(count_by or [])
                groups_found = space.counts(names, where=filters, progress=tick, num_threads=num_threads).to_dicts()
                names = [*names, "count"]
        _reduced(space, groups_found, names, output, rows, as_json, where=filters, unit="groups")
        return
    spread = None
    with _progress(space) as tick:
        found: roofsim.TopK | roofsim.Front | roofsim.Groups
        if group_by:
            groups = shared.words(group_by)
            found = space.best_per_group(
                groups, by=by, k=1 if top_k is None else top_k, where=filters, progress=tick, num_threads=num_threads
            )
            results = [*(name for name in groups if name not in varying), by]
        elif top_k is not None:
            best = space.top_k(top_k, by=by, where=where or (), progress=tick, num_threads=num_threads)
            found, results = best, [by]
        else:
            objectives = shared.words(pareto or [])
            found = space.pareto(objectives, where=where or (), progress=tick, num_threads=num_threads)
            results, spread = objectives, objectives[0]
    _reduced(
        space,
        found.to_dicts(),
        [*varying, *results],
        output,
        rows,
        as_json,
        results,
        where=filters,
        unranked=found.report,
        spread=spread,
    )


def _varying(axes: dict[str, Any], models: Names, accelerators: Names) -> list[str]:
    """Name the axes that have more than one value, in row order."""
    lengths = {
        "model": len(models),
        "accelerator": len(accelerators),
        **{name: len(axis) for name, axis in axes.items()},
    }
    return [name for name in roofsim.sweep.COLUMNS if lengths.get(name, 1) > 1]


@contextmanager
def _progress(space: roofsim.SweepSpace) -> Iterator[Callable[[int, int], None] | None]:
    """Show a bar on a terminal; a pipe or a file sees none."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    shape = (TextColumn("sweeping"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*shape, console=console, transient=True) as bar:
        task = bar.add_task("", total=space.num_configurations)

        def tick(done: int, _total: int) -> None:
            bar.update(task, completed=done)

        yield tick


def _full(
    space: roofsim.SweepSpace,
    names: Names,
    where: Names,
    output: str | None,
    rows: int,
    num_threads: int | None,
    as_json: bool,
) -> None:
    if output is not None and is_parquet(output):
        with _progress(space) as tick:
            parts = space.write_parquet(output, names, where=where, progress=tick, num_threads=num_threads)
        _written(output, parts.num_rows, f", {parts.resumed:,} configurations of them earlier" if parts.resumed else "")
        return
    with _progress(space) as tick:
        found = space.run(names, where=where, progress=tick, num_threads=num_threads)
    if output is not None:
        write(output, {name: found[name] for name in found})
        _written(output, found.num_rows)
        return
    if as_json:
        print_json({**_answer(space), "columns": {n: found[n].tolist() for n in found}})
        return
    console, shown = stdout(), min(rows, found.num_rows)
    heads = [found[name][:shown].tolist() for name in names]
    _print(console, names, [list(row) for row in zip(*heads, strict=True)])
    if shown < found.num_rows:
        left = f"{found.num_rows - shown:,} more rows (--rows, --output file.csv, .npz or .parquet, --top-k, --pareto)."
        console.print(Text(left, style="dim"))
    _say_what_differs(console, space, names, where)


def histogram_rows(found: roofsim.Histogram) -> list[dict[str, Any]]:
    """Write a histogram as rows: what lies below and above the edges, and what has no value, where there is any."""
    edges = found.edges.tolist()
    rows = [
        {"from": low, "to": high, "count": count}
        for low, high, count in zip(edges, edges[1:], found.counts.tolist(), strict=False)
    ]
    outside = [(None, edges[0], found.below), (edges[-1], None, found.above), (None, None, found.null)]
    return rows + [{"from": low, "to": high, "count": count} for low, high, count in outside if count]


def _reduced(
    space: roofsim.SweepSpace,
    found: list[dict[str, Any]],
    names: Names,
    output: str | None,
    rows: int,
    as_json: bool,
    results: Names | None = None,
    *,
    where: Names,
    unit: str = "rows",
    unranked: roofsim.SearchReport | None = None,
    spread: str | None = None,
) -> None:
    left_out = unranked.num_unranked if unranked is not None else 0
    why = f"{left_out:,} configurations could not be ranked: {unranked.unranked}." if left_out and unranked else ""
    if output is not None:
        write(output, {name: [row[name] for row in found] for name in (found[0] if found else names)})
        _written(output, len(found))
        if why:
            Console(stderr=True, highlight=False).print(Text(why))
    elif as_json:
        answer: dict[str, Any] = {**_answer(space), "rows": found}
        if unranked is not None:
            answer |= {"num_unranked": left_out, "unranked": unranked.unranked}
        print_json(answer)
    else:
        console = stdout()
        if not found:
            console.print(Text(f"None of {space.num_configurations:,} configurations passes."))
            if why:
                console.print(Text(why))
            return
        shown = found[:rows] if spread is None else _spread(found, spread, rows)
        _print(console, names, [[row[name] for name in names] for row in shown], results)
        hidden = len(found) - len(shown)
        of = f"{len(found):,} of {space.num_configurations:,} configurations"
        if unit != "rows":
            of = f"{len(found):,} {unit} of {space.num_configurations:,} configurations"
        rest = f"; {hidden:,} not shown (--rows)." if hidden else "."
        if hidden and spread is not None:
            rest = (
                f" are the front; {len(shown):,} spread evenly over it are shown, the best {spread} first, "
                f"and {hidden:,} left out: --rows {len(found)}, --json or --output front.csv has all."
            )
        console.print(Text(of + rest, style="dim"))
        if why:
            console.print(Text(why))
        _say_what_differs(console, space, names, where)


def _answer(space: roofsim.SweepSpace) -> dict[str, Any]:
    """Start an answer in JSON."""
    return {
        "num_configurations": space.num_configurations,
        "price_kind": space.price_kind,
        "notes": space.notes,
    }


def _say_what_differs(console: Console, space: roofsim.SweepSpace, names: Names, where: Names) -> None:
    """Say which prices and which rules of memory were taken, and what sets the accelerators apart beside themselves."""
    if any(name.startswith("usd_") for name in names):
        console.print(Text(f"Prices that you did not give are {space.price_kind}.", style="dim"))
    mode = space[0]["capacity_mode"]
    judged = {"fits", "max_sequences"}.intersection([*names, *(word for text in where for word in text.split())])
    if judged and mode == "ideal":
        text = "fits is judged in closed form; --capacity-mode runtime judges it as vLLM allocates."
        console.print(Text(text, style="dim"))
    for note in space.notes:
        console.print(Text(note, style="yellow"))


def _spread(front: list[dict[str, Any]], by: str, most: int) -> list[dict[str, Any]]:
    """Of a front at most so many rows, evenly from its best value by a column to its worst.

    Examples
    --------
    >>> [row["mfu"] for row in _spread([{"mfu": x} for x in (0.1, 0.5, 0.3, 0.2, 0.4)], "mfu", 3)]
    [0.5, 0.3, 0.1]
    """
    ordered = sorted(front, key=lambda row: row[by], reverse=roofsim.sweep.COLUMNS[by][0] == "higher")
    if len(ordered) <= most:
        return ordered
    last = len(ordered) - 1
    return [ordered[round(at * last / max(1, most - 1))] for at in range(most)]


def _print(console: Console, names: Names, rows: list[list[Any]], results: Names | None = None) -> None:
    if results is None:
        # Axes and the first result must stay; of the other results the last leaves first.
        first = next(
            (at for at, name in enumerate(names) if roofsim.sweep.COLUMNS.get(name, ("", ""))[1] != "Axis."), 0
        )
        ranks = [max(0, at - first) for at in range(len(names))]
    else:
        # What was asked for must stay; of the axes the last leaves first.
        ranks = [0 if name in results else at + 1 for at, name in enumerate(names)]
    columns = []
    for position, name in enumerate(names):
        words = any(isinstance(row[position], str) for row in rows)
        columns.append(Column(_heading(name), ranks[position], "left" if words else "right"))
    note_dropped(console, print_table(console, columns, [[_cell(value) for value in row] for row in rows]))


def _heading(name: str) -> str:
    """Break a long name into lines at its underscores.

    Examples
    --------
    >>> _heading("tokens_per_s_per_gpu").split()
    ['tokens_per_s', '_per_gpu']
    """
    lines = [""]
    for index, word in enumerate(name.split("_")):
        part = word if index == 0 else f"_{word}"
        if lines[-1] and len(lines[-1] + part) > HEADING_CHARS:
            lines.append(part)
        else:
            lines[-1] += part
    return "\n".join(lines)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return significant(value, 4) if isinstance(value, float) else str(value)


def _written(output: str, num_rows: int, earlier: str = "") -> None:
    Console(stderr=True, highlight=False).print(Text(f"{num_rows:,} rows written to {output}{earlier}"))


def _list_columns(as_json: bool) -> None:
    if as_json:
        print_json(
            [{"name": name, "better": better, "doc": doc} for name, (better, doc) in roofsim.sweep.COLUMNS.items()]
        )
        return
    rows = [[name, better, doc] for name, (better, doc) in roofsim.sweep.COLUMNS.items()]
    print_table(stdout(), [Column("column"), Column("better"), Column("meaning", folds=True)], rows)
