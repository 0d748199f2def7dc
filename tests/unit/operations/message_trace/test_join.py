"""Tests of the join of remembered messages, dead letters and queues to one trace."""

from collections.abc import Sequence
from typing import Any

import pytest

from bus.messaging.envelope import Envelope
from bus.messaging.fault_record import FaultRecord
from bus.messaging.service_info import RememberedMessage, RememberedMessages
from bus.operations.dead_letters import DeadLetter
from bus.operations.message_trace.join import join
from bus.operations.message_trace.model import MessageTrace, TraceSources
from bus.operations.queue_inspection import QueueStatus

T0 = 1_796_000_000_000
"""Time of the first message in these tests, in milliseconds since the epoch."""
JOB, QUEUE = "library.scan.v1", "library.jobs.scan.v1"


def action(name: str, **values: Any) -> RememberedMessage:
    known: dict[str, Any] = {
        "action": name,
        "id": "job-1",
        "type": JOB,
        "source": "desk",
        "at": T0,
        "correlation_id": "trace-1",
        "queue": None if name == "sent" else QUEUE,
    }
    return RememberedMessage(**known | values)


def memory(
    *messages: RememberedMessage, service: str | None = None, since: int = T0 - 60_000
) -> RememberedMessages:
    """Return the memory of a service, by default of the one to which the first message belongs."""
    if service is None:
        service = "desk" if messages and messages[0].action == "sent" else "library"
    return RememberedMessages(
        service=service,
        instance=f"{service}-1",
        started=since,
        state="ready",
        since=since,
        remembered=max(len(messages), 1),
        messages=messages,
    )


def letter(id_: str = "job-1", *, at: int | None = T0 + 50, **values: Any) -> DeadLetter:
    envelope = {"type": JOB, "role": "job", "source": "desk", "correlation_id": "trace-1"}
    return DeadLetter(
        envelope=Envelope(id=id_, **{**envelope, **values}),
        record=FaultRecord(by="worker", code="internal", last_at=at, queue=QUEUE, attempts=2),
        dead_queue=f"{QUEUE}.dead",
    )


def status(name: str = QUEUE, ready: int = 0, **values: Any) -> QueueStatus:
    known: dict[str, Any] = {"service": "library", "role": "jobs", "consumers": 1, "unacked": 0}
    return QueueStatus(name=name, ready=ready, **known | values)


def traced(
    *memories: RememberedMessages,
    letters: Sequence[DeadLetter] = (),
    queues: Sequence[QueueStatus] = (),
    now: int = T0 + 1000,
) -> MessageTrace:
    sources = TraceSources(memories=memories, letters=letters, queues=queues)
    return join("trace-1", sources, now=now)


@pytest.mark.parametrize(
    ("actions", "ready", "state"),
    [
        ([action("handled")], 0, "handled"),
        ([action("handled", outcome="not_found")], 0, "failed"),
        ([action("running")], 0, "running"),
        ([action("refused", outcome="unauthenticated")], 0, "refused"),
        ([action("retried", outcome="internal", tier="30s")], 0, "retrying"),
        ([action("retried", outcome="internal", tier="30s", at=T0 - 40_000)], 0, "waiting"),
        ([action("retried", outcome="internal", tier="7s")], 0, "waiting"),
        ([action("dead-lettered", outcome="internal")], 0, "dead-lettered"),
        ([], 3, "waiting"),
        ([], 0, "unknown"),
        (
            [action("retried", tier="1s"), action("handled", attempt=2, at=T0 + 900)],
            0,
            "handled",
        ),
    ],
)
def test_the_last_action_decides_the_state(
    actions: list[RememberedMessage], ready: int, state: str
) -> None:
    sent = memory(action("sent"), service="desk")
    trace = traced(sent, memory(*actions), queues=[status(ready=ready)])
    assert [message.state for message in trace.messages] == [state]


def test_a_retried_message_returns_after_the_time_of_its_tier() -> None:
    retried = action("retried", outcome="internal", tier="30s", seconds=0.25)
    [path] = traced(memory(retried)).messages[0].paths
    assert (path.state, path.tier) == ("retrying", "30s")
    assert path.returns_at == T0 + 250 + 30_000


