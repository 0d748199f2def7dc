"""Tables that leave out their least important columns on a narrow terminal."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table
from rich.text import Text

from bus.cli.output import MEASURE_COLUMNS
from bus.cli.queue_table import UNKNOWN
from bus.messaging.escaped_text import one_line

__all__ = ["Column", "fitting_table"]

NEVER = 0
"""Rank of a column that is always shown."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table."""

    name: str
    rank: int = NEVER
    """The column with the highest rank is left out first. A column with rank 0 is always shown."""
    is_text: bool = False
    """True for text on the left, and False for a number on the right."""


def fitting_table(
    columns: Sequence[Column], rows: Iterable[Sequence[str | Text]], console: Console
) -> Table:
    """Return a table without those columns for which the console is too narrow.

    A column without any known value is left out, too. If the most important columns do not fit,
    rich folds the text of the first one.

    A cell is never read as rich's markup, because other services choose texts such as `[/red]`.

    Args:
        columns: All columns.
        rows: The rows, each with a cell for each column.
        console: The console on which the table is printed.
    """
    rows = list(rows)
    shown = [
        at
        for at, column in enumerate(columns)
        if column.rank == NEVER or any(str(row[at]) != UNKNOWN for row in rows)
    ]
    while True:
        table = _table([columns[at] for at in shown], [[row[at] for at in shown] for row in rows])
        least = max(shown, key=lambda at: columns[at].rank)
        if columns[least].rank == NEVER or _width(table, console) <= console.width:
            return table
        shown.remove(least)


def _width(table: Table, console: Console) -> int:
    """Return the width at which no cell is folded."""
    return console.measure(table, options=console.options.update(max_width=MEASURE_COLUMNS)).maximum


def _table(columns: Sequence[Column], rows: Iterable[Sequence[str | Text]]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
    for at, column in enumerate(columns):
        table.add_column(
            column.name,
            justify="left" if column.is_text else "right",
            no_wrap=at > 0,
            overflow="fold",
        )
    for row in rows:
        table.add_row(*(cell if isinstance(cell, Text) else Text(one_line(cell)) for cell in row))
    return table
