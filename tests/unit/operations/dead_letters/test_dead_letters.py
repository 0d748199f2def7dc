from datetime import UTC, datetime
from typing import Any

import pytest

from bus.errors import ConfigurationError, NotFound
from bus.messaging.envelope import Envelope
from bus.messaging.failure_location import failure_frames, failure_location
from bus.messaging.fault_record import MAX_FRAMES_LENGTH, FailedBy, fault_headers, read_record
from bus.messaging.settlement import MoveToDeadLetters
from bus.messaging.topology.addresses import replay_address
from bus.messaging.topology.names import work_queue
from bus.operations.dead_letters import DeadLetter, FaultRecord, ReplayOptions, Selection
from bus.operations.dead_letters.replay import reset_for_replay
from bus.transports import wire_format as wire
from bus.transports.rabbitmq.amqp.properties import write_properties
from tests.unit.fakes import NOW, envelope, failed_far_away, raised

QUEUE, MS = "ledger.jobs.close.v1", int(NOW * 1000)
WORKER = FailedBy(service="ledger", host="host-1", version="1.4.2", trunkline="0.1.0")


def dead(**attributes: Any) -> Envelope:
    return envelope("ledger.close.v1", role="job", **attributes)


def letter(record: FaultRecord | None = None, **attributes: Any) -> DeadLetter:
    return DeadLetter(
        envelope=dead(**attributes), record=record or record_of(), dead_queue=f"{QUEUE}.dead"
    )


def record_of(code: str = "internal", last_at: int | None = MS) -> FaultRecord:
    return FaultRecord(by="worker", code=code, last_at=last_at, queue=QUEUE)


def death(**attributes: Any) -> dict[str, Any]:
    return {
        "reason": "delivery_limit",
        "queue": QUEUE,
        "count": 1,
        "time": datetime.fromtimestamp(NOW, UTC),
        **attributes,
    }


# --- Record ---


def test_a_record_is_read_as_it_was_written() -> None:
    decision = MoveToDeadLetters(code="not_found", reason="NotFound: no such year")
    error = raised(NotFound("no such year"))
    headers = fault_headers(
        dead(attempt=3, headers={"first-failed-at": MS - 5}),
        decision,
        error,
        queue=QUEUE,
        now=MS,
        worker=WORKER,
    )
    assert read_record(
        dead(attempt=3, headers=headers), {"x-delivery-count": 3}, work_queue=QUEUE
    ) == FaultRecord(
        by="worker",
        code="not_found",
        error="NotFound",
        reason="NotFound: no such year",
        where=failure_location(error),
        frames=failure_frames(error),
        attempts=3,
        first_at=MS - 5,
        last_at=MS,
        queue=QUEUE,
        service="ledger",
        host="host-1",
        version="1.4.2",
        trunkline="0.1.0",
    )


def test_a_long_traceback_keeps_its_innermost_frames_in_the_record() -> None:
    headers = fault_headers(
        dead(),
        MoveToDeadLetters(code="internal", reason="ValueError"),
        failed_far_away("Distant"),
        queue=QUEUE,
        now=MS,
        worker=WORKER,
    )
    record = read_record(dead(headers=headers), {}, work_queue=QUEUE)
    assert len(str(headers["dead-frames"])) <= MAX_FRAMES_LENGTH
    assert record.frames[-1] == record.where


def test_an_error_that_was_never_raised_leaves_its_place_out_of_the_record() -> None:
    decision = MoveToDeadLetters(code="internal", reason="ValueError")
    headers = fault_headers(dead(), decision, ValueError(), queue=QUEUE, now=MS, worker=WORKER)
    record = read_record(dead(headers=headers), {}, work_queue=QUEUE)
    assert (record.where, record.frames) == (None, ())
    assert "dead-where" not in headers


