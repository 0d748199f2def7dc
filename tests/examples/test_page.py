"""Tests of the runner of the pages: it accepts correct pages, and reports each kind of fault."""

from pathlib import Path

import pytest

from tests.examples.page import fences, followed

URL = "amqp://guest:guest@127.0.0.1:1/"


async def follow(folder: Path, *lines: str, **stand_ins: str) -> None:
    page = folder / "page.md"
    page.write_text("\n".join(["Text.", "", *lines, ""]), encoding="utf-8")
    async with followed(page, folder, URL, stand_ins=stand_ins):
        pass


def console(*lines: str, title: str = "shell") -> list[str]:
    return [f'```console title="{title}"', *lines, "```", ""]


@pytest.mark.parametrize(
    "lines",
    [
        ["$ echo one; echo two", "one", "two"],
        ["$ echo one; echo two", "…"],
        ["$ printf 'a\\nb\\nc\\n'", "…", "c"],
        ["$ export NAME=value OTHER=x", '$ echo "$NAME"', "value"],
        ["$ export BUS_URL=amqp://user:password@host/", '$ echo "$BUS_URL"', URL],
        ["$ echo one \\", "    two", "one two"],
        ["$ echo 'error: no broker'; exit 3", "error: no broker"],
        ["$ printf 'Delete? [y/N]: '; read answer; echo $answer", "Delete? [y/N]: y", "y"],
        ["$ true > made", "$ ls made", "made"],
    ],
)
async def test_commands_that_do_what_the_page_shows_are_accepted(
    tmp_path: Path, lines: list[str]
) -> None:
    await follow(tmp_path, *console(*lines))


@pytest.mark.parametrize(
    ("lines", "fault"),
    [
        (["$ echo one", "two"], "expected 'two'"),
        (["$ echo one; echo two", "one"], "more than the page shows"),
        (["$ echo one", "one", "two"], "ended without 'two'"),
        (["$ echo one; exit 3", "one"], "exit code 3"),
        (["$ echo error: none", "error: none"], "exit code 0"),
        (["$ unknown-program"], "exit code 127"),
        (["$ echo …", "one"], "cannot know the value"),
    ],
)
async def test_a_command_that_does_not_do_what_the_page_shows_is_a_failure(
    tmp_path: Path, lines: list[str], fault: str
) -> None:
    with pytest.raises(AssertionError, match=fault):
        await follow(tmp_path, *console(*lines))


async def test_a_file_of_the_page_is_there_and_a_marked_fence_is_skipped(tmp_path: Path) -> None:
    marked = ["*Not run by a test: it needs root.*", "", *console("$ reboot")]
    file = ['```toml title="a/b.toml"', "x = 1", "```", ""]
    await follow(tmp_path, *file, *marked, *console("$ cat a/b.toml", "x = 1"))


async def test_a_stand_in_replaces_a_text_of_the_page(tmp_path: Path) -> None:
    await follow(tmp_path, *console("$ echo 8080", "1234"), **{"8080": "1234"})


async def test_a_step_in_another_terminal_waits_for_a_command_without_output(
    tmp_path: Path,
) -> None:
    slow = console("$ read -t 0.2 < <(tail -f /dev/null) || echo done > made", title="one")
    await follow(tmp_path, *slow, *console("$ cat made", "done", title="two"))


def test_a_fence_has_its_title_its_reason_and_its_line() -> None:
    [first, second] = fences(
        'Text.\n\n```console title="shell"\n$ ls\n```\n\n'
        "*Not run by a test: it needs root.*\n\n```sh\nreboot\n```\n"
    )
    assert (first.language, first.title, first.reason, first.line) == ("console", "shell", "", 3)
    assert (second.language, second.title, second.reason) == ("sh", "", "it needs root.")
