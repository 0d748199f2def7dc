"""Output on terminals whose encoding lacks characters."""

import io
import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pydantic import SecretStr

from bus.cli import main
from bus.cli.dead.export_file import ExportReader, write
from bus.cli.dead.messages import progress
from bus.cli.dead.table import details, format_payload, show_table
from bus.cli.errors import Reporter
from bus.cli.output import print_json, say, table_console
from bus.cli.terminal_encoding import accept_any_text
from bus.errors import NotFound
from bus.messaging.fault_record import FaultRecord
from bus.operations.dead_letters import DeadLetter
from bus.operations.logging import configure_logging
from bus.settings import Settings
from tests.unit.fakes import envelope
from tests.unit.logging_state import restored_logging

ALL = "ä € … ☃ \U0001f4af \ud800 │"
"""Characters that some or all of the encodings lack."""

pytestmark = pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])


class Streams:
    """Standard output and standard error in another encoding."""

    def __init__(self, encoding: str) -> None:
        self._files = [io.TextIOWrapper(io.BytesIO(), encoding=encoding) for _ in range(2)]
        self.out, self.err = self._files

    def text(self) -> str:
        """Return what was written to both streams."""
        for file in self._files:
            file.flush()
        return "".join(file.buffer.getvalue().decode(file.encoding) for file in self._files)


@contextmanager
def streams(encoding: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Streams]:
    both = Streams(encoding)
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", both.out)
        patch.setattr(sys, "stderr", both.err)
        accept_any_text()
        yield both


def letter(text: str = ALL) -> DeadLetter:
    sent = envelope("library.scan.v1", role="job", id="m-1", headers={"mine": text})
    body = json.dumps({"title": text}).encode()
    record = FaultRecord(by="worker", code="internal", where=text, reason=text)
    return DeadLetter(
        envelope=sent.replace(body=body), record=record, dead_queue="library.jobs.scan.v1.dead"
    )


def test_json_stays_valid_in_every_encoding(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for compact in (True, False):
        with streams(encoding, monkeypatch) as written:
            print_json({ALL: ALL}, compact=compact)
        assert json.loads(written.text()) == {ALL: ALL}
    with streams(encoding, monkeypatch):
        assert json.loads(format_payload(letter())) == {"title": ALL}


def test_characters_that_the_encoding_has_stay_in_json(
    encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with streams(encoding, monkeypatch) as written:
        print_json("ä", compact=True)
    assert written.text() == ('"\\u00e4"\n' if encoding == "ascii" else '"ä"\n')


def test_tables_errors_and_progress_are_written_in_every_encoding(
    encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with streams(encoding, monkeypatch) as written:
        monkeypatch.setenv("FORCE_COLOR", "1")
        show_table([letter()], table_console())
        table_console().print(details(letter(), now=1))
        say(ALL)
        Reporter(debug=True)._print_error(NotFound(ALL))
        with progress(ALL, 1, {}), table_console().status(ALL):
            pass
    text = written.text()
    assert "Traceback" not in text.replace("NotFound", "")
    assert text.count("\\u2603") == text.count("\\U0001f4af") > 4
    assert "\\u2026" not in text, "an ellipsis is written as dots"


@pytest.mark.parametrize("command", ["", "dead list", "keys new", "grants check"])
def test_help_is_written_in_every_encoding(
    command: str, encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with streams(encoding, monkeypatch) as written, pytest.raises(SystemExit) as ended:
        main([*command.split(), "--help"])
    assert (ended.value.code, "Usage: bus" in written.text()) == (0, True)
    assert "\\u" not in written.text()


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_the_log_of_a_worker_is_written_in_every_encoding(
    log_format: str, encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with restored_logging(), streams(encoding, monkeypatch) as written:
        settings = Settings(url=SecretStr("amqp://localhost"), log_format=log_format)  # type: ignore[arg-type]
        configure_logging(settings)
        logging.getLogger("shop").warning(ALL, extra={"title": ALL})
        text = written.text()
    assert "Logging error" not in text
    if log_format == "json":
        assert json.loads(text)["title"] == ALL
    else:
        assert "\\u2603" in text


def test_dead_letters_are_exported_in_utf_8_whatever_the_encoding_is(
    encoding: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exported = letter(ALL.replace("\ud800", ""))  # no message of RabbitMQ has a lone surrogate
    with streams(encoding, monkeypatch):
        write(tmp_path / "letters", [exported])
    with ExportReader(tmp_path / "letters") as letters:
        assert [each.message.body for each in letters] == [exported.envelope.body]


CONTRACTS = """
from bus import Request, contract

@contract("snow.fall", version=1)
class Fall(Request[None]):
    \"\"\"Snow falls: ☃\"\"\"
"""


def test_the_program_itself_writes_in_every_encoding(encoding: str, tmp_path: Path) -> None:
    (tmp_path / "contracts.py").write_text(CONTRACTS, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "bus.cli", "contracts", "show", "snow.fall"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONIOENCODING": encoding, "LANG": "C", "PYTHONUTF8": "0"},
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"Snow falls: \\u2603" in done.stdout
