"""Copies of a message: the retry copy and the dead letter, which the broker has to confirm."""

import asyncio
import logging

from bus.errors import BusError, InvalidArgument, PermissionDenied, safe_reason
from bus.messaging.envelope import Envelope
from bus.messaging.labels import message_facts, message_label, one_line
from bus.messaging.ports.transport import Accepted
from bus.messaging.topology.addresses import Address
from bus.runtime.endpoint_state import EndpointState

__all__ = ["PERMANENT_ERRORS", "CopySender"]

log = logging.getLogger("bus.settlement")

COPY_TIMEOUT_SECONDS = 10.0
"""Seconds to wait for the confirm of a retry copy or dead letter. After this time, the copy is sent
again."""
PERMANENT_ERRORS = (InvalidArgument, PermissionDenied)
"""Errors that a retry cannot fix: the message is too large, or the broker refuses access. The
message is requeued, and the requeue counts toward the queue's delivery limit."""


class CopySender:
    """Sends the retry copies and dead letters of one endpoint."""

    def __init__(self, state: EndpointState) -> None:
        self._transport = state.runtime.transport
        self._queue = state.endpoint.queue
        self._topology = state.spec.topology

    async def send(self, copy: Envelope, address: Address) -> bool:
        """Remove the deadline and expiration from a copy, send it, and wait for the confirm.

        Returns:
            False if the broker did not accept the copy.

        Raises:
            InvalidArgument: The copy is too large.
            PermissionDenied: The broker does not allow this service to send the copy.
        """
        try:
            outcome = await self._transport.send(
                copy.replace(deadline=None, expiration=None),
                address,
                timeout=COPY_TIMEOUT_SECONDS,
            )
        except BusError as error:
            await self._redeclare_topology(copy, address, str(error))
            if isinstance(error, PERMANENT_ERRORS):
                raise
            return False
        if isinstance(outcome, Accepted):
            return True
        await self._redeclare_topology(copy, address, outcome.reason)
        return False

    async def _redeclare_topology(self, copy: Envelope, address: Address, why: str) -> None:
        """Declare the topology again, because the queue of a copy may be missing."""
        queue, label = self._queue, message_label(copy)
        facts = message_facts(copy, queue=queue, exchange=address.exchange, why=why)
        log.error(
            "%s in %s: the broker did not accept a copy of the message: %s",
            label,
            queue,
            one_line(why),
            extra=facts,
        )
        try:
            async with asyncio.timeout(COPY_TIMEOUT_SECONDS):
                await self._transport.declare(self._topology)
        except Exception as error:  # noqa: BLE001 - the caller sends the copy again in any case
            reason = str(error) if isinstance(error, BusError) else safe_reason(error)
            if isinstance(error, TimeoutError):
                reason = f"no answer within {COPY_TIMEOUT_SECONDS:g} s"
            log.warning(
                "%s in %s: the queues of the copy could not be declared: %s",
                label,
                queue,
                reason,
                extra=message_facts(copy, queue=queue, why=reason),
            )
