"""Runner of a documentation page: it writes the files of the page, and types its commands.

A fence `python title="shop.py"` is a file, and a later fence with the same title replaces it.
A fence `console title="terminal 2"` has the input and the output of a terminal:

- a line that begins with `$ ` is a command;
- `^C` and `^\\` are keys;
- any other line is output, in which `…` matches any text;
- a line with `…` alone matches any lines.
"""

import asyncio
import os
import re
import resource
import shlex
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.integration.command import interruptible

ROOT = Path(__file__).parents[2]
FENCE = re.compile(r"^```(\w+) title=\"([^\"]+)\".*?\n(.*?)^```$", flags=re.DOTALL | re.MULTILINE)
ANYTHING = "…"
PATIENCE = 100.0  # seconds for a line or an end, which usually take a second or two
KEYS = {"^C": signal.SIGINT, "^\\": signal.SIGQUIT}
PROGRAMS = {
    "bus": ["-m", "bus.cli"],
    "python": [],
    "pytest": ["-m", "pytest", "-p", "no:cacheprovider"],
    "uvicorn": ["-m", "uvicorn"],
}
SERVES = (["bus", "run"], ["uvicorn", "web.app:app"])
"""Beginnings of commands that run until Ctrl-C, and write log lines."""
NOT_TYPED = ("mkdir", "cd", "python3 -m venv", "pip", "export", "bus broker")
"""Commands that the test has already done: an environment, and a broker in BUS_URL."""
WARNING = "BUS_AUTH=off: "
"""Warning of every program on these pages, which explain it once."""


@dataclass(frozen=True, kw_only=True)
class Block:
    """Fence with a title."""

    language: str
    title: str
    text: str


def blocks(page: Path) -> Iterator[Block]:
    """Yield the titled fences of a page, in their order."""
    for language, title, text in FENCE.findall(page.read_text(encoding="utf-8")):
        yield Block(language=language, title=title, text=text)


@dataclass
class Terminal:
    """Process in one terminal, and the lines that it has printed."""

    folder: Path
    environment: dict[str, str]
    typed: str = ""
    process: asyncio.subprocess.Process | None = None
    skipping: bool = False
    serves: bool = False
    seen: list[str] = field(default_factory=list)
    printed: list[tuple[str, str]] = field(default_factory=list)
    """Each line, also the warnings, with its command. An empty line is the end of a command."""

    async def type(self, command: str) -> None:
        """Start a command after the previous one has ended with success."""
        await self.end()
        words = shlex.split(command)
        assert words[0] in PROGRAMS, f"{command!r}: this test knows {', '.join(PROGRAMS)}"
        self.typed, self.serves, self.skipping = command, words[:2] in SERVES, False
        self.process = await asyncio.create_subprocess_exec(
            *(sys.executable, *PROGRAMS[words[0]], *words[1:]),
            cwd=self.folder,
            env=self.environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            preexec_fn=interruptible,
        )

    async def see(self, expected: str) -> None:
        """Assert that this line is next. A service's own log lines may come before it."""
        if expected == ANYTHING:
            self.skipping = True
            return
        while line := await self._line():
            if matches(expected, line):
                self.skipping = False
                return
            assert self.serves or self.skipping, (
                f"{self.typed}: expected {expected!r}, and it printed {line!r}"
            )
        raise AssertionError(f"{self.typed}: it ended without {expected!r}, after {self.seen}")

    async def press(self, key: str) -> None:
        """Press a key: Ctrl-C ends the process with success, and Ctrl-\\ kills it."""
        assert self.process, f"nothing runs where {key} is pressed"
        if hasattr(resource, "prlimit"):
            resource.prlimit(self.process.pid, resource.RLIMIT_CORE, (0, 0))
        self.process.send_signal(KEYS[key])
        await self._drained()
        code, self.process = await self.process.wait(), None
        assert code == (0 if key == "^C" else -KEYS[key]), self.seen

    async def end(self) -> None:
        """Assert that the process ends with success and no more output; stop a service first."""
        if self.process is None:
            return
        if self.serves:
            await self.press("^C")
            return
        rest = await self._drained()
        code, self.process = await self.process.wait(), None
        assert code == 0, f"{self.typed}: exit code {code}: {self.seen}"
        assert self.skipping or not rest, (
            f"{self.typed}: it printed more than the page shows: {rest}"
        )

    async def _line(self) -> str:
        assert self.process, "no command was typed here"
        assert self.process.stdout
        async with asyncio.timeout(PATIENCE):
            while (line := (await self.process.stdout.readline()).decode()).startswith(WARNING):
                self.printed.append((self.typed, line))
        self.seen.append(line)
        self.printed.append((self.typed, line))
        return line

    async def _drained(self) -> list[str]:
        rest: list[str] = []
        while line := await self._line():
            rest.append(line)
        return rest


def matches(expected: str, line: str) -> bool:
    """Return True if a line matches the expected one."""
    pattern = ".*".join(re.escape(part) for part in expected.split(ANYTHING))
    return re.fullmatch(pattern, line.rstrip("\n")) is not None


@asynccontextmanager
async def followed(page: Path, folder: Path, url: str) -> AsyncIterator[dict[str, Terminal]]:
    """Follow all steps of the page, and yield its terminals; their services still run then."""
    environment = {
        **os.environ,
        "BUS_URL": url,
        "BUS_LOG_FORMAT": "console",
        "PYTHONPATH": str(ROOT),
        "PYTHONUNBUFFERED": "1",
        "COLUMNS": "200",
    }
    terminals: dict[str, Terminal] = {}
    try:
        for block in blocks(page):
            if block.language == "console":
                await _typed(
                    block, terminals.setdefault(block.title, Terminal(folder, environment))
                )
            else:
                file = folder / block.title
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(block.text, encoding="utf-8")
        yield terminals
        await asyncio.gather(*(terminal.end() for terminal in terminals.values()))
    finally:
        for terminal in terminals.values():
            if terminal.process is not None and terminal.process.returncode is None:
                terminal.process.kill()
                await terminal.process.wait()


async def _typed(block: Block, terminal: Terminal) -> None:
    ours = True
    for line in block.text.splitlines():
        if line.startswith("$ "):
            ours = not line.removeprefix("$ ").startswith(NOT_TYPED)
            if ours:
                await terminal.type(line.removeprefix("$ "))
        elif line in KEYS:
            await terminal.press(line)
        elif ours:
            await terminal.see(line)
