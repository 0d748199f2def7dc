"""The entries of docs/how-to/troubleshoot.md, and a runner of their commands.

An entry is a heading of level 3. Its only console block has a command and the output of this
command. `output.py` has the parts of the output that can differ from run to run.
"""

import asyncio
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.examples.output import ANYTHING, Output
from tests.examples.page import ROOT, fences
from tests.examples.terminal import WARNING
from tests.integration.command import interruptible

__all__ = ["PAGE", "Entry", "Shell", "entries", "index_rows", "is_sampled"]

PAGE = ROOT / "docs/how-to/troubleshoot.md"
HEADING = re.compile(r"^### (.+)$", flags=re.MULTILINE)
ROW = re.compile(r"^\| \[(?P<symptom>[^\]]+)\]\(#(?P<anchor>[^)]+)\) \| `(?P<command>[^`]+)` \|$")
NEXT_TRY_SECONDS = 1.0
PATIENCE = 40.0
"""Seconds. The counts of the management API are 5 s old, so a command can need a second try."""


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
            assert is_sampled(command), text
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
        process = await asyncio.create_subprocess_exec(
            *("bash", "-c", command),
            cwd=self.folder,
            env={**self.variables, **variables},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            preexec_fn=interruptible,
        )
        out, _ = await process.communicate()
        lines = (line.rstrip() for line in out.decode().splitlines())
        return [line for line in lines if not line.startswith(WARNING)]


def is_sampled(command: str) -> bool:
    """Return True if the command shows counts of the management API, which are some seconds old."""
    return command.startswith("bus queues")


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
