"""Output of the command line: data on standard output, everything else on standard error.

rich adds colours only on a terminal, and only if NO_COLOR is not set.
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

CONTROL = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)
"""Characters that must not reach the terminal: control characters except tab and newline.

Text from other services may contain them, and they could move the terminal's cursor. Line
separators and changes of the writing direction could forge other text. A lone surrogate cannot be
printed.
"""
MEASURE_COLUMNS = 10_000
"""Console width for measuring a table. It is so large that no row is wrapped."""
PIPED_COLUMNS = 1000
"""Console width for output to a pipe. No line is wrapped, so programs can read line by line."""


def print_json(value: Any, *, compact: bool) -> None:
    """Print a value as JSON on standard output.

    Args:
        value: A value that `json.dumps` accepts.
        compact: True prints one line for programs. False indents the JSON, and colours it on a
            terminal.
    """
    form: dict[str, Any] = {"separators": (",", ":")} if compact else {"indent": 2}
    text = escaped(json.dumps(value, ensure_ascii=False, **form))
    Console().print(
        text if compact else JSONHighlighter()(text), markup=False, highlight=False, soft_wrap=True
    )


def table_console() -> Console:
    """Return a console for tables. Its width is the terminal's, or `PIPED_COLUMNS` for a pipe."""
    return Console(width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else PIPED_COLUMNS)


def fits(table: Table, console: Console) -> bool:
    """Return True if the table fits on the console with line breaks only between words."""
    return (
        console.measure(table, options=console.options.update(max_width=MEASURE_COLUMNS)).minimum
        <= console.width
    )


def say(text: str) -> None:
    """Print a line about progress on standard error."""
    Console(stderr=True).print(harmless(text), markup=False, highlight=False, soft_wrap=True)


def escaped(text: str) -> str:
    """Return the JSON text with control characters escaped. A terminal would interpret them."""
    return CONTROL.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def harmless(text: str) -> str:
    """Return the text with each control character replaced by U+FFFD."""
    return CONTROL.sub("�", text)


@contextlib.contextmanager
def suppress_library_logs() -> Iterator[None]:
    """Suppress the log records of the library `bus` inside the block, except critical ones."""
    log = logging.getLogger("bus")
    before = log.level
    log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        log.setLevel(before)