def test_a_record_survives_a_sender_who_fills_the_headers() -> None:
    full = {f"mine-{number}": "x" * 1000 for number in range(32)}
    headers = fault_headers(
        dead(headers=full),
        MoveToDeadLetters(code="internal", reason="ValueError"),
        ValueError(),
        queue=QUEUE,
        now=MS,
        worker=WORKER,
    )
    arrived = wire.decode(wire.encode(dead(headers=headers)), role="job", queue=None, received=MS)
    assert read_record(arrived, {}, work_queue=QUEUE).code == "internal"


def test_a_brokers_dead_letter_is_told_in_the_same_words() -> None:
    found = read_record(
        dead(attempt=2),
        {"x-death": [death(), death(reason="expired", queue="ledger.retry.1s")]},
        work_queue=QUEUE,
    )
    reason = f"the broker dead-lettered the message: delivery_limit in {QUEUE}"
    assert found == FaultRecord(
        by="broker",
        code="delivery_limit",
        reason=reason,
        attempts=2,
        first_at=MS,
        last_at=MS,
        queue=QUEUE,
    )


def test_a_message_that_a_worker_rejected_is_told_with_its_size_and_the_setting() -> None:
    notes = {"x-death": [death(reason="rejected")]}
    found = read_record(dead(body=b"12345"), notes, work_queue=QUEUE)
    assert (found.by, found.code) == ("broker", "rejected")
    assert found.reason == (
        f"a worker rejected the message in {QUEUE}. A worker of the bus rejects only a message "
        "that is larger than its BUS_MAX_MESSAGE, and this message has 5 bytes"
    )


def test_what_came_back_in_vain_is_unroutable_and_knows_its_work_queue() -> None:
    notes = {
        "x-death": [death(reason="expired", queue="ledger.retry.1s", **{"routing-keys": [QUEUE]})]
    }
    found = read_record(dead(attempt=2), notes, work_queue=None)
    assert (found.by, found.code, found.queue) == ("broker", "unroutable", QUEUE)
    assert (
        found.reason
        == "the work queue did not exist when the message returned from ledger.retry.1s"
    )


@pytest.mark.parametrize(
    "notes",
    [
        {
            "x-first-death-reason": "expired",
            "x-last-death-reason": "delivery_limit",
            "x-last-death-queue": QUEUE,
        },
        {"x-first-death-reason": "delivery_limit", "x-first-death-queue": QUEUE},
        {"x-death": ["nonsense"], "x-first-death-reason": "delivery_limit"},
    ],
    ids=["3.13 and later", "before 3.13", "an illegible list"],
)
def test_the_brokers_short_form_is_read_as_well(notes: dict[str, Any]) -> None:
    found = read_record(dead(), notes, work_queue=QUEUE)
    assert (found.by, found.code, found.queue, found.last_at) == (
        "broker",
        "delivery_limit",
        QUEUE,
        None,
    )


@pytest.mark.parametrize(
    "notes",
    [
        {"x-death": 7},
        {"x-death": []},
        {"x-death": [{"reason": 5, "queue": [], "time": "soon", "routing-keys": 3}]},
        {"x-last-death-reason": {}},
    ],
)
@pytest.mark.parametrize(
    "headers",
    [{}, {"dead-code": 5, "dead-at": "then", "dead-attempts": -1, "first-failed-at": True}],
)
@pytest.mark.parametrize("queue", [QUEUE, None])
def test_nothing_in_a_strange_record_is_believed_or_fatal(
    notes: dict[str, Any], headers: dict[str, Any], queue: str | None
) -> None:
    found = read_record(dead(headers=headers), notes, work_queue=queue)
    assert (found.last_at, found.first_at, found.queue, found.attempts) == (None, None, queue, 1)


def test_the_queue_of_dead_letters_tells_their_work_queue() -> None:
    assert work_queue(f"{QUEUE}.dead") == QUEUE
    assert work_queue("ledger.unroutable.dead") is None


# --- Selection ---


