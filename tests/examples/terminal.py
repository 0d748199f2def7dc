"""A terminal of a page: it types commands in a shell, and compares what they print."""

import asyncio
import os
import re
import resource
import signal
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from tests.examples.output import ANYTHING, Output
from tests.integration.command import interruptible

__all__ = ["KEYS", "Terminal"]

PATIENCE = 100.0  # seconds for a line or an end, which usually take a second or two
KEYS = {"^C": signal.SIGINT, "^\\": signal.SIGQUIT}
SERVES = re.compile(r"(?:^|\s)(?:bus (?:--debug )?run|faststream run|uvicorn web\.app:app)(?:\s|$)")
"""Commands that run until Ctrl-C, and write log lines."""
CHANGES_THE_SHELL = ("export ", "unset ", "umask ")
QUESTION = re.compile(r"(.*\[y/N\]: )(\w)")
FAILURES = ("error: ", "Traceback ", "E  ")
WARNING = "BUS_AUTH=off: "
"""Warning of every program on these pages, which explain it once."""


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
            with suppress(ProcessLookupError):  # it has ended a moment ago
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
