"""Resends of the client after a lost connection.

A send is repeated if it certainly failed, or if a second delivery does no harm.
"""

import asyncio
import time
from collections.abc import Callable

from bus.contracts.contract import CATALOG, Catalog
from bus.errors import (
    BusError,
    ConnectionLost,
    DeadlineExceeded,
    PermissionDenied,
    ResourceExhausted,
    Unavailable,
)
from bus.messaging.backoff import backoff
from bus.messaging.envelope import Envelope
from bus.messaging.handler import Handler, Middleware
from bus.messaging.resends import mark_in_doubt, tell_resend

__all__ = ["resend"]


def resend(*, clock: Callable[[], float] = time.time, catalog: Catalog = CATALOG) -> Middleware:
    """Repeat a send that failed at the broker or the connection, until `envelope.deadline`.

    `envelope.limits.retries` limits the number of repetitions.

    All attempts have the same message id. An event or job is always repeated, even after a nack of
    the broker, because its receivers recognize the id. A request is repeated if its contract is
    idempotent, or if it was certainly not sent. The policy `retry` of the destination repeats a
    request after an error of the called service. Resends take no tokens of its retry budget,
    because a lost connection is not a fault of the service.

    If an earlier attempt may have reached the service, `maybe_executed` is true in the final error.

    Args:
        clock: Function that returns the current time in seconds since the epoch.
        catalog: Contracts of this process.
    """

    def layer(inner: Handler) -> Handler:
        async def call(envelope: Envelope) -> Envelope | None:
            attempt, in_doubt = 1, False
            while True:
                try:
                    return await inner(envelope)
                except (
                    Unavailable,
                    ResourceExhausted,
                    DeadlineExceeded,
                    PermissionDenied,
                ) as error:
                    wait = backoff(attempt)
                    if (
                        not _is_repeated(envelope, error, catalog)
                        or _has_no_resend_left(envelope, attempt)
                        or _is_late(envelope, clock() + wait)
                    ):
                        if not in_doubt:
                            raise
                        raise mark_in_doubt(error) from None
                    in_doubt = in_doubt or error.maybe_executed
                    tell_resend(error)
                attempt += 1
                await asyncio.sleep(wait)

        return call

    return layer


def _is_repeated(envelope: Envelope, error: BusError, catalog: Catalog) -> bool:
    """Return True if the client repeats the failed send."""
    if isinstance(error, ResourceExhausted) and envelope.role != "request":
        # The broker sent a nack. A resend can succeed: a full queue drains, and a queue without a
        # leader gets a new leader in seconds.
        return True
    if not isinstance(error, ConnectionLost):
        # A resend cannot help. `NotServed` is a definite answer of the broker. Before any other
        # `Unavailable`, the transport has already waited until the deadline.
        return False
    if envelope.role != "request" or not error.maybe_executed:
        return True
    contract = catalog.get(envelope.type)
    return contract is not None and contract.idempotent


def _has_no_resend_left(envelope: Envelope, attempt: int) -> bool:
    """Return True if the settings allow no further attempt to send the message."""
    limits = envelope.limits
    return limits is not None and limits.retries is not None and attempt > limits.retries


def _is_late(envelope: Envelope, moment: float) -> bool:
    return envelope.deadline is not None and moment * 1000 >= envelope.deadline
