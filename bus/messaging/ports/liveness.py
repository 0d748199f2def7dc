"""The port of a transport that can tell whether the broker answers.

A request can time out because the called service does not work, or because the broker does not
answer. Only the first one counts against the service.
"""

from typing import Protocol, runtime_checkable

__all__ = ["Liveness"]


@runtime_checkable
class Liveness(Protocol):
    """The signs of the broker on the connection that carries requests and replies.

    All times are in seconds of the event loop's clock.
    """

    @property
    def connected_at(self) -> float | None:
        """Time at which the connection was opened. None if it is down."""
        ...

    @property
    def heard_at(self) -> float:
        """Time of the last sign of the broker, or minus infinity if there was none."""
        ...

    def ping(self) -> None:
        """Let the broker give a sign. Do not wait for it.

        The method does nothing if the last ping has no answer yet, or if the connection is down.
        """
        ...
