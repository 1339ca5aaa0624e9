"""How answers look: numbers with units, tables that give up columns on narrow terminals, JSON, one-line errors."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import typer
from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

FOLD_CHARS = 28
"""Narrowest width at which a column of sentences is still pleasant to read."""
GAP_CHARS = 2
"""Blanks between columns."""


@dataclass(frozen=True)
class Column:
    """A table column.

    Attributes
    ----------
    title
        Heading.
    rank
        0 always stays; of the others the largest leaves first when the terminal is too narrow.
    justify
        Numbers to the right, words to the left.
    folds
        Whether its cells are sentences that may break into lines.
    """

    title: str
    rank: int = 0
    justify: Literal["left", "right"] = "left"
    folds: bool = False


def number(title: str, rank: int = 0) -> Column:
    """Make a column of numbers."""
    return Column(title, rank, "right")


def stdout() -> Console:
    """Return the console of answers."""
    return Console(highlight=False)


def complain(message: str) -> None:
    """Write one red line to standard error."""
    Console(stderr=True, highlight=False).print(Text(message, style="red"), soft_wrap=True)


def print_table(
    console: Console, columns: Sequence[Column], rows: Sequence[Sequence[str]], *, first_style: str | None = None
) -> list[str]:
    """Print the columns that the console is wide enough for and return the titles of the others."""
    widths = []
    for index, column in enumerate(columns):
        lines = [*column.title.split("\n"), *(row[index] for row in rows)]
        widest = max(map(cell_len, lines))
        widths.append(min(FOLD_CHARS, widest) if column.folds else widest)
    kept = list(range(len(columns)))
    while sum(widths[index] + GAP_CHARS for index in kept) > console.width + GAP_CHARS:
        last = max(kept, key=lambda index: (columns[index].rank, index))
        if columns[last].rank == 0:
            break
        kept.remove(last)
    # One blank of padding and one of divider make the gap.
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, GAP_CHARS - 1, 0, 0), show_edge=False)
    for index in kept:
        column = columns[index]
        table.add_column(
            Text(column.title),
            justify=column.justify,
            no_wrap=not column.folds,
            overflow="fold",
            min_width=widths[index],
        )
    for position, row in enumerate(rows):
        style = first_style if position == 0 else None
        table.add_row(*(Text(row[index]) for index in kept), style=style)
    console.print(table)
    return [
        column.title.replace("\n_", "_").replace("\n", " ") for index, column in enumerate(columns) if index not in kept
    ]


def note_dropped(console: Console, dropped: Sequence[str]) -> None:
    """Say which columns the terminal is too narrow for."""
    if dropped:
        console.print(Text(f"Too narrow for: {', '.join(dropped)} (--json has them).", style="dim"))


def print_pairs(console: Console, pairs: Iterable[tuple[str, str]]) -> None:
    """Print names and values in two columns."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in pairs:
        grid.add_row(Text(name), Text(value))
    console.print(grid)


def print_json(value: object) -> None:
    """Write a value as JSON; what JSON cannot spell (an infinite intensity) becomes null."""
    typer.echo(json.dumps(_finite(value), indent=2, ensure_ascii=False, allow_nan=False))


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value


def significant(value: float, digits: int = 3) -> str:
    """Write a number to so many significant digits, without an exponent.

    Examples
    --------
    >>> significant(1234.5), significant(0.01234), significant(29.66)
    ('1,234', '0.0123', '29.7')
    """
    if not math.isfinite(value):
        return "-"
    if value == 0:
        return "0"
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    return f"{value:,.{decimals}f}"


def duration(seconds: float) -> str:
    """Write a time in the unit that suits it.

    Examples
    --------
    >>> duration(0.0297), duration(1.25), duration(2.1e-6)
    ('29.7 ms', '1.25 s', '2.10 us')
    """
    for unit, scale in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= scale * 0.9995:
            return f"{significant(seconds / scale)} {unit}"
    return f"{significant(seconds * 1e6)} us"


def interval(cost: Mapping[str, float]) -> str:
    """Write a time with the ends of its interval in milliseconds."""
    low, time, high = (significant(1e3 * cost[key]) for key in ("time_low_s", "time_s", "time_high_s"))
    return f"{time} [{low}, {high}]"


def gigabytes(num_bytes: float) -> str:
    """Write bytes in decimal gigabytes.

    Examples
    --------
    >>> gigabytes(141107412992)
    '141 GB'
    """
    return f"{significant(num_bytes / 1e9)} GB"


def scaled(value: float, unit: str = "") -> str:
    """Write a count or rate with a decimal prefix.

    Examples
    --------
    >>> scaled(70553706496), scaled(989e12, "FLOP")
    ('70.6 G', '989 TFLOP')
    """
    if value == 0 or not math.isfinite(value):
        return "0" if value == 0 else "-"
    for prefix, scale in (("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(value) >= scale * 0.9995:
            return f"{significant(value / scale)} {prefix}{unit}"
    return f"{significant(value)} {unit}".strip()


def percent(share: float) -> str:
    """Write a share as a percentage."""
    return f"{100 * share:.1f}%" if math.isfinite(share) else "-"


def layout(row: Mapping[str, int]) -> str:
    """Write the parallel sizes above one, ``TP1`` when there are none.

    Examples
    --------
    >>> layout({"tensor_parallel_size": 4, "pipeline_parallel_size": 2})
    'TP4 PP2'
    """
    letters = (("TP", "tensor"), ("PP", "pipeline"), ("DP", "data"), ("EP", "expert"))
    sizes = [(letter, row.get(f"{name}_parallel_size", 1)) for letter, name in letters]
    return " ".join(f"{letter}{size}" for letter, size in sizes if size > 1 or letter == "TP")
