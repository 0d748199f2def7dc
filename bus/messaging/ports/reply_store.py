"""The port of the store that keeps replies for the callers of one process."""

from typing import NamedTuple, Protocol

from bus.messaging.envelope import Envelope

__all__ = ["ReplyKey", "ReplyStore"]


class ReplyKey(NamedTuple):
    """All values on which the reply to a request can depend."""

    type: str
    """Type of the request, `<name>.v<version>`."""
    digest: bytes
    """SHA-256 of the payload."""
    caller: str
    """Service that sends the request."""
    rights: frozenset[str]
    """Permissions of the caller when it sends the request."""
    headers: tuple[tuple[str, str | int], ...]
    """Headers of the request, which the middlewares of an application can set."""


class ReplyStore(Protocol):
    """Interface of a store of replies, in the memory of one process.

    An implementation is bounded, and never writes a reply to a disk. It never raises an error.
    """

    def find(self, key: ReplyKey) -> Envelope | None:
        """Return the kept reply to a request. Return None if there is none, or if it is too old."""
        ...

    def add(self, key: ReplyKey, reply: Envelope, seconds: float) -> None:
        """Keep a reply for a number of seconds, in place of an earlier reply with this key."""
        ...

    def clear(self) -> None:
        """Remove all replies."""
        ...