def test_a_dead_letter_alone_makes_a_trace() -> None:
    [message] = traced(letters=[letter()]).messages
    assert (message.state, message.type, message.source) == ("dead", JOB, "desk")
    [path] = message.paths
    assert path.death is not None
    assert (path.queue, path.death.code, path.death.attempts) == (QUEUE, "internal", 2)


def test_a_dead_letter_and_the_memory_of_it_are_one_path() -> None:
    dead = action("dead-lettered", outcome="internal", at=T0 + 49)
    [message] = traced(memory(dead), letters=[letter()]).messages
    assert [path.state for path in message.paths] == ["dead"]


def test_a_replay_after_a_dead_letter_decides_the_state() -> None:
    handled = action("handled", at=T0 + 500)
    [message] = traced(memory(handled), letters=[letter()]).messages
    assert message.state == "handled"


def test_a_failed_attempt_and_its_retry_are_one_action() -> None:
    attempts = [
        action("handled", outcome="internal", seconds=0.4),
        action("retried", outcome="internal", tier="1s", at=T0 + 410),
        action("handled", attempt=2, at=T0 + 1500),
    ]
    [path] = traced(memory(*attempts), now=T0 + 2000).messages[0].paths
    assert [(each.action, each.attempt, each.at, each.seconds) for each in path.actions] == [
        ("retried", 1, T0, 0.41),
        ("handled", 2, T0 + 1500, 0),
    ]


def test_the_error_reply_to_a_request_stays_a_failure() -> None:
    queue = "library.requests.find.v1"
    attempt = action("handled", type="library.find.v1", queue=queue, outcome="not_found")
    [path] = traced(memory(attempt)).messages[0].paths
    assert (path.state, path.actions[0].outcome) == ("failed", "not_found")


def test_ids_are_compared_as_far_as_an_instance_remembers_them() -> None:
    long = "trace-" + 100 * "1"
    sources = TraceSources(
        memories=[memory(action("sent", correlation_id=long[:64]))],
        letters=[letter(correlation_id=long)],
    )
    [message] = join(long, sources, now=T0).messages
    assert (len(message.sent), message.state) == (1, "dead")


def test_a_forged_copy_of_a_handled_message_hides_nothing() -> None:
    forged = action(
        "refused", outcome="unauthenticated", at=T0 + 500, source="mallory", type="forged.v1"
    )
    [message] = traced(memory(forged), memory(action("handled"))).messages
    assert (message.state, message.source, message.type) == ("handled", "desk", JOB)
    assert [each.action for each in message.paths[0].actions] == ["handled", "refused"]


def test_an_event_has_a_path_for_each_subscription() -> None:
    event = {"type": "shop.sold.v1", "id": "event-1"}
    stock, mail = "stock.events.shop.sold.v1", "mail.events.shop.sold.v1.letters"
    trace = traced(
        memory(action("sent", **event), service="shop"),
        memory(action("handled", queue=stock, **event), service="stock"),
        memory(action("retried", queue=mail, tier="5s", **event), service="mail"),
        queues=[
            status(stock, role="events"),
            status(mail, role="events"),
            status("audit.events.shop.sold.v1", 2, role="events", consumers=0),
            status("audit.events.shop.bought.v1", 2, role="events"),
        ],
    )
    [message] = trace.messages
    assert {path.queue: path.state for path in message.paths} == {
        stock: "handled",
        mail: "retrying",
        "audit.events.shop.sold.v1": "waiting",
    }
    assert message.state == "retrying"  # the worst state is visible


def test_a_message_for_which_the_sender_received_an_error_waits_in_no_queue() -> None:
    sent = action("sent", outcome="not_served")
    [message] = traced(memory(sent, service="desk"), queues=[status(ready=5)]).messages
    assert (message.state, message.paths) == ("failed", ())


