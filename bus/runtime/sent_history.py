"""Memory of sent messages: their ids, types and times, so that an operator can find a message."""

from collections.abc import Callable
from time import perf_counter

from bus.messaging.envelope import Envelope
from bus.messaging.ports.history import History

__all__ = ["sent_history"]

Remember = Callable[[Envelope, float, str], None]
"""A function that receives a message, the start of its send by `perf_counter`, and its outcome."""


def sent_history(history: History | None, clock: Callable[[], float]) -> Remember:
    """Return the function with which a client remembers each attempt to send a message.

    It is not a middleware, so that a user's own list of middlewares cannot remove it.

    Args:
        history: History of this process, or None.
        clock: Function that returns seconds since the epoch.
    """
    if history is None:
        return _forget
    add = history.add

    def remember(envelope: Envelope, started: float, outcome: str) -> None:
        seconds = perf_counter() - started
        add(
            (
                "sent",
                envelope.id,
                envelope.type,
                envelope.source,
                clock() - seconds,
                seconds,
                envelope.attempt,
                outcome,
                envelope.correlation_id or envelope.id,
                envelope.causation_id,
                envelope.traceparent,
                None,
                None,
                0,
            )
        )

    return remember


def _forget(_envelope: Envelope, _started: float, _outcome: str) -> None:
    """Do nothing, because no history is kept."""
