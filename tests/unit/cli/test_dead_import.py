"""`bus dead import`: files that are damaged, and imports that end early."""

import asyncio
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from threading import Thread
from typing import Any, cast

import pytest

from bus.cli import main
from bus.cli.dead import export_file
from bus.cli.dead.export_file import ExportedLetter, ExportReader, write
from bus.cli.dead.imports import Import
from bus.errors import BusError, ConnectionLost, InvalidArgument, NotFound, ResourceExhausted
from bus.messaging.envelope import Envelope
from bus.messaging.fault_record import FaultRecord
from bus.messaging.ports.transport import Accepted, Returned, Transport
from bus.operations.dead_letters import DeadLetter
from tests.unit.fakes import envelope, virtual

SECRET = "hunter2"


def letter(number: int, by: Any = "worker") -> DeadLetter:
    return DeadLetter(
        envelope=envelope(
            "billing.quote.v1",
            role="job",
            id=f"m-{number}",
            headers={"tenant": SECRET, "count": 1, "dead-code": "internal"},
            correlation_id="c",
            expires=1_900_000_000_000,
            proof="p.r.f",
        ).replace(body=b'{"name": "hunter2"}'),
        record=FaultRecord(by=by, code="internal", reason="E", attempts=5, last_at=7, queue="q"),
        dead_queue="q.dead",
    )


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Return an export of three dead letters."""
    path = tmp_path / "letters.jsonl"
    write(path, [letter(1), letter(2, by="broker"), letter(3)])
    return path


def refused(file: Path, *options: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(("dead", "import", str(file), *options))
    assert isinstance(ended.value.code, int)
    return ended.value.code


def edited(change: Callable[[dict[str, Any]], object]) -> Callable[[bytes], bytes]:
    """Return a function that changes the JSON object of a line."""

    def edit(line: bytes) -> bytes:
        value = json.loads(line)
        change(value)
        return json.dumps(value).encode() + b"\n"

    return edit


def at(path: str, value: Any) -> Callable[[bytes], bytes]:
    """Return a function that sets a member of a line."""
    *parents, name = path.split(".")

    def change(line: dict[str, Any]) -> None:
        for parent in parents:
            line = line[parent]
        line[name] = value

    return edited(change)


def without(path: str) -> Callable[[bytes], bytes]:
    *parents, name = path.split(".")

    def change(line: dict[str, Any]) -> None:
        for parent in parents:
            line = line[parent]
        del line[name]

    return edited(change)


def raw(old: bytes, new: bytes) -> Callable[[bytes], bytes]:
    return lambda line: line.replace(old, new, 1)


NO_NUMBER = "field message.attempt must be a whole number, not "
DAMAGES: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "deep": (lambda _: b"[" * 200_000 + b"]" * 200_000 + b"\n", "is nested too deeply"),
    "deep in a field": (
        raw(b'"broker":{}', b'"broker":' + b'{"a":' * 100_000 + b"1" + b"}" * 100_001),
        "is nested too deeply",
    ),
    "array": (lambda _: b"[]\n", "must be an object, not an array"),
    "null": (lambda _: b"null\n", "must be an object, not null"),
    "empty line": (lambda _: b"\n", "is empty"),
    "binary": (lambda _: bytes(range(128, 256)) * 50 + b"\n", "is not UTF-8"),
    "NUL": (lambda line: b"\0" + line, "is not JSON: Expecting value in column 1"),
    "NUL in a text": (raw(b"m-2", b"m\0"), "is not JSON: Invalid control character at"),
    "truncated": (lambda line: line[:40] + b"\n", "is not JSON: "),
    "UTF-8 of a surrogate": (raw(b"m-2", b"\xed\xa0\x80"), "is not UTF-8"),
    "lone surrogate": (raw(b"m-2", b"\\ud800"), "field message.id has a lone surrogate"),
    "surrogate header": (
        raw(b'"tenant":"hunter2"', b'"tenant":"\\ud800"'),
        "field headers, entry 1, has a lone surrogate",
    ),
    "doubled key": (
        raw(b'"body":', b'"body":"","body":'),
        "has an object with a doubled key",
    ),
    "doubled header": (
        raw(b'"count":1', b'"count":1,"count":2'),
        "has an object with a doubled key",
    ),
    "NaN": (raw(b'"attempt":1', b'"attempt":NaN'), "has the number NaN"),
    "infinity": (raw(b'"count":1', b'"count":-Infinity'), "has the number -Infinity"),
    "1e400": (raw(b'"attempt":1', b'"attempt":1e400'), "has a number that is too large"),
    "digits": (raw(b'"attempt":1', b'"attempt":' + b"9" * 9000), "too many digits"),
    "text attempt": (at("message.attempt", "1"), f"{NO_NUMBER}text"),
    "true attempt": (at("message.attempt", True), f"{NO_NUMBER}a boolean"),
    "fraction": (at("message.attempt", 1.5), f"{NO_NUMBER}a number with a fraction"),
    "null attempt": (at("message.attempt", None), f"{NO_NUMBER}null"),
    "attempt 0": (at("message.attempt", 0), "field message.attempt must be 1 to 9007199254740991"),
    "huge attempt": (at("message.attempt", 2**70), "field message.attempt must be 1 to"),
    "text expires": (at("message.expires", "soon"), "field message.expires must be a whole number"),
    "old timestamp": (at("message.timestamp", -1), "field message.timestamp must be 0 to"),
    "far timestamp": (at("message.timestamp", 2**60), "field message.timestamp must be 0 to"),
    "number id": (at("message.id", 7), "field message.id must be text, not a whole number"),
    "empty id": (at("message.id", ""), "field message.id must have 1 to 255 bytes"),
    "long id": (at("message.id", "ä" * 128), "field message.id must have 1 to 255 bytes"),
    "long type": (at("message.type", "x" * 256), "field message.type must have 0 to 255 bytes"),
    "null source": (at("message.source", None), "field message.source must be text, not null"),
    "long correlation": (at("message.correlation_id", "x" * 1025), "at most 1024 characters"),
    "number proof": (at("message.proof", 1), "field message.proof must be text"),
    "long proof": (at("message.counter_proof", "x" * 10_000), "must have 0 to 9216 bytes"),
    "null message": (at("message", None), "field message must be an object, not null"),
    "array message": (at("message", []), "field message must be an object, not an array"),
    "text record": (at("record", "x"), "field record must be an object, not text"),
    "array by": (at("record.by", ["broker"]), "field record.by must be 'worker'"),
    "number code": (at("record.code", 5), "field record.code must be text"),
    "object reason": (at("record.reason", {}), "field record.reason must be text, not an object"),
    "text attempts": (at("record.attempts", "5"), "field record.attempts must be a whole number"),
    "array headers": (at("headers", []), "field headers must be an object, not an array"),
    "null header": (at("headers.tenant", None), "entry 1, must be text or a whole number"),
    "nested header": (at("headers.tenant", {"a": 1}), "entry 1, must be text or a whole number"),
    "fraction header": (at("headers.count", 1.5), "entry 2, must be text or a whole number"),
    "huge header": (at("headers.count", 2**64), "entry 2, has a number with more than 64 bits"),
    "long header": (at("headers", {"x" * 256: 1}), "entry 1, has a name that a header cannot"),
    "own header": (at("headers", {"expires": "x"}), "entry 1, has a name that a header cannot"),
    "large headers": (at("headers.tenant", "x" * 70_000), "field headers has more than 65536"),
    "number body": (at("body", 1), "field body must be text, not a whole number"),
    "no base64": (at("body", "hunter2!"), "field body is not base64"),
    "number queue": (at("queue", 1), "field queue must be text, not a whole number"),
    "null queue": (at("queue", None), "field queue must be text, not null"),
    "long queue": (at("queue", "q" * 256), "field queue must have 1 to 255 bytes"),
    "no queue": (without("queue"), "has no field queue"),
    "no record": (without("record"), "has no field record"),
    "no code": (without("record.code"), "has no field record.code"),
    "no id": (without("message.id"), "has no field message.id"),
    "no headers": (without("headers"), "has no field headers"),
    "no body": (without("body"), "has no field body"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_line_is_refused_by_its_number_before_anything_is_sent(
    damage: str, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change, problem = DAMAGES[damage]
    one, two, three = file.read_bytes().splitlines(keepends=True)
    assert change(two) != two
    file.write_bytes(one + change(two) + three)
    assert refused(file) == os.EX_DATAERR
    error = capsys.readouterr().err
    assert f"error: file {file}: line 2 " in error
    assert problem in error
    assert error.endswith("Correct or remove this line. Nothing was put back.\n")
    assert SECRET not in error


def test_a_last_line_that_was_cut_off_is_refused_as_such(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file.write_bytes(file.read_bytes()[:-30])
    assert refused(file) == os.EX_DATAERR
    assert "line 3 is not JSON: " in (error := capsys.readouterr().err)
    assert "The end of the file may be missing" in error


def test_a_byte_order_mark_at_the_start_of_the_file_is_ignored(file: Path) -> None:
    with ExportReader(file) as plain:
        expected = list(plain)
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    with ExportReader(file) as marked:
        assert list(marked) == expected


def test_a_file_in_utf_16_is_refused_with_advice(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file.write_bytes(file.read_text(encoding="utf-8").encode("utf-16"))
    assert refused(file) == os.EX_DATAERR
    assert "line 1 is UTF-16 text, and must be UTF-8" in capsys.readouterr().err


def test_a_line_without_an_end_is_refused(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(export_file, "MAX_LINE_BYTES", 100_000)
    assert refused(Path("/dev/zero")) == os.EX_DATAERR
    assert "line 1 has more than 100000 bytes" in capsys.readouterr().err
    with file.open("ab") as end:
        end.write(b" " * 200_000)
    assert refused(file) == os.EX_DATAERR
    assert "line 4 has more than 100000 bytes" in capsys.readouterr().err


def test_a_folder_and_a_missing_file_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert refused(tmp_path) == os.EX_DATAERR
    assert "cannot be read: Is a directory. Nothing was put back." in capsys.readouterr().err
    assert refused(tmp_path / "gone") == os.EX_NOINPUT
    assert "does not exist. Nothing was put back." in capsys.readouterr().err


def test_an_import_can_begin_with_a_later_line(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with ExportReader(file, first_line=3) as letters:
        assert [(each.line, each.message.id) for each in letters] == [(3, "m-3")]
    with ExportReader(file, first_line=4) as letters:
        assert [*letters] == []
    assert refused(file, "--from-line", "5") == os.EX_DATAERR
    assert "has only 3 lines" in capsys.readouterr().err


def test_an_export_without_dead_letters_can_be_imported(tmp_path: Path) -> None:
    write(tmp_path / "none", [])
    with ExportReader(tmp_path / "none") as letters:
        assert [*letters] == []


def test_what_was_exported_is_read_back_from_a_file_and_from_a_pipe(
    file: Path, tmp_path: Path
) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = Thread(target=lambda: pipe.write_bytes(file.read_bytes()))
    writer.start()
    for path in (file, pipe):
        with ExportReader(path) as letters:
            for number, (each, sent) in enumerate(
                zip(letters, (letter(1), letter(2, by="broker"), letter(3)), strict=True), start=1
            ):
                assert (each.line, each.queue) == (number, "q")
                headers = {**each.message.headers, **sent.envelope.headers}
                assert each.message.replace(headers={}) == sent.envelope.replace(headers={})
                assert each.message.headers == headers
    writer.join()


# --- Imports that end early ---


class Broker:
    """A transport that answers the numbered sends with an outcome or an error."""

    def __init__(self, **answers: object) -> None:
        self._answers = answers
        self.sent: list[str] = []

    async def send(self, message: Envelope, _address: object, *, timeout: float) -> object:
        answer = self._answers.get(message.id.replace("-", ""), Accepted())
        if isinstance(answer, BaseException):
            raise answer
        if answer is None:
            await asyncio.sleep(timeout * 1000)
        self.sent.append(message.id)
        return answer


LETTERS = [
    ExportedLetter(line=number, queue="q", message=letter(number).envelope) for number in (1, 2, 3)
]


async def imported(first_line: int = 1, **answers: object) -> tuple[str, BaseException | None]:
    """Return what the user reads, and the error, if these messages are not accepted."""
    importing = Import(first_line)
    try:
        letters = [each for each in LETTERS if each.line >= first_line]
        await importing.send(cast("Transport", Broker(**answers)), letters)
    except BusError as error:
        return importing.outcome(), error
    return importing.outcome(), None


@virtual
async def test_a_refused_dead_letter_is_named_with_the_lines_before_it() -> None:
    text, error = await imported(m3=Returned(reason="NO_ROUTE"))
    assert isinstance(error, NotFound)
    assert str(error).startswith("line 3: queue q has no dead-letter queue on this broker.")
    assert text == "Lines 1 to 2 were put back. Continue with --from-line 3."
    text, error = await imported(m1=Returned(reason="full"))
    assert isinstance(error, ResourceExhausted)
    assert text == "Nothing was put back."
    assert (await imported(2, m3=Returned(reason="full")))[0] == (
        "Line 2 was put back. Continue with --from-line 3."
    )


@virtual
async def test_a_lost_connection_names_the_line_that_may_have_been_put_back() -> None:
    text, error = await imported(m2=ConnectionLost("gone.", maybe_executed=True))
    assert isinstance(error, ConnectionLost)
    assert text == (
        "Line 1 was put back. Line 2 may have been put back, too. Search for its id with "
        "`bus dead list`, and continue with --from-line 2 or 3."
    )
    text, _ = await imported(m2=ConnectionLost("gone.", maybe_executed=False))
    assert text == "Line 1 was put back. Continue with --from-line 2."


@virtual
async def test_an_interrupted_import_says_what_was_put_back() -> None:
    importing = Import(1)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(5):
            await importing.send(cast("Transport", Broker(m2=None)), LETTERS)
    assert importing.outcome().startswith("Line 1 was put back. Line 2 may have been put back")


def test_the_command_prints_what_was_done_after_an_error_and_after_ctrl_c(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    broker: list[Broker] = []
    audit: list[dict[str, object]] = []
    monkeypatch.setattr(
        "bus.cli.dead.imports.run",
        lambda work, *_: asyncio.run(work(cast("Transport", broker[-1]), [])),
    )
    monkeypatch.setattr("bus.cli.dead.imports.audited", lambda _, **facts: audit.append(facts))
    broker.append(Broker(m3=Returned(reason="NO_ROUTE")))
    assert refused(file) == os.EX_NOINPUT
    error = capsys.readouterr().err
    assert error.endswith("declares it. Lines 1 to 2 were put back. Continue with --from-line 3.\n")
    broker.append(Broker(m2=KeyboardInterrupt()))
    assert refused(file) == 130
    assert capsys.readouterr().err.startswith("Line 1 was put back. Line 2 may have been")
    broker.append(Broker())
    assert refused(file, "--from-line", "3") == 0
    assert broker[-1].sent == ["m-3"]
    assert [each["letters"] for each in audit] == [2, 1, 1]


def test_a_file_that_changes_during_the_import_is_refused_with_what_was_done(file: Path) -> None:
    large = replace(letter(3), envelope=letter(3).envelope.replace(body=b"x" * 200_000))
    file.unlink()
    write(file, [letter(1), letter(2), large])
    with ExportReader(file) as letters:
        lines = iter(letters)
        assert next(lines).line == 1
        file.write_bytes(file.read_bytes()[:-30])
        with pytest.raises(InvalidArgument, match="line 3 is not JSON"):
            for _ in lines:
                pass
