"""Load shedding: an overloaded handler refuses requests before it starts them (ADR 0039)."""

import logging
from collections.abc import Awaitable

from bus.errors import ResourceExhausted
from bus.messaging.criticality import criticality_of
from bus.messaging.envelope import Envelope
from bus.messaging.resilience.load_shedder import (
    CALM_ALLOWED,
    IDLE_SECONDS,
    LoadShedder,
    ShedReason,
)
from bus.messaging.sent_time import sent_time
from bus.messaging.timers import format_seconds, loop_time
from bus.runtime.endpoint_state import EndpointState
from bus.runtime.inbound_message import (
    HandlingResult,
    InboundHandler,
    InboundMessage,
    InboundStage,
    immediately,
    pass_through,
)

__all__ = ["shed_load"]

log = logging.getLogger("bus.activator")

LOG_SECONDS = 60.0
"""Minimum seconds between two log lines of one handler."""
CALM_MS = int(CALM_ALLOWED * 1000)
MIN_RETRY_SECONDS, MAX_RETRY_SECONDS = 0.1, 30.0


def shed_load(state: EndpointState) -> InboundStage:
    """Return the stage that refuses requests while the handler is overloaded.

    A request is refused only if no slot was free for it. Events and jobs are never refused, because
    they can wait. The stage runs after a message has received a slot, so that a message that waits
    in this process is refused as well. It runs after the authentication, so that no forged message
    changes what the stage knows about the queue.
    """
    contract = state.endpoint.contract
    if contract.kind != "request" or state.runtime.settings.load_shedding == "off":
        return pass_through
    shedder = LoadShedder()
    rules = _Rules(state, shedder)
    queue = shedder.queue

    def stage(inner: InboundHandler) -> InboundHandler:
        async def measure(message: InboundMessage, started: float) -> HandlingResult:
            result = await inner(message)
            if result.error is None:
                shedder.handled(loop_time() - started)
            return result

        def call(message: InboundMessage) -> Awaitable[HandlingResult]:
            now, free_since = loop_time(), message.free_since
            has_waited = free_since is None or now - free_since <= IDLE_SECONDS
            if has_waited:
                if now < shedder.calm_until and (message.envelope.expiration or 0) >= CALM_MS:
                    return inner(message)
            else:
                queue.idle_at = now
                if now < shedder.next_sample:
                    return inner(message)
            error = rules.check(message, now, has_waited=has_waited)
            if error is not None:
                return immediately(HandlingResult(error=error))
            return measure(message, now) if shedder.is_sample(now) else inner(message)

        return call

    return stage


class _Rules:
    """Applies the decisions of a `LoadShedder` to the requests of one endpoint."""

    def __init__(self, state: EndpointState, shedder: LoadShedder) -> None:
        self._shedder = shedder
        self._clock = state.runtime.clock
        self._criticality = state.endpoint.contract.criticality
        self._refusals = _Refusals(state)

    def check(
        self, message: InboundMessage, now: float, *, has_waited: bool
    ) -> ResourceExhausted | None:
        """Return the error of a request that is refused, or None.

        A request without `expiration` is never refused, because it does not tell its sender's time.
        """
        envelope, shedder = message.envelope, self._shedder
        sent, arrived = sent_time(envelope), envelope.received
        if sent is None or arrived is None or envelope.expiration is None:
            return None
        sender, age = envelope.reply_to or envelope.source, (arrived - sent) / 1000
        if not has_waited:
            shedder.queue.learn(sender, age, now)
            return None
        inside = max(0.0, self._clock() - arrived / 1000)
        allowed = envelope.expiration / 1000
        waited = shedder.queue.wait_of(sender, age, inside, now, allowed)
        criticality = criticality_of(envelope, self._criticality)
        reason = shedder.refuses(waited, allowed, criticality, now)
        if reason is None:
            return None
        self._refusals.add(envelope, reason, now)
        return _refusal(envelope, reason, waited)


def _refusal(envelope: Envelope, reason: ShedReason, waited: float) -> ResourceExhausted:
    """Return the error for the caller. The queue needs about its own age to become empty."""
    after = round(min(MAX_RETRY_SECONDS, max(MIN_RETRY_SECONDS, waited)), 3)
    problem = (
        "too little time remained for the handler"
        if reason == "deadline"
        else "requests of this criticality are refused now"
    )
    return ResourceExhausted(
        f"{envelope.type}: the service is overloaded. The request waited for "
        f"{format_seconds(round(waited, 2))}, and {problem}. Try again after "
        f"{format_seconds(after)}, or start more workers.",
        executed="no",
        retry_after=after,
    )


class _Refusals:
    """Counts the refused requests of one handler, and logs their number at most once a minute."""

    def __init__(self, state: EndpointState) -> None:
        self._type, self._queue = state.endpoint.contract.type, state.endpoint.queue
        self._measures = state.measures
        self._count = 0
        self._next = 0.0

    def add(self, envelope: Envelope, reason: ShedReason, now: float) -> None:
        """Count a refused request."""
        self._count += 1
        if self._measures is not None:
            self._measures.shed(envelope, reason)
        if now < self._next:
            return
        count, self._count, self._next = self._count, 0, now + LOG_SECONDS
        log.warning(
            "%s is overloaded (requests refused since the last such line: %d). Start more workers.",
            self._type,
            count,
            extra={"type": self._type, "queue": self._queue, "count": count, "reason": reason},
        )
