"""Tables that leave out their least important columns."""

import io
from collections.abc import Sequence

import pytest
from rich.console import Console

from bus.cli.fitting_table import Column, fitting_table

COLUMNS = (Column("name", is_text=True), Column("first", 2), Column("second", 1), Column("always"))
ROWS = [("library-of-alexandria", "100", "200", "300"), ("shop", "-", "-", "-")]


def shown(width: int, rows: Sequence[tuple[str, ...]] = ROWS) -> list[str]:
    written = io.StringIO()
    console = Console(file=written, width=width)
    console.print(fitting_table(COLUMNS, rows, console))
    return [line.rstrip() for line in written.getvalue().splitlines()]


@pytest.mark.parametrize(
    ("width", "header"),
    [
        (80, "name                   first  second  always"),
        (44, "name                   first  second  always"),
        (43, "name                   second  always"),
        (36, "name                   always"),
    ],
)
def test_a_narrow_table_leaves_out_the_columns_of_the_highest_rank(width: int, header: str) -> None:
    assert shown(width)[0] == header


def test_the_first_column_is_folded_if_the_important_columns_do_not_fit() -> None:
    lines = shown(20)
    assert lines[0].split() == ["name", "always"]
    assert "".join(line.split()[0] for line in lines[1:3]) == "library-of-alexandria"


def test_a_column_without_a_known_value_is_left_out() -> None:
    assert shown(80, [("shop", "-", "1", "-")])[0] == "name  second  always"


def test_a_table_without_rows_has_its_important_columns() -> None:
    assert shown(80, []) == ["name  always"]


def test_a_cell_is_shown_as_it_is_and_not_as_markup() -> None:
    lines = shown(80, [("[/red]", "[bold]1[/]", ":100:", "a\x1b[2J\nb")])
    assert lines[1].split() == ["[/red]", "[bold]1[/]", ":100:", "a\\u001b[2J", "b"]
