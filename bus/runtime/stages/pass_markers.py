"""The stage of a recorder that completes a marker after the jobs before it are recorded."""

import asyncio
import logging
from collections.abc import Awaitable

from bus.errors import BusError
from bus.messaging.backoff import backoff
from bus.messaging.jobs.markers import MARKER_TYPE, is_marker_of
from bus.messaging.labels import message_facts, message_label
from bus.messaging.ports.store import Store
from bus.runtime.endpoint_state import EndpointState
from bus.runtime.failure_log import UNEXPECTED
from bus.runtime.inbound_message import (
    SETTLED,
    HandlingResult,
    InboundHandler,
    InboundMessage,
    InboundStage,
    pass_through,
)

__all__ = ["pass_markers"]

log = logging.getLogger("bus.jobs")

TRIES = 5
"""Number of times that a recorder tries to store a completed marker.

After the last one the marker is acked. Its question sends another marker.
"""


def pass_markers(state: EndpointState) -> InboundStage:
    """Return the stage that completes markers. It stands before the check of the sender.

    A marker is complete when each delivery that this recorder received before it is settled. The
    queue has delivered every job that was submitted before the marker, to this or another instance.
    """
    store = state.runtime.store
    if store is None:
        return pass_through

    def stage(inner: InboundHandler) -> InboundHandler:
        async def complete(message: InboundMessage) -> HandlingResult:
            if _is_own(message, state):
                earlier = _earlier(message, state)
                if earlier:
                    await asyncio.wait(earlier)
                await _note(message.envelope.id, store)
            return SETTLED

        def call(message: InboundMessage) -> Awaitable[HandlingResult]:
            if message.envelope.type == MARKER_TYPE:
                return complete(message)
            return inner(message)

        return call

    return stage


def _earlier(message: InboundMessage, state: EndpointState) -> list[asyncio.Task[None]]:
    """Return the tasks of the deliveries before a message. The dictionary keeps their order."""
    earlier = []
    for other, task in state.in_flight.tasks.items():
        if other is message:
            break
        if not task.done():
            earlier.append(task)
    return earlier


def _is_own(message: InboundMessage, state: EndpointState) -> bool:
    """Return True if this service has sent the marker. Another one is acked and ignored."""
    envelope, problem = message.envelope, "it is not a marker of this service"
    if is_marker_of(state.runtime.service, envelope):
        try:
            state.runtime.security.identity.verifier.verify_own(envelope)
        except BusError as error:
            problem = str(error)
        else:
            return True
    log.warning(
        "%s in %s is ignored: %s",
        message_label(envelope),
        state.endpoint.queue,
        problem,
        extra=message_facts(envelope, queue=state.endpoint.queue, why=problem),
    )
    return False


async def _note(marker: str, store: Store) -> None:
    """Store that a marker is complete, as a sign of life with its name."""
    for attempt in range(1, TRIES + 1):
        try:
            await store.beat(marker, recorded_until=0.0)
        except UNEXPECTED:
            await asyncio.sleep(backoff(attempt))
        else:
            return
