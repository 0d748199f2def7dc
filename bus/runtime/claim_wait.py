"""The wait of a message that another process handles now."""

import asyncio
from contextlib import suppress

from bus.errors import Aborted
from bus.messaging.backoff import backoff
from bus.messaging.timers import loop_time
from bus.messaging.topology.names import retry_delay_for
from bus.runtime.endpoint_state import EndpointState
from bus.runtime.held_messages import HeldMessage, HoldEnd
from bus.runtime.inbound_message import (
    NO_ACTION,
    REQUEUE,
    DependencyReturn,
    HandlingResult,
    InboundMessage,
)
from bus.security.keyring import MIN_REFRESH_SECONDS

__all__ = ["ClaimWait"]

INBOX = "inbox"
"""Name of the dependency for which the message waits, in the log."""
MIN_HOLD_SECONDS = 0.05
"""Minimum seconds between two claims of a message."""
HOLD_LEASES = 2.0
"""Number of leases for which a message is held at most. A process that has ended does not renew its
lease, so after this time the other process is alive."""


class ClaimWait:
    """The holds of one message, from its first claim that another process has refused.

    A requeue would count as a lost delivery before RabbitMQ 4.3, and the broker would deliver the
    message again at once. A copy in a retry tier would begin with no lost delivery. If the message
    itself has ended the other process, it would then never reach the delivery limit. So the message
    is held, unacked, until the lease of an ended process has certainly expired. Only after that it
    returns by a retry tier.
    """

    def __init__(self, state: EndpointState, message: InboundMessage) -> None:
        self._in_flight, self._message = state.in_flight, message
        self._seconds = HOLD_LEASES * state.runtime.settings.job_lease
        self._until: float | None = None
        self._holds = 0

    async def hold(self, refusal: Aborted) -> HandlingResult | None:
        """Wait before the next claim. Return the result of a message that waits no longer.

        Args:
            refusal: Error of the claim, with the seconds until the other lease ends.
        """
        now = loop_time()
        if self._until is None:
            self._until = now + self._seconds
        self._holds += 1
        rest = max(0.0, self._until - now)
        longest = min(rest, refusal.retry_after or rest)
        end = await self._wait(min(longest, backoff(self._holds)) + MIN_HOLD_SECONDS)
        if end is HoldEnd.REQUEUE:
            return REQUEUE
        if not any(delivery.is_open for delivery in self._message.deliveries):
            return NO_ACTION  # the broker has taken the message back, and delivers it again
        is_candidate = self._message.candidate is not None
        if not is_candidate and (end is HoldEnd.RETURN or rest == 0):
            return self._returned(refusal)
        return None

    async def _wait(self, seconds: float) -> HoldEnd | None:
        in_flight = self._in_flight
        if in_flight.is_stopping:
            return HoldEnd.REQUEUE
        is_candidate = self._message.candidate is not None
        if in_flight.refuses_holds is HoldEnd.RETURN and not is_candidate:
            return HoldEnd.RETURN
        held = HeldMessage(loop_time() + seconds, self._message.envelope.source, 0)
        in_flight.held[held] = None
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    end = await held.wait()
                    return end if isinstance(end, HoldEnd) else None
            return None
        finally:
            del in_flight.held[held]

    def _returned(self, refusal: Aborted) -> HandlingResult:
        """Return the result of a message that returns by a retry tier, on the same attempt."""
        return HandlingResult(
            error=refusal,
            is_counted=True,
            dependency_return=DependencyReturn(
                dependency=INBOX, tier=retry_delay_for(MIN_REFRESH_SECONDS)
            ),
        )
