"""The bulkhead of a called service: a slow service does not take all the memory of its callers."""

import asyncio

from bus.errors import DeadlineExceeded, ResourceExhausted
from bus.messaging.call_limits import timeout_advice
from bus.messaging.envelope import Envelope
from bus.messaging.handler import Handler, Middleware
from bus.messaging.instruments import CALLS_REJECTED
from bus.messaging.plurals import count_noun
from bus.messaging.resilience.bulkhead import Bulkhead, Waiter
from bus.messaging.resilience.destinations import Destination

__all__ = ["bulkhead"]

POLICY = "bulkhead"


def bulkhead(destination: Destination, permits: Bulkhead) -> Middleware:
    """Let a request wait for a permit of its service, and hold the permit until its reply.

    Requests get their permits in the order of their calls. A request waits until its deadline. If
    too many requests wait already, it fails at once. In both cases it was certainly not sent.

    A copy or an attempt of a request needs a permit of its own.

    Args:
        destination: The called operation.
        permits: The permits of the called service. All operations of the service share them.
    """

    def layer(inner: Handler) -> Handler:
        async def call(envelope: Envelope) -> Envelope | None:
            if not permits.admit():
                await _wait(destination, permits, envelope)
            try:
                return await inner(envelope)
            finally:
                permits.release()

        return call

    return layer


async def _wait(destination: Destination, permits: Bulkhead, envelope: Envelope) -> None:
    """Wait for a permit.

    Raises:
        ResourceExhausted: Too many requests wait already.
        DeadlineExceeded: The deadline of the request has passed.
        BusError: Another policy has ended the wait, such as a circuit breaker that has opened.
    """
    loop = asyncio.get_running_loop()
    turn: asyncio.Future[None] = loop.create_future()

    def wake() -> None:
        if not turn.done():  # it is done if the caller was cancelled in this moment
            turn.set_result(None)

    def expire() -> None:
        if not turn.done():
            waiter.error = _late_error(destination, permits, envelope)
            wake()

    waiter = Waiter(envelope.type, wake)
    if not permits.enqueue(waiter):
        # Otherwise a caller that repeats the request in a loop would block the event loop, and no
        # reply could free a permit.
        await asyncio.sleep(0)
        raise _full_error(destination, permits)
    timer = None
    if envelope.deadline is not None:
        remaining = envelope.deadline / 1000 - destination.clock()
        timer = loop.call_later(max(remaining, 0), expire)
    try:
        await turn
    except asyncio.CancelledError:
        permits.leave(waiter)
        raise
    finally:
        if timer is not None:
            timer.cancel()
    if (error := waiter.take_error()) is not None:
        permits.leave(waiter)
        try:
            raise error
        finally:
            del error  # a reference cycle: its traceback has this frame
    permits.begin(waiter)


def _full_error(destination: Destination, permits: Bulkhead) -> ResourceExhausted:
    """Report and return the error of a request that cannot wait."""
    destination.meter.count(CALLS_REJECTED, (*destination.labels, POLICY))
    busy = _describe_busy(destination, permits)
    more = permits.max_waiting
    limit = f"{more} more {_wait_verb(more)} to be sent" if more else "max_waiting permits no more"
    return ResourceExhausted(
        f"{destination.type}: the request was not sent, because {busy}, and {limit}. Send fewer "
        "requests at a time, or raise max_in_flight or "
        f"max_waiting of the service {destination.service} in the settings.",
        executed="no",
    )


def _late_error(
    destination: Destination, permits: Bulkhead, envelope: Envelope
) -> DeadlineExceeded:
    """Report and return the error of a request that has waited until its deadline."""
    destination.meter.count(CALLS_REJECTED, (*destination.labels, POLICY))
    return DeadlineExceeded(
        f"{destination.type}: the request was not sent before its deadline, because "
        f"{_describe_busy(destination, permits)}. Send fewer requests at a time, raise "
        f"max_in_flight of the service {destination.service} in the settings, or "
        f"{timeout_advice(envelope.limits)}.",
        executed="no",
    )


def _describe_busy(destination: Destination, permits: Bulkhead) -> str:
    calls = count_noun(permits.max_in_flight, "request")
    verb = _wait_verb(permits.max_in_flight)
    return f"{calls} to the service {destination.service} {verb} for a reply"


def _wait_verb(number: int) -> str:
    return "waits" if number == 1 else "wait"
