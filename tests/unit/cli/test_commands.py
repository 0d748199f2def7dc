import asyncio
import gc
import inspect
import io
import os
import re
import subprocess
import sys
import tomllib
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self

import pytest
import typer
from rich.console import Console
from typer.main import get_command

from bus import errors
from bus.cli import COMMANDS, build, completed_line, main, submit, take_debug, unwrap_docstring
from bus.cli.demo_output import table_of
from bus.cli.doctor import CORE, EXTRAS
from bus.cli.errors import (
    EXIT_CODES,
    INTERRUPTED,
    MEANINGS,
    TERMINATED,
    Reporter,
    add_class,
    exit_code,
)
from bus.messaging.envelope import Progress
from tests.unit.ledger import CloseBooks

ALL_ERRORS = [
    each
    for each in vars(errors).values()
    if isinstance(each, type) and issubclass(each, errors.BusError)
]


def reported(error: BaseException, *, debug: bool = False) -> tuple[int, str]:
    """Return the exit code and the standard error of a command that raises `error`."""
    written = io.StringIO()

    def command() -> None:
        raise error

    with pytest.raises(typer.Exit) as caught:
        Reporter(debug=debug, console=Console(file=written, width=40))(command)()
    return caught.value.exit_code, written.getvalue()


def test_an_error_of_the_bus_is_one_line_with_its_own_words() -> None:
    sentence = (
        "no queue takes this job: [nobody] serves it, so start a worker with `bus run`, "
        "and then submit it again"
    )
    assert reported(errors.NotServed(sentence)) == (69, f"error: {sentence}\n")


FORGED = "line1\nerror: forged\r\x1b[31m\u2028\u202etxt\ud800"


def test_the_text_of_a_service_is_one_line_without_control_characters() -> None:
    async def call() -> None:
        with add_class():
            raise errors.NotFound(FORGED)

    with pytest.raises(errors.NotFound) as raised:
        asyncio.run(call())
    for debug in (False, True):
        written = reported(raised.value, debug=debug)[1]
        assert written.startswith(
            "error: NotFound: line1 error: forged \\u001b[31m \\u202etxt\\ud800\n"
        )
        assert not re.search(r"^error: forged|[\r\x1b\u2028\u202e\ud800]", written, re.MULTILINE)


@pytest.mark.parametrize(
    ("error", "has_id"),
    [
        (errors.Unavailable("the printer is off"), True),  # a handler can raise it, too
        (errors.NotServed("no service serves it"), False),
        (errors.ConnectionLost("not sent"), False),
        (errors.ConnectionLost("lost", maybe_executed=True), True),
    ],
)
def test_an_error_has_the_correlation_id_unless_no_service_received_the_message(
    error: errors.BusError, has_id: bool
) -> None:
    with pytest.raises(type(error)) as raised, add_class("c-1"):
        raise error
    assert str(raised.value).endswith("; correlation id c-1") is has_id


def test_only_the_first_line_of_an_error_begins_with_error() -> None:
    written = reported(errors.NotFound(FORGED))[1]
    assert written == (
        "error: line1\n    error: forged\\u000d\\u001b[31m\\u2028\\u202etxt\\ud800\n"
    )


def test_the_note_of_a_job_is_one_line() -> None:
    progress = Progress(progress=0.5, note=FORGED.removesuffix("\ud800"))
    failed = progress.model_copy(update={"error": FORGED})
    for line in map(submit.format_update, (progress, failed)):
        assert "\n" not in line
        assert "\x1b" not in line


def test_the_text_of_any_other_error_is_not_shown() -> None:
    code, written = reported(ValueError("a patient's name"))
    assert code == 70
    assert "patient" not in written
    assert "ValueError" in written


def test_an_internal_error_names_its_location_in_the_users_code() -> None:
    _, written = reported(ValueError("a patient's name"))
    assert re.search(r"\(ValueError at tests/unit/cli/test_commands\.py:\d+ command\)", written)


def test_debug_shows_the_traceback() -> None:
    _, written = reported(errors.NotFound("no such thing"), debug=True)
    assert "Traceback (most recent call last)" in written


def test_ctrl_c_is_no_error() -> None:
    assert reported(KeyboardInterrupt()) == (130, "")


def test_what_another_service_wrote_cannot_move_the_cursor() -> None:
    assert reported(errors.NotFound("gone\x1b[2J\x9b1A")) == (
        66,
        "error: gone\\u001b[2J\\u009b1A\n",
    )


def test_an_error_whose_outcome_is_unknown_says_so() -> None:
    _, written = reported(errors.ConnectionLost("the connection went", maybe_executed=True))
    assert written == "error: the connection went (the operation may have been executed)\n"


def test_an_exit_that_a_command_chose_is_kept() -> None:
    assert reported(typer.Exit(3)) == (3, "")


@pytest.mark.parametrize("error", ALL_ERRORS)
def test_every_error_has_an_exit_code_that_tells_it_from_success_and_usage(
    error: type[errors.BusError],
) -> None:
    assert exit_code(error()) in {*EXIT_CODES.values(), 70}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has /dev/full")
