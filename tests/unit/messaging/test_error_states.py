"""The members `executed` and `retry_after` of an error reply, and their values at the caller."""

import json
from typing import Any

import pytest

from bus.errors import (
    BusError,
    DeadlineExceeded,
    Executed,
    InvalidResult,
    NotFound,
    NotServed,
    ResourceExhausted,
    Unavailable,
    executed_of,
)
from bus.messaging.envelope import error_reply
from bus.messaging.error_state import MAX_RETRY_AFTER_SECONDS, mark_as_call_error, retry_after_of
from bus.messaging.resends import mark_in_doubt
from bus.runtime.pending_request import check_reply
from tests.unit.fakes import envelope


def called(error: BusError) -> BusError:
    """Return an error that a call of the bus has raised."""
    mark_as_call_error(error)
    return error


def of_service(error: BusError) -> BusError:
    error.origin = "service"
    return error


def timed_out() -> BusError:
    return of_service(DeadlineExceeded("no reply", maybe_executed=True))


def body_of(error: BaseException, *, has_run: bool) -> dict[str, Any]:
    body = error_reply(envelope(), error, source="ledger", has_run=has_run).body
    decoded: dict[str, Any] = json.loads(body)
    return decoded


def received(**members: Any) -> BusError:
    """Return the error that a caller gets from an error reply with these members."""
    body = {"code": "unavailable", "message": "later", "retryable": True, **members}
    answer = error_reply(envelope(), Unavailable(), source="ledger")
    with pytest.raises(BusError) as raised:
        check_reply(answer.replace(body=json.dumps(body).encode()), "ledger.add.v1")
    return raised.value


# --- What a service sends ---


def test_an_error_reply_states_the_number_of_copies_only_if_it_answers_more_than_one() -> None:
    one, two = (
        json.loads(error_reply(envelope(), Unavailable(), source="ledger", copies=copies).body)
        for copies in (1, 2)
    )
    assert "copies" not in one
    assert two["copies"] == 2
    assert received(copies=2).answered_copies == 2
    assert received().answered_copies == 1


@pytest.mark.parametrize(
    ("error", "executed"),
    [
        (Unavailable("shed"), "no"),
        (NotFound("x"), "no"),
        (ValueError("x"), "no"),
        (Unavailable("twice", maybe_executed=True), None),
        (Unavailable("x", executed="maybe"), None),
        (Unavailable("x", executed="yes"), "yes"),
    ],
)
def test_a_message_that_a_stage_refuses_was_not_executed_unless_it_is_in_doubt(
    error: BaseException, executed: Executed | None
) -> None:
    assert body_of(error, has_run=False).get("executed") == executed


@pytest.mark.parametrize(
    ("error", "executed"),
    [
        (Unavailable("x"), None),
        (ValueError("x"), None),
        (Unavailable("x", executed="no"), "no"),
        (Unavailable("x", executed="no", maybe_executed=True), None),
        (Unavailable("x", executed="yes"), "yes"),
        (called(Unavailable("breaker", executed="no")), None),
        (of_service(Unavailable("x", executed="no")), None),
        (NotServed("x", executed="no"), None),
        (ExceptionGroup("x", [Unavailable("x", executed="no")]), "no"),
        (ExceptionGroup("x", [Unavailable("x", executed="no"), Unavailable("y")]), None),
        (ExceptionGroup("x", [Unavailable("x", executed="no"), ValueError("y")]), None),
    ],
)
def test_only_the_claim_of_the_handler_itself_is_sent(
    error: BaseException, executed: Executed | None
) -> None:
    assert body_of(error, has_run=True).get("executed") == executed


def test_an_error_that_is_raised_again_states_nothing_about_the_second_handler() -> None:
    answer = error_reply(envelope(), Unavailable("x"), source="ledger", has_run=False)
    with pytest.raises(Unavailable) as raised:
        check_reply(answer, "ledger.add.v1")
    assert executed_of(raised.value) == "no"
    assert "executed" not in body_of(raised.value, has_run=True)


def test_the_time_after_which_the_caller_may_try_again_crosses_also_through_a_handler() -> None:
    error = of_service(ResourceExhausted("full", retry_after=2.5))
    assert body_of(error, has_run=True)["retry_after"] == 2.5
    group = ExceptionGroup("x", [error, Unavailable(retry_after=4)])
    assert body_of(group, has_run=True)["retry_after"] == 4


def test_a_member_without_a_value_is_not_sent() -> None:
    assert body_of(NotFound("x"), has_run=True).keys() == {
        *("code", "message", "retryable", "maybe_executed")
    }


