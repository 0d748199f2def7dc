"""The bulkhead: it bounds the requests to one service that wait at the same time.

Source: Nygard, "Release It!" (2007).
"""

from collections import OrderedDict
from collections.abc import Callable

from bus.errors import BusError

__all__ = ["Bulkhead", "Waiter"]


class Waiter:
    """A request that waits for a permit."""

    __slots__ = ("error", "has_permit", "type", "wake")

    def __init__(self, type_: str, wake: Callable[[], None]) -> None:
        """Create a waiter without a permit.

        Args:
            type_: Type of the request.
            wake: Function that lets the request continue, with a permit or with an error. It must
                not raise.
        """
        self.type = type_
        self.wake = wake
        self.has_permit = False
        self.error: BusError | None = None
        """Error of the request, which then must not be sent."""

    def take_error(self) -> BusError | None:
        """Return the error, and forget it. Otherwise its traceback would be a reference cycle."""
        error, self.error = self.error, None
        return error


class Bulkhead:
    """The permits for the requests to one service, in this process.

    A request holds a permit until its reply has arrived. A permit that becomes free goes to the
    request that waits longest. So there is a free permit only if no request waits.
    """

    __slots__ = ("_called", "_waiters", "in_flight", "max_in_flight", "max_waiting")

    def __init__(self, max_in_flight: int, max_waiting: int) -> None:
        """Create a bulkhead with all permits.

        Args:
            max_in_flight: Number of permits, at least 1.
            max_waiting: Maximum number of requests that wait for a permit.
        """
        self.max_in_flight, self.max_waiting = max_in_flight, max_waiting
        self.in_flight = 0
        """Number of requests that hold a permit."""
        # A dictionary finds its first entry slowly after many removals at its beginning.
        self._waiters: OrderedDict[Waiter, None] = OrderedDict()
        self._called: dict[Waiter, None] = {}
        """Requests that have got a permit, and have not continued yet."""

    @property
    def waiting(self) -> int:
        """Number of requests that wait for a permit."""
        return len(self._waiters)

    def admit(self) -> bool:
        """Take a permit, and return True. Return False if none is free."""
        if self.in_flight < self.max_in_flight:
            self.in_flight += 1
            return True
        return False

    def enqueue(self, waiter: Waiter) -> bool:
        """Let a request wait for a permit. Return False if too many requests wait already."""
        if len(self._waiters) >= self.max_waiting:
            return False
        self._waiters[waiter] = None
        return True

    def begin(self, waiter: Waiter) -> None:
        """Note that a request with a permit continues. From now on nothing can refuse it."""
        self._called.pop(waiter, None)

    def release(self) -> None:
        """Pass a permit to the request that waits longest, or make the permit free."""
        if not self._waiters:
            self.in_flight -= 1
            return
        waiter, _ = self._waiters.popitem(last=False)
        waiter.has_permit = True
        self._called[waiter] = None
        waiter.wake()

    def leave(self, waiter: Waiter) -> None:
        """End the wait of a request that is not sent. If it has got a permit, pass the permit on.

        A waiter can get a permit while it is being cancelled. A further call changes nothing.
        """
        self._called.pop(waiter, None)
        if waiter.has_permit:
            waiter.has_permit = False
            self.release()
        else:
            self._waiters.pop(waiter, None)

    def refuse_waiting(self, type_: str, make_error: Callable[[], BusError]) -> None:
        """End the wait of all requests of one type with an error.

        The request that fails passes its permit on before its breaker opens. So a request that has
        got this permit, and has not continued yet, is refused, too.

        Args:
            type_: Type of the requests. The service's other requests continue to wait.
            make_error: Function that returns a new error for each request.
        """
        for waiter in [each for each in self._called if each.type == type_]:
            waiter.error = make_error()
        for waiter in [each for each in self._waiters if each.type == type_]:
            del self._waiters[waiter]
            waiter.error = make_error()
            waiter.wake()
