"""Commit of the writes of a transactional handler, together with the end of its message."""

import asyncio
import logging
from dataclasses import replace

from bus.errors import Aborted
from bus.messaging.backoff import backoff
from bus.messaging.failure_origin import blame_handler
from bus.messaging.labels import message_facts, message_label
from bus.messaging.ports.store import Transaction
from bus.messaging.timers import loop_time
from bus.runtime.claimed_row import row_of
from bus.runtime.endpoint_state import EndpointState
from bus.runtime.inbound_message import (
    HandlingResult,
    InboundHandler,
    InboundMessage,
    InboundStage,
    pass_through,
)

__all__ = ["MAX_CONFLICTS", "commit_writes"]

log = logging.getLogger("bus.activator")

MAX_CONFLICTS = 5
"""Number of conflicts with concurrent transactions after which the attempt fails.

Before that, the handler runs again at once, because a conflict is not a failure of the message.
"""


def commit_writes(state: EndpointState) -> InboundStage:
    """Return the stage that commits the transaction after the handler has succeeded.

    It is the innermost stage, so an error of the commit is an error of the attempt. If concurrent
    work has caused the error, the handler runs again, and the retry policy does not count it. If
    the claim is lost, nothing is written, and the result is stale.
    """
    endpoint = state.endpoint
    if not endpoint.is_transactional:
        return pass_through
    longest, in_flight = endpoint.timeout or 0.0, state.in_flight

    def stage(inner: InboundHandler) -> InboundHandler:
        async def call(message: InboundMessage) -> HandlingResult:
            transaction = message.transaction
            if transaction is None:  # `claim_message` sets it, so this is only for type checkers
                return await inner(message)
            began, conflicts = loop_time(), 0
            while True:
                result = await _run(inner, message, transaction, state)
                error = result.error
                if error is None or not transaction.is_conflict(error):
                    return result
                conflicts += 1
                is_late = loop_time() - began > longest or in_flight.is_stopping
                if conflicts == MAX_CONFLICTS or is_late:
                    return replace(result, error=_conflict(message, conflicts, error))
                _log_conflict(message, conflicts)
                await transaction.restart()
                await asyncio.sleep(backoff(conflicts) / 10)

        return call

    return stage


async def _run(
    inner: InboundHandler, message: InboundMessage, transaction: Transaction, state: EndpointState
) -> HandlingResult:
    result = await inner(message)
    if result.error is not None:
        return result
    row = row_of(message)
    try:
        if row is None:
            is_committed = await transaction.commit()
        else:
            is_committed = result.is_committed = await row.commit(transaction, result.reply)
    except Exception as error:  # noqa: BLE001 - of the database, or of a user's type or listener
        blame_handler(error, state.endpoint.function)
        return HandlingResult(error=error, has_run=True)
    if is_committed:
        return result
    return HandlingResult(error=_stale(message), has_run=True, is_stale=True)


def _conflict(message: InboundMessage, conflicts: int, cause: BaseException) -> Aborted:
    error = Aborted(
        f"{message.envelope.type}: the transaction of the handler had a conflict with concurrent "
        f"work {conflicts} times. Let handlers of the same rows run one at a time, or let them "
        "read fewer rows."
    )
    error.__cause__ = cause
    return error


def _stale(message: InboundMessage) -> Aborted:
    return Aborted(
        f"{message.envelope.type}: another process has taken the message over, because the lease "
        "of this process has expired. Nothing was written."
    )


def _log_conflict(message: InboundMessage, conflicts: int) -> None:
    if log.isEnabledFor(logging.DEBUG):
        log.debug(
            "%s: conflict %d of its transaction; its handler runs again",
            message_label(message.envelope),
            conflicts,
            extra=message_facts(message.envelope, conflicts=conflicts),
        )
