"""Output of the command line: data on standard output, everything else on standard error.

rich adds colours on a terminal only, and none if NO_COLOR is set.
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
"""Control characters except tab and newline, which could move the cursor of the terminal.

Text from other services may contain them.
"""
MEASURE_COLUMNS = 10_000
"""Columns for measuring a table, wide enough that no row is folded."""
PIPED_COLUMNS = 1000
"""Columns for a pipe, enough for every name and sentence, since programs read whole lines."""


def print_json(value: Any, *, compact: bool) -> None:
    """Print a value as JSON on standard output.

    Args:
        value: A value that `json.dumps` accepts.
        compact: Print one line for programs. Otherwise the JSON is indented, and coloured on a
            terminal.
    """
    form: dict[str, Any] = {"separators": (",", ":")} if compact else {"indent": 2}
    text = escaped(json.dumps(value, ensure_ascii=False, **form))
    Console().print(
        text if compact else JSONHighlighter()(text), markup=False, highlight=False, soft_wrap=True
    )


def table_console() -> Console:
    """Return a console for tables: as wide as the terminal, or wide enough for a pipe."""
    return Console(width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else PIPED_COLUMNS)


def fits(table: Table, console: Console) -> bool:
    """Return True if the console shows each cell uncut, and folds it only between words."""
    return (
        console.measure(table, options=console.options.update(max_width=MEASURE_COLUMNS)).minimum
        <= console.width
    )


def say(text: str) -> None:
    """Print a line about progress on standard error."""
    Console(stderr=True).print(harmless(text), markup=False, highlight=False, soft_wrap=True)


def escaped(text: str) -> str:
    """Return JSON text with escapes for control characters, which a terminal would execute."""
    return CONTROL.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def harmless(text: str) -> str:
    """Return the text with each control character replaced by U+FFFD."""
    return CONTROL.sub("�", text)


@contextlib.contextmanager
def suppress_library_logs() -> Iterator[None]:
    """Suppress the bus's log inside the block."""
    log = logging.getLogger("bus")
    before = log.level
    log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        log.setLevel(before)
