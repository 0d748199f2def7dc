"""The client's retries: what surely did not happen, or may happen twice, is tried again until the deadline."""

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
    """Try again what the broker or the connection failed, with the same message id, never past `envelope.deadline`.

    Events and jobs are always safe to send again: their receivers know the id. A request is where its contract is
    idempotent, or where it surely was not sent. An event or job that the broker refuses is offered again, too. What the
    other service answered is never tried again here: that is for the caller to decide.

    Where an attempt may have arrived, no later one can say that the message was surely not sent: `maybe_executed` is set.
    """

    def layer(inner: Handler) -> Handler:
        async def call(envelope: Envelope) -> Envelope | None:
            attempt, doubtful = 1, False
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
                    if not _next_delay(envelope, error, catalog) or _late(envelope, clock() + wait):
                        if not doubtful:
                            raise
                        raise _in_doubt(error) from None
                    doubtful = doubtful or error.maybe_executed
                attempt += 1
                await asyncio.sleep(wait)

        return call

    return layer


def _next_delay(envelope: Envelope, error: BusError, catalog: Catalog) -> bool:
    if isinstance(error, ResourceExhausted) and envelope.role != "request":
        return True  # the broker's nack: a queue that is full drains, and one that lost its leader has another in seconds
    if not isinstance(error, ConnectionLost):
        return False  # nobody there is an answer; and a transport that could not send has waited for the deadline already
    if envelope.role != "request" or not error.maybe_executed:
        return True
    contract = catalog.get(envelope.type)
    return contract is not None and contract.idempotent


def _in_doubt(error: BusError) -> BusError:
    """The last attempt's error, where an earlier attempt may have arrived."""
    if type(error) is Unavailable:  # which means that it was surely not sent
        return ConnectionLost(f"{error}; an earlier attempt may have arrived", maybe_executed=True)
    error.maybe_executed = True
    return error


def _late(envelope: Envelope, moment: float) -> bool:
    return envelope.deadline is not None and moment * 1000 >= envelope.deadline
