"""A service is believed only about the messages that it sent, and about its own queues."""

import pytest

from bus.operations.message_trace.identify import identify
from bus.operations.message_trace.model import TraceSources
from tests.unit.operations.message_trace.test_join import (
    JOB,
    T0,
    action,
    letter,
    memory,
    status,
    traced,
)

SENT = memory(action("sent"))
DEAD = memory(action("handled", outcome="internal"), action("dead-lettered", outcome="internal"))
OWN_QUEUE = "mallory.jobs.other.v1"
NOTE = "ignored: 1 record of mallory, because a service is believed only about messages that it"
LIES = {
    "handled in the queue of another service": action("handled", at=T0 + 90),
    "dead-lettered in the queue of another service": action("dead-lettered", at=T0 + 90),
    "handled in a queue of its own": action("handled", queue=OWN_QUEUE),
    "handled in a queue without a version": action("handled", queue="mallory.x"),
    "handled in no queue": action("handled", queue=None),
    "refused in a queue of its own": action("refused", queue=OWN_QUEUE),
    "refused, with the type of its own queue": action(
        "refused", queue=OWN_QUEUE, type="mallory.other.v1"
    ),
    "handled as another message": action("handled", queue=OWN_QUEUE, type="mallory.other.v1"),
    "handled as a subscriber of a job": action("handled", queue=f"mallory.events.{JOB}"),
    "sent by another service": action("sent", outcome="internal", at=T0 + 90),
    "sent as another message": action("sent", source="mallory", type="mallory.other.v1", at=1),
}


@pytest.mark.parametrize("name", LIES)
def test_a_service_cannot_decide_what_became_of_a_message_of_others(name: str) -> None:
    queues = [status()]
    lie = memory(LIES[name], service="mallory")
    for memories in ([SENT, DEAD], [SENT, memory(action("handled"))]):
        true = traced(*memories, queues=queues)
        for order in ([lie, *memories], [*memories, lie]):
            trace = traced(*order, queues=queues)
            assert trace.messages == true.messages
            assert trace.notes[-1].startswith(NOTE)
            assert len(trace.notes) == len(true.notes) + 1


def test_a_service_cannot_dead_letter_a_message_of_others() -> None:
    lie = letter()
    forged = type(lie)(
        envelope=lie.envelope, record=lie.record, dead_queue="mallory.jobs.other.v1.dead"
    )
    trace = traced(SENT, memory(action("handled")), letters=[forged], queues=[status()])
    assert [each.state for each in trace.messages] == ["handled"]
    assert trace.notes[-1].startswith(NOTE)


def test_a_record_about_the_message_of_another_service_does_not_make_an_id_ambiguous() -> None:
    lie = memory(action("handled", correlation_id="other"), service="mallory")
    found = identify("job-1", TraceSources(memories=[lie, SENT]))
    assert found is not None
    assert found.correlation_id == "trace-1"


def test_a_subscriber_is_believed_about_its_own_subscription() -> None:
    event = {"type": "desk.closed.v1", "id": "event-1"}
    trace = traced(
        memory(action("sent", **event)),
        memory(action("handled", queue="stock.events.desk.closed.v1", **event), service="stock"),
    )
    assert [each.state for each in trace.messages] == ["handled"]
    assert trace.notes == ()
