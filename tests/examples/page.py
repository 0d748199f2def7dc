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
import resource
import shlex
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from tests.examples.output import ANYTHING, Output
from tests.integration.command import interruptible

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
PATIENCE = 100.0  # seconds for a line or an end, which usually take a second or two
KEYS = {"^C": signal.SIGINT, "^\\": signal.SIGQUIT}
PROGRAMS = {
    "bus": ["-m", "bus.cli"],
    "python": [],
    "pytest": ["-m", "pytest", "-p", "no:cacheprovider"],
    "faststream": ["-m", "faststream"],
    "uvicorn": ["-m", "uvicorn"],
}
"""Programs of an environment. All others of a page are those of the machine."""
SERVES = re.compile(r"(?:^|\s)(?:bus (?:--debug )?run|faststream run|uvicorn web\.app:app)(?:\s|$)")
"""Commands that run until Ctrl-C, and write log lines."""
CHANGES_THE_SHELL = ("export ", "unset ", "umask ")
NOT_TYPED = ("mkdir", "cd", "python3 -m venv", "pip", "bus broker")
"""Commands that the test has already done: an environment, and a broker in BUS_URL."""
CONTINUED = re.compile(r"(?<=[^^])\\\n *")
ADDRESSES = ("BUS_URL", "BUS_MANAGEMENT_URL")
"""Variables that a page cannot know, so it sets them to the address of an example."""
SAMPLED = re.compile(r"bus queues(?!.*--watch)")
"""Commands that show numbers of the management API, which are some seconds old."""
FAILURES = ("error: ", "Traceback ", "E  ")
QUESTION = re.compile(r"(.*\[y/N\]: )(\w)")
WARNING = "BUS_AUTH=off: "
"""Warning of every program on these pages, which explain it once."""


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


@dataclass
class Terminal:
    """Shell in one terminal: its variables, its running command, and the printed lines."""

    folder: Path
    environment: dict[str, str]
    given: Mapping[str, str]
    """Addresses of the broker of this test, which the page cannot know."""
    output: Output
    typed: str = ""
    process: asyncio.subprocess.Process | None = None
    skipping: bool = False
    serves: bool = False
    fails: bool = False
    seen: list[str] = field(default_factory=list)
    printed: list[tuple[str, str]] = field(default_factory=list)
    """Each line, also the warnings, with its command. An empty line is the end of a command."""

    async def type(self, command: str) -> None:
        """Start a command after the previous one has ended."""
        await self.end()
        self.typed = command = self.output.with_ids_of_the_run(command)
        self.serves, self.skipping, self.fails = bool(SERVES.search(command)), False, False
        if command.startswith(CHANGES_THE_SHELL):
            await self._change(command)
            return
        assert ANYTHING not in command, f"{command}: this test cannot know the value of {ANYTHING}"
        self.process = await self._shell(command)

    async def _shell(self, command: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *("bash", "-c", command),
            cwd=self.folder,
            env=self.environment,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            preexec_fn=interruptible,
            start_new_session=True,
        )

    async def _change(self, command: str) -> None:
        process = await self._shell(f"{command}\nexec env -0")
        out, _ = await process.communicate()
        assert process.returncode == 0, f"{command}: {out.decode()}"
        lines = (entry.partition("=") for entry in out.decode().split("\0") if entry)
        self.environment = {name: value for name, _, value in lines}
        for name, value in self.given.items():
            if urlsplit(value).netloc.rpartition("@")[2] not in self.environment.get(name, ""):
                self.environment[name] = value

    async def see(self, expected: str) -> None:
        """Assert that this line is next. A service's own log lines may come before it."""
        if expected == ANYTHING:
            self.skipping = True
            return
        if question := QUESTION.fullmatch(expected):
            await self._answer(*question.groups())
            return
        self.fails = self.fails or expected.startswith(FAILURES)
        while line := await self._line():
            if self.output.matches(expected, line):
                self.skipping = False
                return
            assert self.serves or self.skipping, (
                f"{self.typed}: expected {expected!r}, and it printed {line!r}"
            )
        raise AssertionError(f"{self.typed}: it ended without {expected!r}, after {self.seen}")

    async def _answer(self, question: str, answer: str) -> None:
        assert self.process
        assert self.process.stdout
        assert self.process.stdin
        async with asyncio.timeout(PATIENCE):
            printed = (await self.process.stdout.readuntil(b"[y/N]: ")).decode()
        assert self.output.matches(question.rstrip(), printed), (
            f"{self.typed}: it asked {printed!r}"
        )
        self.process.stdin.write(f"{answer}\n".encode())

    async def type_until(self, command: str, expected: list[str]) -> None:
        """Repeat a command until its output is as shown, because the broker counts every 5 s."""
        async with asyncio.timeout(PATIENCE):
            while True:
                await self.type(command)
                lines = await self._drained()
                if len(lines) == len(expected) and all(map(self.output.matches, expected, lines)):
                    return

    async def press(self, key: str) -> None:
        """Press a key: Ctrl-C ends the process with success, and Ctrl-\\ kills it."""
        assert self.process, f"nothing runs where {key} is pressed"
        if hasattr(resource, "prlimit"):
            resource.prlimit(self.process.pid, resource.RLIMIT_CORE, (0, 0))
        os.killpg(self.process.pid, KEYS[key])
        await self._drained()
        code, self.process = await self.process.wait(), None
        assert code == (0 if key == "^C" else -KEYS[key]), self.seen

    async def end(self) -> None:
        """Assert that the process ends as shown, with no more output; stop a service first."""
        if self.process is None:
            return
        if self.serves and not self.fails:
            await self.press("^C")
            return
        assert self.process.stdin
        self.process.stdin.close()
        rest = await self._drained()
        code, self.process = await self.process.wait(), None
        assert (code != 0) == self.fails, f"{self.typed}: exit code {code}: {self.seen}"
        assert self.skipping or not rest, (
            f"{self.typed}: it printed more than the page shows: {rest}"
        )

    async def ended(self) -> None:
        """Wait until the command ends, as a reader does before the next step in another shell."""
        if not self.serves or self.fails:
            await self.end()

    async def kill(self) -> None:
        """End a process that still runs, with its children."""
        if self.process is not None and self.process.returncode is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            await self.process.wait()

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
