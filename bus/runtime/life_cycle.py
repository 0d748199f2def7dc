"""The life cycle of a `Bus`: it is opened, closed and opened again, each time in one event loop."""

import asyncio
import os
import secrets
import socket
from enum import Enum

from bus.errors import BusError, FailedPrecondition, Unavailable

__all__ = ["LifeCycle", "error_in_other_loop", "new_instance", "running_loop"]

running_loop = asyncio._get_running_loop  # noqa: SLF001 - as fast, and documented by asyncio
"""Return the running event loop. Unlike `asyncio.get_running_loop`, return None without one.

A process that a handler forks has none, although its code continues inside the handler.
"""


class Phase(Enum):
    """A phase of a bus. The value is the part of the error message that names the phase."""

    NEW = "is not open"
    OPENING = "is still connecting"
    OPEN = "is open"
    CLOSING = "is closing"
    CLOSED = "was closed"


class LifeCycle:
    """The phase of a bus, and the event loop to which its connection belongs.

    A bus compares `loop` with the running event loop before each operation, and raises `error()` if
    the two differ. So the check of a correct use costs one comparison.
    """

    def __init__(self, service: str) -> None:
        self._service = service
        self._phase = Phase.NEW
        self._process = os.getpid()
        self._owner: asyncio.AbstractEventLoop | None = None
        """The event loop that entered the bus last."""
        self.loop: asyncio.AbstractEventLoop | None = None
        """The event loop in which the bus can be used. None unless the bus is open."""

    @property
    def is_open(self) -> bool:
        """True if the bus is open. The running event loop can be a different one."""
        return self.loop is not None

    @property
    def is_closing(self) -> bool:
        """True if the bus is closing, or was closed."""
        return self._phase in {Phase.CLOSING, Phase.CLOSED}

    def check(self) -> None:
        """Check that the bus is open, and belongs to the running event loop.

        Raises:
            Unavailable: The bus is not open.
            FailedPrecondition: The bus belongs to another event loop.
        """
        if self.loop is not running_loop():
            raise self.error()

    def error(self) -> BusError:
        """Return the error of an operation outside of the bus's block or event loop."""
        if self._is_abandoned():
            is_parents = self._process != os.getpid()
            where = "by a parent process" if is_parents else "in an event loop that has ended"
            return FailedPrecondition(
                f"{self._subject} was opened {where}. Enter it here: `async with bus:`."
            )
        if self.loop is not None:
            return error_in_other_loop(self._subject)
        remedy = {
            Phase.NEW: f"Enter it before you use it: `async with Bus({self._service!r}) as bus:`",
            Phase.OPENING: "Use it inside the block of `async with`",
            Phase.CLOSING: "Finish all work before the block of `async with` ends",
        }.get(self._phase, "Enter it again with `async with bus:`, or use it before its block ends")
        return Unavailable(f"{self._subject} {self._phase.value}. {remedy}.")

    def begin(self) -> bool:
        """Begin to open the bus in the running event loop.

        Returns:
            True if the bus must be built again, because it was opened before or in another process.

        Raises:
            FailedPrecondition: The bus is open, opening or closing now.
        """
        is_again = self._phase is not Phase.NEW or self._process != os.getpid()
        if self._phase not in {Phase.NEW, Phase.CLOSED} and not self._is_abandoned():
            raise FailedPrecondition(
                f"{self._subject} {self._phase.value}, so it cannot be entered again now. "
                f"Create another Bus({self._service!r}) for a second connection."
            )
        self._phase, self._process = Phase.OPENING, os.getpid()
        self._owner, self.loop = asyncio.get_running_loop(), None
        return is_again

    def opened(self) -> None:
        """Allow operations in the event loop that entered the bus."""
        self._phase, self.loop = Phase.OPEN, self._owner

    def closing(self) -> bool:
        """Refuse further operations. Return False if the bus is not open, so nothing is closed.

        Raises:
            FailedPrecondition: The bus belongs to another event loop.
        """
        if self._phase is not Phase.OPEN:
            return False
        self.check()
        self._phase, self.loop = Phase.CLOSING, None
        return True

    def closed(self) -> None:
        """Allow that the bus is entered again."""
        self._phase, self.loop = Phase.CLOSED, None

    @property
    def _subject(self) -> str:
        return f"the bus of {self._service!r}"

    def _is_abandoned(self) -> bool:
        """Return True if the bus was not closed, and its event loop has ended or is not here."""
        in_use = self._phase in {Phase.OPENING, Phase.OPEN, Phase.CLOSING}
        has_ended = self._owner is not None and self._owner.is_closed()
        return in_use and (has_ended or self._process != os.getpid())


def error_in_other_loop(subject: str) -> FailedPrecondition:
    """Return the error of an operation in a different event loop than the one of its bus.

    Args:
        subject: The object that was used, for the error message.
    """
    return FailedPrecondition(
        f"{subject} belongs to another event loop. Use it in the event loop that entered the bus, "
        "for example with asyncio.run_coroutine_threadsafe, or enter a new Bus in this loop."
    )


def new_instance() -> str:
    """Return the name of a new connection of this process. The reply queue has this name.

    Each connection has another name, because the reply queue of the last one can still exist. And a
    forked process must not use the name of its parent.
    """
    return f"{socket.gethostname()[:30]}-{os.getpid()}-{secrets.token_hex(6)}"