def test_output_to_a_full_disk_is_an_error_of_one_line() -> None:
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(
            [sys.executable, "-m", "bus.cli", "contracts", "--contracts", "contracts"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert ended.stderr == "error: the output cannot be written: No space left on device.\n"
    assert ended.returncode == os.EX_IOERR


def test_every_exit_code_has_a_meaning() -> None:
    assert {*EXIT_CODES.values(), 0, 1, 2, 70, 74, INTERRUPTED, TERMINATED} == {*MEANINGS}


@pytest.mark.parametrize(
    ("environment", "line"),
    [
        ({"_BUS_COMPLETE": "complete_bash", "COMP_WORDS": "bus call tran"}, ["call", "tran"]),
        ({"_BUS_COMPLETE": "complete_zsh", "_TYPER_COMPLETE_ARGS": "bus call "}, ["call"]),
        ({"_BUS_COMPLETE": "complete_fish"}, []),
        ({"COMP_WORDS": "bus call tran"}, []),
    ],
)
def test_the_line_that_a_shell_completes_names_the_command_to_load(
    environment: dict[str, str], line: list[str]
) -> None:
    assert completed_line(environment) == line


def test_a_paragraph_of_help_flows() -> None:
    def command() -> None:
        """Do it.

        At once, and
        all of it.

        Then stop.
        """

    assert unwrap_docstring(command) == "Do it.\n\nAt once, and all of it.\n\nThen stop."


def test_the_doctor_looks_for_what_the_project_asks_for_and_advises_extras_that_there_are() -> None:
    project = tomllib.loads(
        (Path(__file__).parents[3] / "pyproject.toml").read_text(encoding="utf-8")
    )["project"]
    extras = {name for name, parts in project["optional-dependencies"].items() if parts}
    assert {*EXTRAS} == extras - {"bench", "dev", "docs"}
    asked = {re.split(r"[\[<>=]", each)[0] for each in project["dependencies"]}
    assert asked - {"typing-extensions"} <= {*CORE}


def test_debug_is_taken_from_anywhere_before_a_double_dash() -> None:
    assert take_debug(["doctor", "--debug", "--json"]) == (True, ["doctor", "--json"])
    assert take_debug(["run", "x:y", "--", "--debug"]) == (False, ["run", "x:y", "--", "--debug"])


@pytest.mark.parametrize("name", COMMANDS)
def test_a_summary_is_the_first_line_of_its_commands_help(name: str) -> None:
    command = import_module(f"bus.cli.{name.replace('-', '_')}").command
    text = command.info.help if isinstance(command, typer.Typer) else inspect.getdoc(command)
    assert str(text).splitlines()[0] == COMMANDS[name]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([name, "--help"])
    assert caught.value.code == 0
    assert COMMANDS[name].split()[0] in capsys.readouterr().out


@pytest.mark.parametrize("name", COMMANDS)
def test_no_help_is_cut_in_a_terminal_of_80_columns(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("typer.rich_utils.MAX_WIDTH", 80)
    group: Any = get_command(build([name], Reporter(debug=False)))
    for words in [
        [name],
        *([name, each] for each in getattr(group.commands[name], "commands", ())),
    ]:
        with pytest.raises(SystemExit) as caught:
            main([*words, "--help"])
        assert caught.value.code == 0
        assert "…" not in capsys.readouterr().out.replace('"…"', ""), words


def test_help_lists_every_command_without_loading_one() -> None:
    app = build(["--help"], Reporter(debug=False))
    assert [each.name for each in app.registered_commands] == sorted(COMMANDS)
    assert len({each.callback for each in app.registered_commands}) == 1


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert (caught.value.code, capsys.readouterr().out) == (
        0,
        f"trunkline {version('trunkline')}\n",
    )


def test_what_a_command_imports_is_not_searched_for_garbage(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    frozen: list[bool] = []
    monkeypatch.setattr(gc, "freeze", lambda: frozen.append(gc.isenabled()))
    with pytest.raises(SystemExit):
        main(["contracts", "--help"])
    assert frozen == [], "main() with arguments runs in its caller's process"
    monkeypatch.setattr(sys, "argv", ["bus", "contracts", "--help"])
    with pytest.raises(SystemExit):
        main()
    assert frozen == [False]
    assert gc.isenabled()


def test_who_does_not_wait_for_a_result_waits_for_the_confirm_as_long_as_he_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waited: list[float | None] = []

    class Confirming:
        id = "m-1"

        def __init__(self, _service: str) -> None: ...

        async def __aenter__(self) -> Self:
            return self

        async def __aexit__(self, *_: object) -> None: ...

        async def submit(self, _job: object, *, timeout: float | None) -> "Confirming":
            waited.append(timeout)
            return self

    monkeypatch.setattr(submit, "Bus", Confirming)
    assert asyncio.run(submit.submit("cli", CloseBooks(), 2.5)) == "m-1"
    assert waited == [2.5]


def test_the_demonstrations_table_is_folded_and_never_cut_on_a_narrow_screen() -> None:
    written = io.StringIO()
    step = SimpleNamespace(
        name="event",
        outcome="documentation.document-generated.v1 received",
        at=1.0,
        took=0.1,
        correlation_id="c-1",
    )
    Console(file=written, width=60).print(table_of([step], "c-1"))
    assert "…" not in written.getvalue()
