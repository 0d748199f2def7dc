"""The entries of docs/how-to/troubleshoot.md, and a runner of their commands.

An entry is a heading of level 3. Its only console block has a command and the output of this
command. `output.py` has the parts of the output that can differ from run to run.
"""

import asyncio
import itertools
import multiprocessing
import os
import re
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bus.cli import COMMANDS, main
from tests.examples.output import ANYTHING, Output
from tests.examples.page import ROOT, fences
from tests.examples.terminal import WARNING

__all__ = ["PAGE", "Entry", "Shell", "entries", "index_rows", "needs_time"]

PAGE = ROOT / "docs/how-to/troubleshoot.md"
HEADING = re.compile(r"^### (.+)$", flags=re.MULTILINE)
ROW = re.compile(r"^\| \[(?P<symptom>[^\]]+)\]\(#(?P<anchor>[^)]+)\) \| `(?P<command>[^`]+)` \|$")
FORKS = multiprocessing.get_context("forkserver")
"""Context that forks each command from a process with the imported command line.

The import takes half a second of processor time, and the page has 30 commands.
"""
FORKS.set_forkserver_preload(["pytest", __name__, *(f"bus.cli.{name}" for name in COMMANDS)])
NUMBERS = itertools.count()
NEXT_TRY_SECONDS = 1.0
PATIENCE = 40.0
"""Maximum seconds for all tries of a command that shows a problem only after some seconds."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One symptom of the page."""

    symptom: str
    text: str
    command: str
    lines: Sequence[str]
    """Output of the command, as the page shows it."""

    @property
    def anchor(self) -> str:
        """The name of the heading in links."""
        return re.sub(r"[^\w -]", "", self.symptom.lower()).replace(" ", "-")


def entries(page: Path = PAGE) -> dict[str, Entry]:
    """Return the entries of the page by their anchors."""
    parts = HEADING.split(page.read_text(encoding="utf-8"))
    found = [_entry(symptom, text) for symptom, text in zip(parts[1::2], parts[2::2], strict=True)]
    return {entry.anchor: entry for entry in found}


def _entry(symptom: str, text: str) -> Entry:
    text = text.partition("\n## ")[0]
    [block] = fences(text)
    command, *lines = block.text.splitlines()
    assert command.startswith("$ "), symptom
    return Entry(symptom=symptom, text=text, command=command[2:], lines=lines)


def index_rows(page: Path = PAGE) -> Iterator[tuple[str, str, str]]:
    """Yield the symptom, the anchor and the command of each row of the index."""
    for line in page.read_text(encoding="utf-8").splitlines():
        if row := ROW.match(line):
            yield row["symptom"], row["anchor"], row["command"]


@dataclass(frozen=True, kw_only=True)
class Shell:
    """A folder and the variables in which the commands of entries run."""

    folder: Path
    variables: Mapping[str, str]
    stand_ins: Mapping[str, str]
    """Texts of the page, with the texts that replace them in this run."""
    ids: Mapping[str, str]
    """Ids of the page, with the ids of this run."""

    async def show(self, entries: Sequence[Entry], variables: Mapping[str, str]) -> None:
        """Run the command that some entries share until it prints the lines of the page.

        Raises:
            AssertionError: The command printed other lines. The text has them.
        """
        deadline = asyncio.get_running_loop().time() + PATIENCE
        [shown] = {entry.command for entry in entries}
        command = Output(dict(self.ids)).with_ids_of_the_run(self._replaced(shown))
        while True:
            printed = await self._run(command, variables)
            missing = [text for entry in entries if (text := self._difference(entry, printed))]
            if not missing:
                return
            is_late = asyncio.get_running_loop().time() > deadline
            text = "\n".join([*missing, f"{command} printed:", *printed])
            assert needs_time(command), text
            assert not is_late, text
            await asyncio.sleep(NEXT_TRY_SECONDS)

    def _difference(self, entry: Entry, printed: Sequence[str]) -> str | None:
        expected = [self._replaced(line) for line in entry.lines]
        missing = first_difference(expected, printed, Output(dict(self.ids)))
        return missing and f"{entry.symptom}: {missing}"

    def _replaced(self, text: str) -> str:
        for shown, actual in self.stand_ins.items():
            text = text.replace(shown, actual)
        return text

    async def _run(self, command: str, variables: Mapping[str, str]) -> list[str]:
        output = self.folder / f"output-{next(NUMBERS)}"
        run = Run(
            command=command,
            folder=str(self.folder),
            variables={**self.variables, **variables},
            output=str(output),
        )
        process = FORKS.Process(target=run_command, args=(run,))
        process.start()
        await asyncio.to_thread(process.join)
        process.close()
        lines = (line.rstrip() for line in output.read_text(encoding="utf-8").splitlines())
        return [line for line in lines if not line.startswith(WARNING)]


@dataclass(frozen=True, kw_only=True)
class Run:
    """A command, and the file to which it prints."""

    command: str
    folder: str
    variables: Mapping[str, str]
    output: str


def run_command(run: Run) -> None:
    """Run a command in this process, or in a shell if it is not a simple command of the bus."""
    for descriptor in (1, 2):
        os.dup2(os.open(run.output, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), descriptor)
    os.chdir(run.folder)
    os.environ.clear()
    os.environ.update(run.variables)
    words = shlex.split(run.command, comments=False)
    if words[0] != "bus" or ">" in run.command:
        os.execvp("bash", ["bash", "-c", run.command])
    sys.path.insert(0, run.folder)
    sys.argv = words
    main()


def needs_time(command: str) -> bool:
    """Return True if a command can show a problem only after some seconds.

    `bus queues` has counts of the management API, which are 5 s old. `bus services` reports slots
    that were in use for 2 s. The others wait for answers of instances for 1 s. On a busy machine
    the answers arrive later.
    """
    return command.startswith(("bus queues", "bus services", "bus contracts usage", "bus wait"))


def first_difference(expected: Sequence[str], printed: Sequence[str], output: Output) -> str | None:
    """Return the first line of the page that was not printed, or None. `…` is any lines."""
    rest, is_skipping = list(printed), False
    for line in expected:
        if line == ANYTHING:
            is_skipping = True
            continue
        while rest and is_skipping and not output.matches(line.rstrip(), rest[0]):
            del rest[0]
        if not rest or not (is_skipping or output.matches(line.rstrip(), rest[0])):
            return f"expected {line!r}"
        del rest[0]
        is_skipping = False
    return None if is_skipping or not rest else f"it printed more: {rest[0]!r}"
