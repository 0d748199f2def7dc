"""Runner of a documentation page: it writes the files of the page, and types its commands.

A fence `python title="shop.py"` is a file, and a later fence with the same title replaces it.
A Python fence without a title that begins with `# shop.py` is a file, too.
A fence `console title="terminal 2"` has the input and the output of a terminal:

- a line that begins with `$ ` is a command of a shell, which continues after a final `\\`;
- `^C` and `^\\` are keys;
- a line that ends with `[y/N]: y` is a question with its answer;
- any other line is output, in which `…` matches any text (`output.py` has more);
- a line with `…` alone matches any lines.

The next fence follows at once if the last line of this one is a line of output. If it is `…`, or a
command without output, the next fence follows when the command has ended.

A command must end with success, unless its output has a line that begins with `error: `,
`Traceback ` or, as pytest prints errors, `E  `.

The line `*Not run by a test: it needs a Docker engine.*` before a fence gives the reason why the
runner skips the fence. `tests/unit/project/test_page_blocks.py` reports each fence that is neither
run nor marked.
"""

import asyncio
import os
import re
import shlex
import shutil
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.examples.output import ANYTHING, Output
from tests.examples.terminal import KEYS, Terminal

ROOT = Path(__file__).parents[2]
SERVICE = ROOT / "examples/library.py"
"""Service that some pages link to. It is then in the folder in which the reader works."""
MARK = "Not run by a test: "
FENCE = re.compile(
    rf"(?:^\*{MARK}(?P<reason>[^\n]+)\*\n\n)?"
    r"^(?P<indent> *)```(?P<language>\w*)(?P<attributes>[^\n]*)\n(?P<text>.*?)^(?P=indent)```$",
    flags=re.DOTALL | re.MULTILINE,
)
TITLE = re.compile(r'title="([^"]+)"')
FIRST_LINE = re.compile(r"# (\S+\.py)\n")
PROGRAMS = {
    "bus": ["-m", "bus.cli"],
    "python": [],
    # -P: as the program `pytest`, this one does not import from the working directory by itself.
    "pytest": ["-P", "-m", "pytest", "-p", "no:cacheprovider"],
    "faststream": ["-m", "faststream"],
    "uvicorn": ["-m", "uvicorn"],
}
"""Programs of an environment. All others of a page are those of the machine."""
NOT_TYPED = ("mkdir", "cd", "python3 -m venv", "pip", "bus broker")
"""Commands that the test has already done: an environment, and a broker in BUS_URL."""
CONTINUED = re.compile(r"(?<=[^^])\\\n *")
ADDRESSES = ("BUS_URL", "BUS_MANAGEMENT_URL")
"""Variables that a page cannot know, so it sets them to the address of an example."""
SAMPLED = re.compile(r"bus queues(?!.*--watch)")
"""Commands that show numbers of the management API, which are some seconds old."""


@dataclass(frozen=True, kw_only=True)
class Block:
    """Fence of a page. `reason` is empty unless the fence is marked as not run."""

    language: str
    title: str
    text: str
    reason: str
    line: int


def fences(text: str) -> Iterator[Block]:
    """Yield all fences of a page's text, in their order."""
    for found in FENCE.finditer(text):
        title = TITLE.search(found["attributes"]) or FIRST_LINE.match(found["text"])
        yield Block(
            language=found["language"],
            title=title[1] if title else "",
            text=found["text"],
            reason=found["reason"] or "",
            line=text.count("\n", 0, found.start("language")) + 1,
        )


def blocks(page: Path) -> Iterator[Block]:
    """Yield the fences of a page that a test runs, in their order."""
    for block in fences(page.read_text(encoding="utf-8")):
        if block.title and not block.reason:
            yield block


@asynccontextmanager
async def followed(
    page: Path,
    folder: Path,
    url: str,
    *,
    environment: Mapping[str, str] | None = None,
    stand_ins: Mapping[str, str] | None = None,
) -> AsyncIterator[dict[str, Terminal]]:
    """Follow all steps of the page, and yield its terminals; their services still run then.

    `environment` has variables that the page cannot know, and `stand_ins` has texts of the page,
    such as the name of a host, with the texts that replace them.
    """
    steps, programs = folder / "steps", folder / "programs"
    _prepare(page, steps, programs)
    started = {"BUS_URL": url, **(environment or {})}
    given = {name: value for name, value in started.items() if name in ADDRESSES}
    variables = {
        **os.environ,
        "BUS_LOG_FORMAT": "console",
        "PATH": f"{programs}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "PYTHONUNBUFFERED": "1",
        "COLUMNS": "200",
        **started,
    }
    output, terminals = Output(), dict[str, Terminal]()
    try:
        for block in blocks(page):
            text = block.text
            for shown, actual in (stand_ins or {}).items():
                text = text.replace(shown, actual)
            if block.language == "console":
                new = Terminal(steps, variables, given, output)
                await _typed(text, terminals.setdefault(block.title, new))
            else:
                file = steps / block.title
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(text, encoding="utf-8")
        yield terminals
        await asyncio.gather(*(terminal.end() for terminal in terminals.values()))
    finally:
        for terminal in terminals.values():
            await terminal.kill()


def _prepare(page: Path, steps: Path, programs: Path) -> None:
    steps.mkdir()
    if f"{SERVICE.parent.name}/{SERVICE.name}" in page.read_text(encoding="utf-8"):
        shutil.copy(SERVICE, steps)
    programs.mkdir()
    for name, arguments in PROGRAMS.items():
        program = programs / name
        program.write_text(f'#!/bin/sh\nexec {shlex.join([sys.executable, *arguments])} "$@"\n')
        program.chmod(0o755)


async def _typed(text: str, terminal: Terminal) -> None:
    lines: list[str] = []
    before, *steps = re.split(r"^\$ ", CONTINUED.sub("", text), flags=re.MULTILINE)
    for line in before.splitlines():
        await _seen(line, terminal)
    for step in steps:
        command, *lines = step.splitlines()
        if command.startswith(NOT_TYPED):
            continue
        if SAMPLED.match(command) and ANYTHING not in lines:
            await terminal.type_until(command, lines)
            continue
        await terminal.type(command)
        for line in lines:
            await _seen(line, terminal)
    if text.endswith(f"\n{ANYTHING}\n") or (steps and not lines):
        await terminal.ended()


async def _seen(line: str, terminal: Terminal) -> None:
    if line in KEYS:
        await terminal.press(line)
    else:
        await terminal.see(line)
