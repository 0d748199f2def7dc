"""Recording: a job is written to the store, and only then acked."""

import logging

from bus.errors import AlreadyExists, Unavailable
from bus.messaging.jobs.records import JobKey, NewJob, OtherJob
from bus.messaging.labels import message_facts, message_label
from bus.runtime.endpoint_state import EndpointState
from bus.runtime.inbound_message import (
    REQUEUE,
    SETTLED,
    HandlingResult,
    InboundHandler,
    InboundMessage,
)
from bus.runtime.jobs.job_feed import JobFeed
from bus.runtime.jobs.write_batch import WriteBatch

__all__ = ["record_job"]

log = logging.getLogger("bus.jobs")


def record_job(
    state: EndpointState, records: WriteBatch[NewJob, bool | OtherJob], feed: JobFeed
) -> InboundHandler:
    """Return the innermost handler of a recorder.

    A copy of a known job is only acked: the row is the job. A copy of a failed job does not start
    it again, because an operator decides that. A job with the id of another job of its submitter
    is not a copy, so it becomes a dead letter.
    """
    queue, measures = state.spec.queue.name, state.measures

    async def call(message: InboundMessage) -> HandlingResult:
        envelope = message.envelope
        job = NewJob(key=JobKey(envelope.source, envelope.id), queue=queue, envelope=envelope)
        try:
            recorded = await records.add(job)
        except Unavailable:  # the service is stopping, and the store is away
            return REQUEUE
        if isinstance(recorded, OtherJob):
            return HandlingResult(error=_taken(job, recorded))
        if recorded:
            feed.measures.recorded()
            feed.wake()
            return SETTLED
        if measures is not None:
            measures.skipped()
        if log.isEnabledFor(logging.DEBUG):
            log.debug(
                "%s is a copy of a job that is recorded already; the copy is acked",
                message_label(envelope),
                extra=message_facts(envelope, submitter=envelope.source),
            )
        return SETTLED

    return call


def _taken(job: NewJob, other: OtherJob) -> AlreadyExists:
    return AlreadyExists(
        f"{job.envelope.type}: {job.key.submitter!r} has submitted a job {other.type} with the "
        f"same id to the queue {other.queue}. Give each job an id of its own."
    )
