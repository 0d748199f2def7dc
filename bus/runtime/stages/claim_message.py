"""Claim of a message for a transactional handler: one process handles it, and one commit counts.

Source: Idempotent Receiver in Hohpe and Woolf, "Enterprise Integration Patterns" (2003). ADR 0047
has the reasons.
"""

import logging
from contextlib import AsyncExitStack
from functools import partial

from bus.errors import Aborted
from bus.messaging.labels import message_facts, message_label
from bus.messaging.ports.inbox import FactKey
from bus.messaging.ports.store import Store, Transaction
from bus.runtime.claim_wait import ClaimWait
from bus.runtime.claimed_row import row_of
from bus.runtime.endpoint_state import EndpointState
from bus.runtime.failure_log import UNEXPECTED
from bus.runtime.inbound_message import (
    NO_ACTION,
    SETTLED,
    HandlingResult,
    InboundHandler,
    InboundMessage,
    InboundStage,
    pass_through,
)
from bus.runtime.inbox_retry import retry_inbox
from bus.runtime.transaction_checks import transactional_store

__all__ = ["claim_message"]

log = logging.getLogger("bus.activator")


def claim_message(state: EndpointState) -> InboundStage:
    """Return the stage that opens the transaction of each message for its handler.

    A message that was handled is not handled again. While another process handles it, the message
    is held. If that process ends, this one takes the message over when the lease has expired. If
    this process has lost its claim in the meantime, the message is claimed again, so it is acked
    only after it is handled.
    """
    if not state.endpoint.is_transactional:
        return pass_through
    claims = _Claims(state, transactional_store(state.runtime, state.endpoint))

    def stage(inner: InboundHandler) -> InboundHandler:
        async def call(message: InboundMessage) -> HandlingResult:
            wait = ClaimWait(state, message)
            while True:
                async with AsyncExitStack() as stack:
                    claim = await claims.open(stack, message)
                    if claim is None:
                        return claims.skip(message)
                    if not isinstance(claim, Aborted):
                        result = await _run(inner, message, claim)
                        if not result.is_stale:
                            return result
                        if row_of(message) is not None:
                            return NO_ACTION  # the row has another owner, and counts the write
                        claims.count_stale(message)
                        continue
                if (end := await wait.hold(claim)) is not None:
                    return end

        return call

    return stage


async def _run(
    inner: InboundHandler, message: InboundMessage, transaction: Transaction
) -> HandlingResult:
    message.transaction = transaction
    try:
        return await inner(message)
    finally:
        message.transaction = None


class _Claims:
    """The claims of the messages of one endpoint."""

    def __init__(self, state: EndpointState, store: Store) -> None:
        self._state, self._store = state, store
        self._service = state.runtime.service
        self._name = state.endpoint.contract.name
        self._subscription = state.endpoint.subscription or ""
        self._lease = state.runtime.settings.job_lease

    async def open(
        self, stack: AsyncExitStack, message: InboundMessage
    ) -> Transaction | Aborted | None:
        """Enter the transaction of a message on `stack`.

        While the store is away, the message waits.

        Returns:
            The transaction. The error if another process handles the message. None if the message
            was handled.
        """
        envelope = message.envelope
        row = row_of(message)
        key = (
            FactKey(self._service, self._name, self._subscription, envelope.source, envelope.id)
            if row is None
            else row.attempt
        )

        async def enter() -> Transaction | Aborted | None:
            try:
                return await stack.enter_async_context(
                    self._store.transaction(key, lease=self._lease)
                )
            except Aborted as error:
                return error

        try:
            return await enter()
        except UNEXPECTED as error:  # the store is away
            return await retry_inbox(partial(enter), envelope, error)

    def skip(self, message: InboundMessage) -> HandlingResult:
        """Return the result of a message that was handled before."""
        if self._state.measures is not None:
            self._state.measures.skipped()
        if log.isEnabledFor(logging.DEBUG):
            log.debug(
                "%s is a duplicate; it was handled before",
                message_label(message.envelope),
                extra=message_facts(message.envelope),
            )
        return SETTLED

    def count_stale(self, message: InboundMessage) -> None:
        """Count and log a commit that the store has refused."""
        if self._state.measures is not None:
            self._state.measures.discarded()
        log.warning(
            "%s in %s: the writes of the handler were discarded, because another process has "
            "taken the message over",
            message_label(message.envelope),
            self._state.spec.queue.name,
            extra=message_facts(message.envelope, queue=self._state.spec.queue.name),
        )
