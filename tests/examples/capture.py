"""Picture of two terminals in which the README's first commands ran: an SVG file.

usage: BUS_URL=amqp://… BUS_MANAGEMENT_URL=http://… python -m tests.examples.capture

A test follows the README, and compares the file with the picture of that run. Therefore the picture
has no parts that differ from run to run: `…` replaces times, and ports are the usual ones. Lines of
the log that the services write at the same time are sorted.
"""

import asyncio
import os
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from html import escape
from itertools import takewhile
from pathlib import Path

from tests.examples.page import ROOT, followed
from tests.examples.terminal import Terminal

__all__ = ["CAPTURE", "picture"]

CAPTURE = ROOT / "docs/images/quick-start.svg"
COMMANDS = {"terminal 2": "bus run", "terminal 3": "python"}
"""Terminals of the picture, each with the beginning of the command that is shown."""

COLUMNS = 60  # more would be too small on a phone; a longer line ends with `…`
LETTER, LINE, TAB, EDGE = 7.8, 18, 26, 12  # px
BACK, BAR, PROMPT, TYPED, PRINTED, LOGGED = (
    *("#16202a", "#2a3845", "#7fc78a", "#ffffff", "#ffd9a0", "#a9b7c2"),
)
TIME = re.compile(r"^\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d\S*")
PORT = re.compile(r"(?<=127\.0\.0\.1:)\d+")
PHASES = ("BUS_AUTH=off", "connected to", "is serving")
"""Texts of the log's lines in the order of a start."""
STOP = "is stopping"
"""Text of the log's first line after Ctrl-C."""


def picture(terminals: Mapping[str, Terminal]) -> str:
    """Return the SVG of the terminals of the README after its commands ran."""
    return drawn(
        {
            title: list(first_run(terminals[title].printed, begin))
            for title, begin in COMMANDS.items()
        }
    )


def first_run(printed: Iterable[tuple[str, str]], begin: str) -> Iterator[str]:
    """Yield the first run of a command until its stop: the command, its log, its other output."""
    run = [(command, line) for command, line in printed if command.startswith(begin)]
    lines = [
        PORT.sub("5672", TIME.sub("…", line.rstrip()))
        for _, line in takewhile(lambda entry: entry[1] and STOP not in entry[1], run)
    ]
    log = [line for line in lines if line.startswith("… ")]
    yield f"$ {run[0][0]}"
    yield from sorted(log, key=lambda line: (phase(line), line))
    yield from (line for line in lines if line not in log)


def phase(line: str) -> int:
    """Return the place of a log line in the order of a start."""
    return next((place for place, text in enumerate(PHASES) if text in line), len(PHASES))


def drawn(panes: Mapping[str, list[str]]) -> str:
    """Return the SVG of panes below each other, each with its title and lines."""
    width = round(COLUMNS * LETTER + 2 * EDGE)
    parts, y = list[str](), 0
    for title, lines in panes.items():
        height = TAB + LINE * len(lines) + EDGE
        parts.append(
            f'<rect y="{y}" width="{width}" height="{height}" rx="8" fill="{BACK}"/>'
            f'<path d="M0 {y + TAB}v-{TAB - 8}q0-8 8-8h{width - 16}q8 0 8 8v{TAB - 8}z" '
            f'fill="{BAR}"/><text x="{EDGE}" y="{y + 18}" fill="{LOGGED}">{title}</text>'
        )
        parts += [row(line, y + TAB + LINE * place) for place, line in enumerate(lines, 1)]
        y += height + EDGE
    style = (
        'text{font:13px ui-monospace,"DejaVu Sans Mono",Menlo,Consolas,monospace;white-space:pre}'
    )
    view_box, size = f"0 0 {width} {y - EDGE}", f'width="{width}" height="{y - EDGE}"'
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{view_box}" {size} role="img">',
            f"<title>{' and '.join(panes)} of the README</title><style>{style}</style>",
            *parts,
            "</svg>\n",
        ]
    )


def row(line: str, y: int) -> str:
    """Return the SVG of a line: a command with its prompt, the log, or the program's output."""
    text = line if len(line) <= COLUMNS else f"{line[: COLUMNS - 1]}…"
    if text.startswith("$ "):
        spans = f'<tspan fill="{PROMPT}">$</tspan> {escape(text[2:], quote=False)}'
        return f'<text x="{EDGE}" y="{y}" fill="{TYPED}">{spans}</text>'
    colour = LOGGED if text.startswith(("… ", "BUS_AUTH=off")) else PRINTED
    return f'<text x="{EDGE}" y="{y}" fill="{colour}">{escape(text, quote=False)}</text>'


async def main() -> None:
    """Follow the README on the broker of the environment, and write the picture."""
    os.environ["BUS_AUTH"] = "off"  # as in the tests
    with tempfile.TemporaryDirectory() as folder:
        async with followed(ROOT / "README.md", Path(folder), os.environ["BUS_URL"]) as terminals:
            pass
    CAPTURE.write_text(picture(terminals), encoding="utf-8")


if __name__ == "__main__":
    asyncio.run(main())
