"""The report of an instance: the content of its answers."""

from collections.abc import Callable
from typing import Any, Literal, Protocol

from bus.messaging.service_info import (
    InstanceInfo,
    InstanceState,
    InstanceStats,
    RememberedMessages,
)

__all__ = ["Report", "State", "StateReport"]

State = Literal["starting", "ready", "not-ready", "draining"]


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

    def find(self, correlation_id: str) -> RememberedMessages:
        """Return the remembered messages with a correlation id."""
        ...


class StateReport:
    """A report that knows only the state of its process. It has no contracts and no statistics."""

    def __init__(
        self,
        service: str,
        instance: str,
        state: Callable[[], State],
        *,
        version: str | None = None,
        started: int,
    ) -> None:
        """Create the report of one process.

        Args:
            service: Name of the service.
            instance: Name of the process.
            state: Returns the state of the process now.
            version: Version of the service.
            started: Start of the process, in milliseconds since the epoch.
        """
        self._state, self._started = state, started
        self._known: dict[str, Any] = {
            "service": service,
            "instance": instance,
            "version": version,
            "started": started,
        }

    def state(self) -> InstanceState:
        """Return the answer to PING."""
        return InstanceState(**self._known, state=self._state())

    def info(self) -> InstanceInfo:
        """Return the state, the version of this library and the version of Python."""
        from importlib.metadata import version  # noqa: PLC0415 - imported for the first INFO only
        from platform import python_version  # noqa: PLC0415 - as above

        return InstanceInfo(
            **self._known,
            state=self._state(),
            bus_version=version("trunkline"),
            python_version=python_version(),
        )

    def stats(self) -> InstanceStats:
        """Return the state without statistics."""
        return InstanceStats(**self._known, state=self._state(), since=self._started)

    def find(self, correlation_id: str) -> RememberedMessages:  # noqa: ARG002 - as in `Report`
        """Return no messages, because this report remembers none."""
        return RememberedMessages(**self._known, state=self._state(), since=self._started)
