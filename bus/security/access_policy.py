"""Who may do what, as those see it who ask: `bus.security.grants` has it from a file."""

from typing import Protocol

__all__ = ["Rights"]


class Rights(Protocol):
    """Who may do what, by permission."""

    def may_call(self, service: str, permission: str) -> bool:
        """Requests and jobs."""
        ...

    def may_publish(self, service: str, permission: str) -> bool:
        """Events."""
        ...

    def may_consume(self, service: str, permission: str) -> bool:
        """Events of others."""
        ...

    def scope(self, service: str) -> frozenset[str]:
        """All that it may call."""
        ...

    def knows(self, service: str) -> bool:
        """Whether it has rights at all; only then has the broker a user for it, and lets it be answered."""
        ...
