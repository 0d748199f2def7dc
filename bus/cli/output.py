"""Output of the command line: data on standard output, everything else on standard error.

rich adds colours only on a terminal, and only if NO_COLOR is not set.
"""

import contextlib
import json
import logging
import os
import sys
from collections.abc import Iterable, Iterator
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.highlighter import JSONHighlighter
from rich.segment import Segment
from rich.table import Table
from rich.text import Text
from typing_extensions import override

from bus.cli.terminal_encoding import can_show
from bus.messaging.escaped_text import escape_json, escape_text, shorten_spaces

__all__ = [
    "EscapingConsole",
    "fits",
    "format_json",
    "print_json",
    "say",
    "suppress_library_logs",
    "table_console",
]

MEASURE_COLUMNS = 10_000
"""Console width for measuring a table. It is so large that no row is wrapped."""
PIPED_COLUMNS = 1000
"""Console width for output to a pipe. No line is wrapped, so programs can read line by line."""


class EscapingConsole(Console):
    """Console that escapes the characters that a terminal interprets (`escape_text`).

    Every command prints by this class. So no text of a message, a broker, a file or an error
    reaches the terminal raw. Texts are escaped before they are measured. If an object of rich has
    other texts, they are escaped when they are written, and a table may then cut them.

    Other consoles of rich replace a code such as `:100:` with an emoji, even in JSON and in ids.
    This console leaves such codes as they are.
    """

    @override
    def render_str(self, text: str, **options: Any) -> Text:
        """Return the text as rich's `Text`, escaped, and without emoji for codes."""
        return super().render_str(escape_text(text), **{**options, "emoji": False})

    @override
    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """Return the segments of an object, escaped. Rich's own control codes stay."""
        for text, style, control in super().render(renderable, options):
            yield Segment(text if control else escape_text(text), style, control)


def print_json(value: Any, *, compact: bool) -> None:
    """Print a value as JSON on standard output.

    Args:
        value: A value that `json.dumps` accepts.
        compact: True prints one line for programs. False indents the JSON, and colours it on a
            terminal.
    """
    text = format_json(value, **({"separators": (",", ":")} if compact else {"indent": 2}))
    EscapingConsole().print(
        text if compact else JSONHighlighter()(text), markup=False, highlight=False, soft_wrap=True
    )


def format_json(value: Any, **form: Any) -> str:
    """Return a value as JSON that standard output can show and that programs can read.

    If the encoding of standard output lacks a character, all characters outside of ASCII are
    escaped.

    Args:
        value: A value that `json.dumps` accepts.
        **form: Options of `json.dumps`, such as `indent`.
    """
    text = escape_json(json.dumps(value, ensure_ascii=False, **form))
    return text if can_show(text, sys.stdout) else json.dumps(value, **form)


def table_console() -> Console:
    """Return a console for tables. Its width is the terminal's, or `PIPED_COLUMNS` for a pipe."""
    piped = not sys.stdout.isatty() and "COLUMNS" not in os.environ
    return EscapingConsole(width=PIPED_COLUMNS if piped else None)


def fits(table: Table, console: Console) -> bool:
    """Return True if the table fits on the console with line breaks only between words."""
    return (
        console.measure(table, options=console.options.update(max_width=MEASURE_COLUMNS)).minimum
        <= console.width
    )


def say(text: str) -> None:
    """Print a line about progress on standard error."""
    EscapingConsole(stderr=True).print(
        shorten_spaces(text), markup=False, highlight=False, soft_wrap=True
    )


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