@pytest.mark.parametrize(
    "value",
    ["soon", True, -1, -0.5, float("nan"), float("inf"), float("-inf"), [], object(), 1j],
)
def test_a_wait_that_is_not_a_number_of_seconds_is_not_sent(value: Any) -> None:
    assert "retry_after" not in body_of(Unavailable("x", retry_after=value), has_run=True)


@pytest.mark.parametrize("value", ["never", 7, [], object(), ""])
def test_an_unknown_value_of_executed_is_not_sent(value: Any) -> None:
    for has_run in (True, False):
        assert "executed" not in body_of(Unavailable("x", executed=value), has_run=has_run)


@pytest.mark.parametrize("value", [86_401, 1e9, 10**400])
def test_a_wait_of_more_than_a_day_is_sent_as_a_day(value: float) -> None:
    sent = body_of(Unavailable("x", retry_after=value), has_run=True)["retry_after"]
    assert sent == MAX_RETRY_AFTER_SECONDS


def test_an_invalid_result_crosses_as_executed_only_if_the_handler_says_so() -> None:
    assert "executed" not in body_of(InvalidResult("x", maybe_executed=True), has_run=True)


@pytest.mark.parametrize("has_run", [True, False], ids=["handler", "stage"])
def test_a_statement_about_the_last_attempt_is_not_about_earlier_ones(*, has_run: bool) -> None:
    error = Unavailable("x", executed="no")
    sent = error_reply(envelope(), error, source="l", has_run=has_run, is_repeated=True)
    assert "executed" not in json.loads(sent.body)


# --- What a caller receives ---


@pytest.mark.parametrize(
    ("members", "executed", "maybe_executed"),
    [
        ({}, "maybe", False),
        ({"maybe_executed": True}, "maybe", True),
        ({"executed": "no"}, "no", False),
        ({"executed": "maybe"}, "maybe", False),
        ({"executed": "yes"}, "yes", True),
        ({"executed": "no", "maybe_executed": True}, "maybe", True),
        ({"executed": "perhaps"}, "maybe", False),
        ({"executed": None}, "maybe", False),
    ],
)
def test_a_caller_reads_whether_a_request_was_executed(
    members: dict[str, Any], executed: Executed, *, maybe_executed: bool
) -> None:
    error = received(**members)
    assert (executed_of(error), error.maybe_executed) == (executed, maybe_executed)
    assert error.origin == "service"


@pytest.mark.parametrize(
    ("sent", "read"),
    [(0, 0), (2.5, 2.5), (1e9, MAX_RETRY_AFTER_SECONDS), (-1, None), (None, None)],
)
def test_a_caller_reads_a_wait_of_at_most_a_day(sent: float | None, read: float | None) -> None:
    assert received(retry_after=sent).retry_after == read


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_a_hostile_number_is_not_a_wait(text: str) -> None:
    answer = error_reply(envelope(), Unavailable(), source="ledger")
    body = answer.body.replace(b'"retryable"', f'"retry_after":{text},"retryable"'.encode())
    with pytest.raises(BusError) as raised:
        check_reply(answer.replace(body=body), "ledger.add.v1")
    assert raised.value.retry_after is None
    assert executed_of(raised.value) == "maybe"


@pytest.mark.parametrize("members", [{"executed": 1}, {"retry_after": "soon"}])
def test_an_error_reply_of_another_form_is_in_doubt(members: dict[str, Any]) -> None:
    error = received(**members)
    assert (error.code, executed_of(error), error.origin) == (
        "invalid_argument",
        "maybe",
        "service",
    )


def test_a_later_error_keeps_the_doubt_of_an_earlier_attempt() -> None:
    error = mark_in_doubt(received(executed="no"))
    assert (type(error), executed_of(error), error.maybe_executed) == (Unavailable, "maybe", True)


def test_the_state_of_an_operation_is_an_attribute_that_an_application_can_replace() -> None:
    class Booked(Unavailable):
        def __init__(self) -> None:
            super().__init__("booked")
            self.executed = True  # type: ignore[assignment]

    assert (Unavailable(executed="no").executed, timed_out().executed) == ("no", "maybe")
    assert Booked().executed
    assert "executed" not in body_of(Booked(), has_run=True)


def test_a_claim_is_void_if_the_error_is_in_doubt() -> None:
    assert executed_of(Unavailable("x", executed="no", maybe_executed=True)) == "maybe"
    assert retry_after_of(ValueError("x")) is None