@pytest.mark.parametrize(
    ("selection", "fits"),
    [
        (Selection(), True),
        (Selection(ids=frozenset({"m-1", "m-2"})), True),
        (Selection(ids=frozenset({"m-2"})), False),
        (Selection(types=frozenset({"ledger.close.v1"}), codes=frozenset({"internal"})), True),
        (Selection(types=frozenset({"ledger.close.v1"}), codes=frozenset({"not_found"})), False),
        (Selection(correlation_id="c-1"), True),
        (Selection(correlation_id="c-2"), False),
        (Selection(since=MS, until=MS + 1), True),
        (Selection(since=MS + 1), False),
        (Selection(until=MS), False),
        (Selection(keys=frozenset({(f"{QUEUE}.dead", "office", "m-1", MS)})), True),
        (Selection(keys=frozenset({(f"{QUEUE}.dead", "another", "m-1", MS)})), False),
        (Selection(keys=frozenset()), False),
    ],
)
def test_a_selection_takes_what_fits_every_field(selection: Selection, fits: bool) -> None:
    assert selection.fits(letter()) is fits


def test_a_death_that_nobody_knows_the_time_of_fits_no_limit_of_time() -> None:
    timeless = letter(record_of(last_at=None))
    assert Selection().fits(timeless)
    assert not Selection(since=1).fits(timeless)
    assert not Selection(until=2 * MS).fits(timeless)


def test_a_letter_shows_no_body() -> None:
    assert "Quist" not in repr(letter(body=b"Eleonora Quist"))


# --- Replay ---


def replaying(**changes: Any) -> ReplayOptions:
    return ReplayOptions(by="ann@host-1", clock=lambda: NOW, **changes)


def test_a_revived_message_is_as_it_was_sent_but_for_its_history() -> None:
    headers: dict[str, str | int] = {
        "dead-code": "internal",
        "dead-at": 1,
        "first-failed-at": 1,
        "dependency-returns": 3,
        "dependency-failures": 2,
        "dependency-wait": 1,
        "mine": "kept",
    }
    died = dead(attempt=5, expires=MS + 1, reply_to="r", timestamp=7, headers=headers)
    again = reset_for_replay(
        letter(attempt=5, expires=MS + 1, reply_to="r", timestamp=7, headers=headers), replaying()
    )
    assert again == died.replace(
        attempt=1,
        headers={"replays": 1, "replayed-at": MS, "replayed-by": "ann@host-1", "mine": "kept"},
    )


@pytest.mark.parametrize("rate", [0, -1, float("nan")])
def test_a_rate_at_which_nothing_moves_is_refused(rate: float) -> None:
    with pytest.raises(ConfigurationError, match="above 0"):
        ReplayOptions(by="me", rate=rate)


def test_replays_are_counted() -> None:
    again = reset_for_replay(
        letter(headers={"replays": 2, "replayed-at": 1, "replayed-by": "bob"}), replaying()
    )
    assert again is not None
    assert again.headers == {"replays": 3, "replayed-at": MS, "replayed-by": "ann@host-1"}


@pytest.mark.parametrize("header", ["replays", "replayed-at", "first-failed-at"])
@pytest.mark.parametrize("value", [2**63 - 1, -(2**63), True, "x"])
def test_a_replay_can_be_sent_whatever_its_sender_wrote_of_replays(header: str, value: Any) -> None:
    """A copy that cannot be sent would end the replay before the dead letters behind it."""
    again = reset_for_replay(letter(headers={header: value}), replaying())
    assert again is not None
    write_properties(again)


def test_an_expired_message_stays_unless_it_is_given_more_time() -> None:
    assert reset_for_replay(letter(expires=MS), replaying()) is None
    again = reset_for_replay(letter(expires=MS), replaying(extend=60.0))
    assert again is not None
    assert again.expires == MS + 60_000


def test_time_that_is_left_is_not_touched() -> None:
    again = reset_for_replay(letter(expires=MS + 1), replaying(extend=60.0))
    assert again is not None
    assert again.expires == MS + 1


def test_a_replay_goes_to_the_subscription_that_failed_and_to_no_other() -> None:
    address = replay_address("ledger.events.office.moved.v1.index")
    assert (address.exchange, address.routing_key) == (
        "ledger.return",
        "ledger.events.office.moved.v1.index",
    )
    assert address.mandatory
    assert address.confirmed
