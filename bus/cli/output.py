"""What the command line prints: data on standard output, everything else on standard error.

Colours are rich's business: on a terminal only, and none with NO_COLOR.
"""

import contextlib
import json
import logging
import os
import re
import sys
from collections.abc import Iterator
from typing import Any

from rich.console import Console
from rich.highlighter import JSONHighlighter
from rich.table import Table

__all__ = ["fits", "harmless", "print_json", "say", "suppress_library_logs", "table_console"]

CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
"""Controls but tab and newline: what other services sent must not move our reader's cursor."""

UNFOLDED = 10_000
"""Columns in which no row is folded: what the widest takes is measured there."""
PIPED_WIDTH = 1000
"""Wide enough for every name and sentence: who reads a pipe wants none folded."""


def print_json(value: Any, *, compact: bool) -> None:
    """A value on standard output: on one line for programs, else indented and, on a terminal, coloured."""
    form: dict[str, Any] = {"separators": (",", ":")} if compact else {"indent": 2}
    text = escaped(json.dumps(value, ensure_ascii=False, **form))
    Console().print(
        text if compact else JSONHighlighter()(text), markup=False, highlight=False, soft_wrap=True
    )


def table_console() -> Console:
    """For tables and sentences: as wide as the terminal is, and a pipe as wide as it takes."""
    return Console(width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else PIPED_WIDTH)


def fits(table: Table, console: Console) -> bool:
    """Whether no cell of it would be cut, or folded within a word."""
    return (
        console.measure(table, options=console.options.update(max_width=UNFOLDED)).minimum
        <= console.width
    )


def say(text: str) -> None:
    """A line about what goes on, on standard error."""
    Console(stderr=True).print(harmless(text), markup=False, highlight=False, soft_wrap=True)


def escaped(text: str) -> str:
    """JSON with the controls that JSON allows, and terminals obey, as escapes."""
    return CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def harmless(text: str) -> str:
    """The text without controls."""
    return CONTROL.sub("�", text)


@contextlib.contextmanager
def suppress_library_logs() -> Iterator[None]:
    """The bus's own log is silent inside."""
    log = logging.getLogger("bus")
    before = log.level
    log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        log.setLevel(before)
