"""Memory of sent messages: their ids, types and times, so that an operator can find a message."""

import time
from collections.abc import Callable

from bus.messaging.envelope import Envelope
from bus.messaging.handler import Handler, Middleware
from bus.messaging.outcomes import outcome_of
from bus.messaging.ports.history import History

__all__ = ["remember"]


def remember(
    history: History,
    *,
    clock: Callable[[], float] = time.time,
    timer: Callable[[], float] = time.perf_counter,
) -> Middleware:
    """Add each attempt to send a message to the history, with its outcome.

    This layer is the innermost, because the ids and the trace of the message are complete there.

    Args:
        history: History of this process.
        clock: Function that returns the current time in seconds since the epoch.
        timer: Function that returns a time in seconds. The duration is the difference of two times.
    """

    def layer(inner: Handler) -> Handler:
        async def call(envelope: Envelope) -> Envelope | None:
            at, started = clock(), timer()
            try:
                result = await inner(envelope)
            except BaseException as error:  # such as the cancellation of the caller
                history.remember("sent", envelope, at, timer() - started, outcome_of(error))
                raise
            history.remember("sent", envelope, at, timer() - started)
            return result

        return call

    return layer
