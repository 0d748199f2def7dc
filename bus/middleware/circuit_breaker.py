"""The circuit breaker of a destination: requests fail at once while the service is down.

Source: Nygard, "Release It!" (2007).
"""

import asyncio

from bus.errors import BusError, Unavailable, code_of, executed_of
from bus.messaging.envelope import Envelope
from bus.messaging.error_state import retry_after_of
from bus.messaging.handler import Handler, Middleware
from bus.messaging.instruments import CALLS_REJECTED
from bus.messaging.resilience.circuit_breaker import CircuitBreaker, Permit
from bus.messaging.resilience.destinations import Destination
from bus.messaging.send_time import SendTime, current_send
from bus.messaging.timers import format_seconds, utc_date_and_time

__all__ = ["circuit_breaker"]

POLICY = "breaker"
TIME_OUT = "deadline_exceeded"
LOAD_CONTROL = "resource_exhausted"
FAILURES = frozenset({"unavailable", LOAD_CONTROL, TIME_OUT})
"""Codes of the service's errors that can count as failures."""


def circuit_breaker(destination: Destination, breaker: CircuitBreaker) -> Middleware:
    """Reject requests while the breaker of their operation is open. Count their results.

    An error of the service is a failure if its code is `unavailable` or `resource_exhausted`, or if
    the attempt failed only after its configured time. Another error of the service is a success,
    because the service works. An error of this process or of the broker counts nothing, nor does a
    cancelled request. If the service has lost its connection, it answers `unavailable` with
    `maybe_executed` to a request that is delivered again. This error counts nothing, too.

    The load control of a service refuses single requests, and others succeed at the same time. So a
    `resource_exhausted` that was not executed and has a `retry_after` counts nothing.

    Args:
        destination: The called operation.
        breaker: Its breaker, which all senders of the bus share.
    """
    permits = destination.bulkhead
    if permits is not None:
        # Without this, waiting requests would be sent one by one to a service that is down.
        breaker.on_open = lambda: permits.refuse_waiting(
            destination.type, lambda: _rejection(destination, breaker)
        )

    def layer(inner: Handler) -> Handler:
        async def call(envelope: Envelope) -> Envelope | None:
            permit = breaker.admit()
            if permit is None:
                raise await _rejected(destination, breaker)
            try:
                reply = await inner(envelope)
            except BaseException as error:  # such as the cancellation of the caller
                _count_error(breaker, permit, error, 0.0)
                raise
            breaker.success(permit)
            return reply

        async def call_timed(envelope: Envelope) -> Envelope | None:
            permit = breaker.admit()
            if permit is None:
                raise await _rejected(destination, breaker)
            sent = SendTime(timer())
            token = current_send.set(sent)
            try:
                reply = await inner(envelope)
            except BaseException as error:  # as above
                _count_error(breaker, permit, error, timer() - sent.at)
                raise
            finally:
                current_send.reset(token)
            breaker.success(permit, timer() - sent.at)
            return reply

        return call if breaker.policy.slow_call is None else call_timed

    timer = destination.timer
    return layer


def _count_error(
    breaker: CircuitBreaker, permit: Permit, error: BaseException, seconds: float
) -> None:
    if not isinstance(error, BusError) or error.origin != "service":
        breaker.ignore(permit)
        return
    code = code_of(error)
    if code not in FAILURES:
        breaker.success(permit, seconds)
    elif code == LOAD_CONTROL and _is_refusal(error):
        breaker.ignore(permit)
    elif error.had_full_time if code == TIME_OUT else not error.maybe_executed:
        breaker.failure(permit, seconds, code, retry_after_of(error))
    else:
        # The caller had left less time than the service may take. Or the service does not know the
        # outcome, because it has lost a connection to the broker.
        breaker.ignore(permit)


def _is_refusal(error: BusError) -> bool:
    """Return True if the service has refused the request before its handler, and tells how long.

    Load shedding and rate limits do so. The retry policy obeys the time.
    """
    return executed_of(error) == "no" and retry_after_of(error) is not None


async def _rejected(destination: Destination, breaker: CircuitBreaker) -> Unavailable:
    """Report and return the error of a request that is not sent.

    Let other tasks run first. Otherwise a caller that repeats the request in a loop would block the
    event loop, because nothing else in a rejected request waits.
    """
    await asyncio.sleep(0)
    return _rejection(destination, breaker)


def _rejection(destination: Destination, breaker: CircuitBreaker) -> Unavailable:
    """Report and return the error of a request that is not sent."""
    destination.meter.count(CALLS_REJECTED, (*destination.labels, POLICY))
    wait, state = breaker.retry_after, breaker.state
    since = utc_date_and_time(breaker.since)
    if state == "isolated":
        why = f"an operator has isolated the operation since {since}"
    else:
        why = f"the circuit breaker is {state} since {since}, after {breaker.cause}"
    return Unavailable(
        f"{destination.type}: the request was not sent, because {why}. Try again in "
        f"{format_seconds(wait)}, or inspect the breaker with `bus breakers list`.",
        executed="no",
        retry_after=wait,
    )
