"""Retries of the client: a send that certainly failed, or that may happen twice, is repeated."""

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

__all__ = ["retry"]


def retry(*, clock: Callable[[], float] = time.time, catalog: Catalog = CATALOG) -> Middleware:
    """Repeat a send that the broker or the connection failed, until `envelope.deadline`.

    All attempts have the same message id. An event or job is always repeated, because its receivers
    recognize the id. It is repeated after a nack of the broker too. A request is repeated if its
    contract is idempotent, or if it was certainly not sent. The caller decides about errors that
    the other service returned; they are never repeated here.

    If an attempt may have arrived, the error of a later attempt has `maybe_executed`.

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
                    if not _is_repeated(envelope, error, catalog) or _is_late(
                        envelope, clock() + wait
                    ):
                        if not in_doubt:
                            raise
                        raise _mark_in_doubt(error) from None
                    in_doubt = in_doubt or error.maybe_executed
                attempt += 1
                await asyncio.sleep(wait)

        return call

    return layer


def _is_repeated(envelope: Envelope, error: BusError, catalog: Catalog) -> bool:
    """Return True if the send is repeated."""
    if isinstance(error, ResourceExhausted) and envelope.role != "request":
        # The broker's nack: a full queue drains, and a queue without a leader gets one in seconds.
        return True
    if not isinstance(error, ConnectionLost):
        # `NotServed` is an answer. After `Unavailable` the transport has waited until the deadline.
        return False
    if envelope.role != "request" or not error.maybe_executed:
        return True
    contract = catalog.get(envelope.type)
    return contract is not None and contract.idempotent


def _mark_in_doubt(error: BusError) -> BusError:
    """Return the error of the last attempt if an earlier attempt may have arrived."""
    # `Unavailable` would mean that the message was certainly not sent.
    if type(error) is Unavailable:
        return ConnectionLost(f"{error} (an earlier attempt may have arrived)", maybe_executed=True)
    error.maybe_executed = True
    return error


def _is_late(envelope: Envelope, moment: float) -> bool:
    return envelope.deadline is not None and moment * 1000 >= envelope.deadline