@pytest.mark.parametrize(("outcome", "state"), [("ok", "handled"), ("not_found", "failed")])
def test_the_reply_to_a_request_is_known_by_its_sender_alone(outcome: str, state: str) -> None:
    sent = action("sent", type="library.find.v1", outcome=outcome)
    find = status("library.requests.find.v1", 2, role="requests")
    [message] = traced(memory(sent, service="desk"), queues=[find]).messages
    assert (message.state, message.paths) == (state, ())


def test_a_hedged_request_is_answered_although_its_other_copy_was_cancelled() -> None:
    queues = [status(role="requests")]
    copies = action("sent"), action("sent", outcome="cancelled", at=T0 + 100)
    for order in (copies, copies[::-1]):
        [message] = traced(memory(*order, service="desk"), queues=queues).messages
        assert message.state == "handled"
        assert message.sent[-1].outcome == "ok"


def test_messages_follow_their_causes_in_the_order_of_time() -> None:
    trace = traced(
        memory(
            action("sent", id="c", causation_id="a", at=T0 + 30),
            action("sent", id="d", causation_id="b", at=T0 + 25),
            action("sent", id="a", at=T0),
            action("sent", id="b", causation_id="a", at=T0 + 20),
            action("sent", id="e", at=T0 - 5),
        )
    )
    assert [(message.id, message.depth) for message in trace.messages] == [
        ("e", 0),
        ("a", 0),
        ("b", 1),
        ("d", 2),
        ("c", 1),
    ]


def test_a_cause_that_no_source_knows_is_named() -> None:
    trace = traced(memory(action("handled", causation_id="lost")))
    assert trace.unknown_causes == {"job-1": "lost"}
    assert trace.messages[0].depth == 0


def test_a_cycle_of_causes_ends() -> None:
    trace = traced(
        memory(
            action("sent", id="a", causation_id="b", at=T0 + 1),
            action("sent", id="b", causation_id="a", at=T0),
            action("sent", id="self", causation_id="self", at=T0 + 2),
        )
    )
    assert [(message.id, message.depth) for message in trace.messages] == [
        ("self", 0),
        ("b", 0),
        ("a", 1),
    ]


def test_a_chain_of_ten_thousand_causes_is_joined() -> None:
    chain = [
        action("sent", id=f"{number}", causation_id=f"{number - 1}") for number in range(10_000)
    ]
    trace = traced(memory(*chain))
    assert trace.messages[-1].depth == 9_999


def test_other_correlation_ids_are_left_out() -> None:
    others = memory(
        action("sent", id="x", correlation_id="trace-2"),
        action("sent", id="trace-1", correlation_id=""),
    )
    assert [message.id for message in traced(others).messages] == ["trace-1"]


def test_an_instance_that_remembers_only_a_later_time_is_named() -> None:
    late = memory(service="stock", since=T0 + 10)
    trace = traced(memory(action("handled")), late)
    assert next(note for note in trace.notes if "stock-1" in note).startswith(
        "1 instance remembers only a later time: stock-1 since "
    )


def test_queues_with_messages_that_were_not_read_are_named() -> None:
    trace = traced(
        memory(action("handled")),
        queues=[
            status(ready=3, consumers=0),
            status("library.retry.30s", 2, role="retry", consumers=0),
            status("library.requests.find.v1", 1, role="requests"),
            status(f"{QUEUE}.dead", 1, role="dead"),
        ],
    )
    assert trace.notes[-1] == (
        "not read: library.jobs.scan.v1 (3 ready, no consumer), library.retry.30s (2 ready). "
        "A read would count as a delivery and change the order."
    )


def test_a_message_with_a_long_id_is_one_message_and_the_cause_of_its_effects() -> None:
    long = 10 * "0123456789"
    memories = memory(
        action("dead-lettered", id=long, outcome="internal"),
        action(
            "sent",
            id="effect",
            type="library.scanned.v1",
            source="library",
            causation_id=long[:64],
        ),
    )
    found = traced(memories, letters=[letter(long)])
    assert [(each.depth, each.type) for each in found.messages] == [
        (0, JOB),
        (1, "library.scanned.v1"),
    ]
    assert found.unknown_causes == {}
