"""Calls of threads that wait for a background loop, and the selector through which they arrive.

A call costs the switch to the loop's thread and back, and little more. Therefore a selector accepts
the calls. `loop.call_soon_threadsafe` would start a call in the next iteration of the loop, and its
first step in the iteration after that. And `asyncio.run_coroutine_threadsafe` uses two futures.
"""

import asyncio
import selectors
import socket
import threading
from collections import deque
from collections.abc import Callable, Coroutine
from contextlib import suppress
from contextvars import copy_context
from typing import Any, Generic, TypeVar, cast

from typing_extensions import override

from bus.errors import ConnectionLost

__all__ = ["Call", "CallSelector"]

T = TypeVar("T")


class Call(Generic[T]):
    """A call of a thread that waits for the loop."""

    __slots__ = ("_error", "_has_ended", "_lock", "_task", "_value", "_work", "context")

    def __init__(self, work: Callable[[], Coroutine[Any, Any, T]]) -> None:
        self.context = copy_context()
        self._work = work
        self._task: asyncio.Task[None] | None = None
        self._value: T | None = None
        self._error: BaseException | None = None
        self._has_ended = False
        self._lock = threading.Lock()
        self._lock.acquire()

    def start(self) -> None:
        """Start the work. The loop calls this method."""
        loop = asyncio.get_running_loop()
        self._task = loop.create_task(self._run(), context=self.context)

    async def _run(self) -> None:
        try:
            self._value = await self._work()
        # The waiting thread receives every error. Only it may end by `SystemExit`.
        except asyncio.CancelledError:
            self.fail(
                ConnectionLost(
                    "the call was cancelled before it ended. The message may have been sent.",
                    maybe_executed=True,
                )
            )
        except BaseException as error:  # noqa: BLE001
            self.fail(error)
        self._end()

    def cancel(self) -> None:
        """Cancel the work, for which no thread waits any more. The loop calls this method."""
        if self._task is not None:
            self._task.cancel()

    def fail(self, error: BaseException) -> None:
        """End the call with an error, unless it has ended."""
        if not self._has_ended:
            self._error = error
            self._end()

    def _end(self) -> None:
        if not self._has_ended:
            self._has_ended = True
            self._lock.release()

    def wait(self) -> None:
        """Wait until the call has ended."""
        self._lock.acquire()

    def result(self) -> T:
        """Return the result of the work, or raise its error."""
        error, self._error = self._error, None
        if error is None:
            return cast("T", self._value)
        try:
            raise error
        finally:
            del error  # its traceback has this frame: the two would keep each other alive


class CallSelector(selectors.DefaultSelector):
    """A selector that also accepts functions from other threads.

    The event loop calls `select` once in each iteration, before it runs the callbacks that are
    ready. A function that creates a task there has its first step in the same iteration.
    """

    def __init__(self) -> None:
        super().__init__()
        self._functions: deque[Callable[[], object]] = deque()
        self._woken, self._waker = socket.socketpair()
        self._woken.settimeout(0)
        self._waker.settimeout(0)
        self._key = self.register(self._woken, selectors.EVENT_READ)

    def add(self, function: Callable[[], object]) -> None:
        """Let the thread of the event loop call a function. Any thread may call this method.

        Raises:
            OSError: The selector is closed, and the function is not called.
        """
        self._functions.append(function)
        try:
            self.send_byte()
        except OSError:
            # The loop was awake. It can have called the function, and ended, before this byte.
            if function in self._functions:
                self._functions.remove(function)
                raise

    def send_byte(self) -> None:
        """Wake the event loop.

        Raises:
            OSError: The selector is closed.
        """
        with suppress(BlockingIOError):  # the loop has not yet read the earlier bytes
            self._waker.send(b"\0")

    @override
    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Return the sockets that are ready, after a call of each function that was added."""
        events = super().select(timeout)
        for index, (key, _) in enumerate(events):
            if key is self._key:
                self._woken.recv(4096)
                del events[index]
                break
        while self._functions:
            self._functions.popleft()()
        return events

    def sockets(self) -> list[int]:
        """Return the descriptors of all sockets of the event loop, and of the selector itself."""
        registered = (self.get_map() or {}).values()
        return [*(key.fd for key in registered), self._waker.fileno()]

    @override
    def close(self) -> None:
        """Close the selector and its own sockets."""
        super().close()
        self._woken.close()
        self._waker.close()
