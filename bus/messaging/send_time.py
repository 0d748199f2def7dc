"""The moment at which a request was written to the connection, for a policy that times requests.

Before that moment, a request can wait for a connection or for a permit of this process. That wait
does not show how fast the called service is.
"""

from contextvars import ContextVar

__all__ = ["SendTime", "current_send"]


class SendTime:
    """The begin of one attempt, which the client moves to the moment of its send."""

    __slots__ = ("at",)

    def __init__(self, at: float) -> None:
        """Create the time of an attempt that begins at `at`, in seconds of the event loop."""
        self.at = at


current_send: ContextVar[SendTime | None] = ContextVar("bus.current_send", default=None)
"""The time of the attempt that is sent now. None if no policy needs it."""
