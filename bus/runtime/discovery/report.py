"""The report of an instance: the content of its answers."""

from typing import Protocol

from bus.messaging.chaos_info import InstanceChaos
from bus.messaging.policy_info import InstanceBreakers
from bus.messaging.service_info import (
    InstanceInfo,
    InstanceState,
    InstanceStats,
    RememberedMessages,
)

__all__ = ["Report"]


class Report(Protocol):
    """Interface of the object that describes this process."""

    def state(self) -> InstanceState:
        """Return the answer to PING."""
        ...

    def info(self) -> InstanceInfo:
        """Return the answer to INFO."""
        ...

    def stats(self) -> InstanceStats:
        """Return the answer to STATS."""
        ...

    def breakers(self) -> InstanceBreakers:
        """Return the circuit breakers of this process."""
        ...

    def chaos(self) -> InstanceChaos:
        """Return the chaos experiment of this process."""
        ...

    def find(self, text: str) -> RememberedMessages:
        """Return the remembered messages with a correlation id or a message id."""
        ...
