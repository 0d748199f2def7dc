import logging as levels
from typing import Any

import pytest
from typing_extensions import override

from bus.errors import ContractError, Internal, NotFound
from bus.messaging.envelope import Envelope
from bus.middleware import logging as module
from bus.middleware.logging import logging
from tests.unit.fakes import envelope, virtual

SECRET = "Eleonora Quist"
MESSAGE = envelope(body=SECRET.encode(), headers={"note": SECRET})


async def fine(_: Envelope) -> None:
    return


async def refusing(_: Envelope) -> None:
    raise NotFound("no such account")


async def broken(_: Envelope) -> None:
    raise ValueError(SECRET)


class Mute(NotFound):
    """A user's error that raises when its text is read."""

    @override
    def __str__(self) -> str:
        raise KeyError(SECRET)


async def through(
    side: str, handler: Any, message: Envelope = MESSAGE, *, level: int = levels.DEBUG
) -> None:
    policy = logging(side, timer=iter([1.0, 1.25]).__next__, level=level)
    await policy(handler)(message)


def raising(error: Exception) -> Any:
    async def handler(_: Envelope) -> None:
        raise error

    return handler


@virtual
async def test_what_went_well_is_one_debug_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG", "bus.messages")
    await through("handled", fine)
    (record,) = caplog.records
    facts = vars(record)
    assert (record.levelname, record.getMessage()) == (
        "DEBUG",
        "ledger.add.v1 m-1 handled in 250.0 ms (from office, attempt 1, correlation c-1)",
    )
    assert (
        facts["type"],
        facts["message_id"],
        facts["correlation_id"],
        facts["attempt"],
        facts["source"],
        facts["ms"],
    ) == (
        "ledger.add.v1",
        "m-1",
        "c-1",
        1,
        "office",
        250.0,
    )


@pytest.mark.parametrize(
    ("side", "handler", "level", "facts"),
    [
        ("handled", refusing, "INFO", {"code": "not_found", "text": "no such account"}),
        ("handled", broken, "ERROR", {"code": "internal", "error": "ValueError"}),
        ("sent", refusing, "DEBUG", {"code": "not_found"}),
        ("sent", broken, "DEBUG", {"error": "ValueError"}),
    ],
)
def test_a_failure_is_a_line_without_payload_or_foreign_text(
    side: str, handler: object, level: str, facts: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    @virtual
    async def run() -> None:
        with pytest.raises((NotFound, ValueError)):
            await through(side, handler)

    caplog.set_level("DEBUG", "bus.messages")
    run()
    (record,) = caplog.records
    assert record.levelname == level
    assert facts.items() <= vars(record).items()
    assert SECRET not in str(vars(record)) + caplog.text


@virtual
async def test_the_place_of_a_fault_is_told(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(ValueError, match=SECRET):
        await through("handled", broken)
    assert "test_logging.py:" in vars(caplog.records[0])["where"]


@virtual
async def test_nothing_is_computed_for_a_line_that_is_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_facts", lambda _: pytest.fail("computed"))
    monkeypatch.setattr(levels.getLogger("bus.messages"), "disabled", True)
    await through("handled", fine)
    with pytest.raises(ValueError, match=SECRET):
        await through("handled", broken)


@virtual
async def test_an_application_without_any_set_up_finds_nothing_on_its_output(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(NotFound):
        await through("handled", refusing)
    with pytest.raises(ValueError, match=SECRET):
        await through("handled", broken)
    assert capsys.readouterr().out == ""


UUID = "a067102e-7f0b-4c39-9a3c-2f6d4c0f9a11"


@pytest.mark.parametrize(
    ("side", "handler", "message", "line"),
    [
        (
            "handled",
            refusing,
            MESSAGE,
            "ledger.add.v1 m-1 failed after 250.0 ms: NotFound: no such account (",
        ),
        ("handled", broken, MESSAGE, "ledger.add.v1 m-1 failed after 250.0 ms: ValueError at "),
        (
            "handled",
            broken,
            envelope(id=UUID, attempt=3),
            "ledger.add.v1 a067102e failed after 250.0 ms in attempt 3: ValueError at ",
        ),
        (
            "sent",
            refusing,
            MESSAGE,
            "sending ledger.add.v1 m-1 failed after 250.0 ms: NotFound: no such account (",
        ),
    ],
)
def test_a_failures_line_says_alone_what_failed_and_why_and_where(
    side: str, handler: Any, message: Envelope, line: str, caplog: pytest.LogCaptureFixture
) -> None:
    @virtual
    async def run() -> None:
        with pytest.raises((NotFound, ValueError)):
            await through(side, handler, message)

    caplog.set_level("DEBUG", "bus.messages")
    run()
    assert caplog.messages[0].startswith(line)
    assert "test_logging.py:" in caplog.messages[0].removeprefix(line)


@pytest.mark.parametrize(("role", "line"), [("request", "answered"), ("job", "sent")])
def test_the_line_of_a_sent_message_says_if_it_was_answered(
    role: Any, line: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG", "bus.messages")
    virtual(through)("sent", fine, envelope(role=role))
    assert caplog.messages == [f"ledger.add.v1 m-1 {line} in 250.0 ms"]


@pytest.mark.parametrize(
    "error",
    [
        Internal("the handler of ledger.add.v1 returned coroutine, not Total"),
        ContractError("library.due.v1: the event belongs to library, not to ledger."),
        TypeError("handler() takes 1 positional argument but 2 were given"),
    ],
    ids=["wrong return type", "wrong message", "wrong call"],
)
def test_a_programming_error_is_logged_at_level_error(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    @virtual
    async def run() -> None:
        with pytest.raises(type(error)):
            await through("handled", raising(error))

    run()
    assert [record.levelname for record in caplog.records] == ["ERROR"]


def test_an_error_whose_text_cannot_be_read_reaches_the_caller_unchanged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    @virtual
    async def run() -> None:
        with pytest.raises(Mute):
            await through("handled", raising(Mute()))

    caplog.set_level("INFO", "bus.messages")
    run()
    assert "Mute: its text cannot be read (" in caplog.messages[0]
    assert SECRET not in str(vars(caplog.records[0])) + caplog.text


def test_a_text_of_another_service_cannot_forge_a_line(caplog: pytest.LogCaptureFixture) -> None:
    @virtual
    async def run() -> None:
        with pytest.raises(NotFound):
            await through("handled", raising(NotFound("gone\nERROR paid")), forged)

    forged = envelope("ledger\nERROR.v1", id="m\r\n1", source="off\x1b[2Jice")
    caplog.set_level("DEBUG", "bus.messages")
    run()
    virtual(through)("handled", fine, forged)
    assert [each.isprintable() for each in caplog.messages] == [True, True]
    assert caplog.messages[0].startswith(
        "ledger ERROR.v1 m 1 failed after 250.0 ms: NotFound: gone"
    )


def test_the_line_of_a_success_has_the_level_that_is_chosen(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO", "bus.messages")
    virtual(through)("handled", fine)
    virtual(through)("handled", fine, level=levels.INFO)
    assert [record.levelname for record in caplog.records] == ["INFO"]
