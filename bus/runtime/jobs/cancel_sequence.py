"""The cancellation of a job that this process has claimed (ADR 0049)."""

import logging
from collections.abc import Callable

from bus.errors import Cancelled
from bus.messaging.jobs.records import CancelRequest
from bus.messaging.labels import short_id
from bus.messaging.task_frames import waiting_place
from bus.messaging.timers import format_seconds
from bus.runtime.jobs.handling import Handling
from bus.runtime.jobs.held_job import HeldJob

__all__ = ["STUCK_SECONDS", "cancel_job", "error_of_request"]

log = logging.getLogger("bus.jobs")

STUCK_SECONDS = 10.0
"""Seconds after the cancellation of its task in which a handler must end."""


async def cancel_job(
    held: HeldJob, handling: Handling, *, grace: float, on_given_up: Callable[[], None]
) -> None:
    """Cancel the handler of a job: first its context tells it, then its task is cancelled.

    A job that waits for a slot, for a dependency or for its turn has no grace. If the handler has
    not ended `STUCK_SECONDS` after the cancellation of its task, the job ends without it. Its slot
    is free then, and what the handler still writes to the row is refused. If the handler has ended,
    and only its result waits for the store, nothing is cancelled.

    Args:
        held: The job. It has the request.
        handling: Its task.
        grace: Seconds in which the handler can end by itself.
        on_given_up: Called if the handler does not end.
    """
    if held.has_begun and (await handling.wait(grace) or handling.is_settling):
        return
    held.is_cancelling = True
    handling.cancel()
    has_ended = await handling.wait(STUCK_SECONDS) or handling.is_settling
    if has_ended or held.is_ending or held.is_lost:
        return
    frames = handling.give_up()
    key, claimed = held.attempt.key, held.claimed
    log.error(
        "job %s in %s: the handler has not ended %s after its cancellation, so its slot is free "
        "without it. It waits at %s. Let the handler end when `CancelledError` is raised in it.",
        short_id(key.id),
        claimed.queue,
        format_seconds(STUCK_SECONDS),
        waiting_place(frames),
        extra={
            "message_id": key.id,
            "submitter": key.submitter,
            "queue": claimed.queue,
            "attempt": claimed.envelope.attempt,
            "frames": [str(frame) for frame in frames],
        },
    )
    on_given_up()
    await held.end_without_handler()


def error_of_request(request: CancelRequest) -> Cancelled:
    """Return the error that the submitter of a cancelled job gets, as `cancelled_error` does."""
    reason = f": {request.reason}" if request.reason else ""
    return Cancelled(f"the job was cancelled by {request.by}{reason}")
