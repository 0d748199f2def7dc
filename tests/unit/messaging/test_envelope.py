import json

import pytest

from bus.errors import (
    BusError,
    Internal,
    InvalidArgument,
    InvalidResult,
    NotFound,
    Unavailable,
    Unknown,
    error_for,
)
from bus.messaging.envelope import ERROR_TYPE, Progress, error_reply, progress_update, reply
from tests.unit.fakes import envelope
from tests.unit.ledger import Total

SECRET = "Eleonora Quist"


def test_a_reply_keeps_the_ids_of_its_request() -> None:
    request = envelope(
        reply_to="here", traceparent="00-a", tracestate="b=c", deadline=5, expires=6, attempt=3
    )
    answer = reply(request, Total(total=1), source="ledger")
    assert (answer.type, answer.role, answer.source, answer.body) == (
        "ledger.add.v1.reply",
        "reply",
        "ledger",
        b'{"total":1}',
    )
    assert (answer.correlation_id, answer.causation_id, answer.in_reply_to) == ("c-1", "m-1", "m-1")
    assert (answer.traceparent, answer.tracestate) == ("00-a", "b=c")
    assert (answer.deadline, answer.expires, answer.attempt, answer.reply_to) == (
        None,
        None,
        1,
        None,
    )
    assert answer.id != request.id


def test_a_jobs_updates_are_no_replies() -> None:
    job = envelope("ledger.close.v1", role="job")
    update = progress_update(job, Progress(progress=0.5), source="ledger")
    assert (update.type, update.role, update.in_reply_to) == (
        "ledger.close.v1.progress",
        "update",
        "m-1",
    )
    assert reply(job, None, source="ledger").role == "update"


@pytest.mark.parametrize(
    "error",
    [
        ValueError(SECRET),
        KeyError(SECRET),
        Internal(SECRET),
        ExceptionGroup(SECRET, [ValueError(SECRET)]),
    ],
)
def test_the_text_of_a_fault_never_crosses(error: Exception) -> None:
    answer = error_reply(envelope(), error, source="ledger")
    assert (answer.type, answer.error) == (ERROR_TYPE, "internal")
    assert SECRET.encode() not in answer.body
    assert b"m-1" in answer.body


def test_an_error_of_the_bus_crosses_with_its_text_and_whether_it_may_have_acted() -> None:
    answer = error_reply(envelope(), NotFound("no such account"), source="ledger")
    assert json.loads(answer.body) == {
        "code": "not_found",
        "message": "no such account",
        "retryable": False,
        "maybe_executed": False,
    }
    answer = error_reply(envelope(), Unavailable("gone", maybe_executed=True), source="ledger")
    assert json.loads(answer.body)["maybe_executed"] is True


@pytest.mark.parametrize(
    ("members", "code", "message", "retryable"),
    [
        ([NotFound("no such account")], "not_found", "no such account", False),
        ([Unavailable("later")], "unavailable", "later", True),
        (
            [NotFound("a"), NotFound("b")],
            "not_found",
            "ExceptionGroup of 2 errors: NotFound: a; NotFound: b",
            False,
        ),
        (
            [NotFound("a"), InvalidArgument("b")],
            "internal",
            "ExceptionGroup of 2 errors: NotFound: a; InvalidArgument: b",
            False,
        ),
        ([NotFound("a"), Unavailable("b")], "internal", "ExceptionGroup of 2 errors: ", True),
        (
            [NotFound("a"), ValueError(SECRET)],
            "internal",
            "internal error while handling m-1",
            True,
        ),
        ([NotFound("a"), Internal(SECRET)], "internal", "internal error while handling m-1", True),
    ],
)
def test_a_group_crosses_as_its_error_or_as_what_its_errors_have_in_common(
    members: list[Exception], code: str, message: str, *, retryable: bool
) -> None:
    nested = ExceptionGroup(SECRET, [ExceptionGroup(SECRET, members)])
    answer = error_reply(envelope(), nested, source="ledger")
    body = json.loads(answer.body)
    assert (answer.error, body["code"], body["retryable"]) == (code, code, retryable)
    assert body["message"].startswith(message)
    assert SECRET.encode() not in answer.body


def test_an_invalid_result_crosses_as_an_internal_error_that_must_not_be_repeated() -> None:
    error = InvalidResult("ledger.add.v1: the handler returned str", maybe_executed=True)
    assert json.loads(error_reply(envelope(), error, source="ledger").body) == {
        "code": "internal",
        "message": "ledger.add.v1: the handler returned str",
        "retryable": False,
        "maybe_executed": True,
    }


def test_a_text_that_is_no_unicode_crosses_all_the_same() -> None:
    assert b"no ?" in error_reply(envelope(), NotFound("no \ud800"), source="ledger").body


def test_the_repr_hides_the_body() -> None:
    assert SECRET not in repr(envelope(body=SECRET.encode()))


def test_every_code_comes_back_as_its_class() -> None:
    def family(error: type[BusError]) -> list[type[BusError]]:
        return [error, *(each for child in error.__subclasses__() for each in family(child))]

    for error in family(BusError):
        back = error_for(error.code, "text")
        assert back.code == error.code
        assert issubclass(error, type(back)) or error is BusError
    unknown = error_for("sunspots", "text")
    assert isinstance(unknown, Unknown)
    assert str(unknown) == "text (unknown error code 'sunspots')"
    assert len(str(error_for("s" * 1000, "text"))) < 100


def test_an_error_without_a_text_says_its_code() -> None:
    assert str(NotFound()) == "not found"
