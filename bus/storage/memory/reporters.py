"""The objects with values that the meter or the history does not have yet."""

from threading import Lock
from weakref import WeakSet

from bus.messaging.ports.meter import Reporter

__all__ = ["Reporters"]


class Reporters:
    """Objects that report before each read, as long as they live."""

    def __init__(self) -> None:
        self._objects: WeakSet[Reporter] = WeakSet()
        # A reader in another thread must not iterate while a new object is added.
        self._lock = Lock()

    def add(self, reporter: Reporter) -> None:
        """Add an object, without keeping it alive."""
        with self._lock:
            self._objects.add(reporter)

    def report(self) -> None:
        """Call `report` of each object. The method can be called from any thread."""
        with self._lock:
            reporters = list(self._objects)
        for reporter in reporters:
            reporter.report()
