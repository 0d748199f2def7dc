"""Rate limit for each service that sends requests to one handler."""

from collections.abc import Awaitable
from typing import Final

from bus.errors import ResourceExhausted
from bus.messaging.labels import one_line
from bus.messaging.resilience.rate_limit import RateLimit
from bus.messaging.resilience.rates import Rates
from bus.messaging.timers import format_seconds
from bus.runtime.endpoint_state import EndpointState
from bus.runtime.inbound_message import (
    HandlingResult,
    InboundHandler,
    InboundMessage,
    InboundStage,
    immediately,
    pass_through,
)

__all__ = ["MAX_CALLERS", "limit_rate"]

MAX_CALLERS: Final = 10_000
"""Maximum number of callers with a token bucket.

With `BUS_AUTH=off` any client can invent names. If the table is full, a new caller is refused until
the bucket of another one is full again.
"""


def limit_rate(state: EndpointState) -> InboundStage:
    """Return the stage that refuses requests of a caller above the rate limit of the handler.

    The caller is verified, unless `BUS_AUTH=off`. A refused request is not handled. The error has
    the seconds until the caller has a token again.
    """
    limit, measures = state.endpoint.policies.rate, state.measures
    if limit is None:
        return pass_through
    rates = Rates(
        limit.per_second,
        burst=limit.size,
        max_keys=MAX_CALLERS,
        timer=state.runtime.destinations.timer,
    )

    def stage(inner: InboundHandler) -> InboundHandler:
        def call(message: InboundMessage) -> Awaitable[HandlingResult]:
            source = message.envelope.source
            if rates.take(source):
                return inner(message)
            if measures is not None:
                measures.shed(message.envelope, "rate")
            error = _error_of(message, limit, rates.wait(source))
            return immediately(HandlingResult(error=error))

        return call

    return stage


def _error_of(message: InboundMessage, limit: RateLimit, seconds: float) -> ResourceExhausted:
    envelope = message.envelope
    return ResourceExhausted(
        f"{envelope.type}: {one_line(envelope.source)} has sent more than {limit.requests:g} "
        f"requests in {format_seconds(limit.per)}. Try again in {format_seconds(seconds)}.",
        executed="no",
        retry_after=seconds,
    )
