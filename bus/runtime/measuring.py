"""The choice of what a process measures, by its settings."""

from collections.abc import Callable

from bus.messaging.ports.history import History
from bus.messaging.ports.meter import NO_METER, Meter
from bus.settings import Settings
from bus.storage.memory.message_history import MessageHistory
from bus.storage.memory.meter import MemoryMeter

__all__ = ["measuring_of"]


def measuring_of(settings: Settings, clock: Callable[[], float]) -> tuple[Meter, History | None]:
    """Return the meter and the history of a process.

    Discovery reads both, and `/metrics` reads the meter. If nothing reads them, the process
    measures nothing, and its messages cost no time for it.

    Args:
        settings: The settings of the service.
        clock: A function that returns seconds since the epoch.
    """
    answers = settings.discovery == "on"
    is_metered = answers or settings.health_port is not None
    is_remembered = answers and settings.remembered_messages > 0
    return (
        MemoryMeter(clock=clock) if is_metered else NO_METER,
        MessageHistory(settings.remembered_messages) if is_remembered else None,
    )
