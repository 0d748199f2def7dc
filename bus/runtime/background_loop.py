"""An event loop in a thread of its own, for callers that have no event loop.

A thread that calls `BackgroundLoop.run` puts its call into the queue of the loop's selector, and
waits on a lock. The end of the call releases the lock.
"""

import asyncio
import atexit
import logging
import os
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from contextvars import Context
from typing import Any, TypeVar
from weakref import WeakSet

from bus.errors import BusError, ConnectionLost, DeadlineExceeded, FailedPrecondition, Unavailable
from bus.messaging.failure_location import failure_facts
from bus.messaging.labels import failure_label
from bus.messaging.timers import format_seconds
from bus.runtime.background_calls import Call, CallSelector
from bus.runtime.thread_forks import ThreadForks, threads_have_ended

__all__ = ["BackgroundLoop"]

log = logging.getLogger("bus")

T = TypeVar("T")

CLOSE_SECONDS = 5.0
"""The maximum number of seconds for the clean end of a loop, for example of its connections."""
JOIN_SECONDS = CLOSE_SECONDS + 1
"""Seconds that `stop` waits for the thread. After this time the thread continues as a daemon."""
LATE_SECONDS = 1.0
"""Seconds after the time limit of a call at which its thread checks that the loop still runs."""
ANSWER_SECONDS = 5.0
"""Seconds after which a loop that does not answer counts as blocked."""
STEPS_TO_END = 10
"""Iterations of the loop in which calls can still end after the bus was closed."""
UNLIMITED_SECONDS = 60.0
"""Seconds between two checks of the loop, for a call without a time limit."""


class BackgroundLoop:
    """An event loop that runs in a daemon thread until `stop`, or until the interpreter exits.

    A process that is forked later inherits only the memory of the loop, and not its thread. In that
    process the loop has ended, its sockets are closed without a byte being sent, and each call that
    has not returned fails.
    """

    def __init__(self, subject: str, on_stop: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Start the thread.

        Args:
            subject: The owner of the loop, for error messages.
            on_stop: Closes the loop's connections. It runs in the loop, and is cancelled after
                `CLOSE_SECONDS`.

        Raises:
            Unavailable: No thread can be started, for example because the interpreter exits.
        """
        self._subject = subject
        self._on_stop = on_stop
        self._process = os.getpid()
        self._is_running = True
        self._calls: set[Call[Any]] = set()
        self._selector = CallSelector()
        self._loop = asyncio.SelectorEventLoop(self._selector)
        self._stopping = asyncio.Event()
        self._thread = threading.Thread(target=self._main, name=subject, daemon=True)
        _loops.add(self)
        _exit.register()
        try:
            if _exit.has_begun:
                raise RuntimeError("the interpreter exits")  # noqa: TRY301 - as newer versions do
            self._thread.start()
        except RuntimeError as error:
            self._is_running = False
            self._loop.close()
            raise Unavailable(
                f"{subject} cannot start a thread ({error}). Use it before the process ends."
            ) from None

    @property
    def is_running(self) -> bool:
        """True if the loop runs in this process. It is False in a forked child."""
        # Some servers fork without the hooks of Python, for example uWSGI in its default.
        return self._is_running and self._process == os.getpid()

    @property
    def is_inherited(self) -> bool:
        """True if a parent process started the loop."""
        return self._process != os.getpid()

    @property
    def is_in_use(self) -> bool:
        """True if a thread waits for a call."""
        return bool(self._calls)

    def run(
        self, work: Callable[[], Coroutine[Any, Any, T]], limit: float = UNLIMITED_SECONDS
    ) -> T:
        """Call an asynchronous function in the loop, and wait for its result.

        The function runs in a copy of the calling thread's context. If the wait is interrupted, for
        example by Ctrl-C, the function is cancelled.

        Args:
            work: The asynchronous function.
            limit: Seconds after which the function should have ended. If it has not ended soon
                after, the thread checks that the loop still runs.

        Raises:
            ConnectionLost: The loop was stopped before the function had ended.
            DeadlineExceeded: The loop is blocked, and the function has not ended.
            FailedPrecondition: A parent process started the loop.
            Unavailable: The loop has ended. Or the loop is blocked, and the function has not begun.
        """
        if not self.is_running:
            raise self.error()
        call = Call(work)
        self._calls.add(call)
        try:
            self._schedule(call.start)
            while not call.wait(limit + LATE_SECONDS):
                if not self._answers() and not call.wait(0):
                    raise self._blocked(has_begun=call.abandon())  # noqa: TRY301
        except BaseException:
            self.run_soon(call.cancel)
            raise
        finally:
            self._calls.discard(call)
        return call.result()

    def _answers(self) -> bool:
        """Return True if the loop still runs callbacks."""
        answered = threading.Event()
        self.run_soon(answered.set)
        return answered.wait(ANSWER_SECONDS)

    def _blocked(self, *, has_begun: bool) -> BusError:
        problem = (
            f"{self._subject}: its event loop has not run for {format_seconds(ANSWER_SECONDS)}, so "
        )
        advice = "Check that no middleware of the client blocks its thread."
        if has_begun:
            return DeadlineExceeded(
                f"{problem}the call has not ended in time. {advice}", maybe_executed=True
            )
        return Unavailable(f"{problem}the call was not begun. {advice}")

    def run_soon(self, function: Callable[[], object]) -> None:
        """Call a function in the loop, and do not wait for it. Do nothing if the loop has ended."""
        if self.is_running:
            with suppress(Unavailable):
                self._schedule(function)

    def _schedule(self, function: Callable[[], object]) -> None:
        try:
            self._selector.add(function)
        except OSError:  # the loop has been closed just now
            raise self.error() from None

    def error(self) -> BusError:
        """Return the error of a call after the end of the loop."""
        if self.is_inherited:
            return FailedPrecondition(
                f"{self._subject} was opened by a parent process. Call it in this process first."
            )
        return Unavailable(
            f"{self._subject} was closed. Enter it again with `with bus:`, or use it before it is "
            "closed."
        )

    def stop(self) -> None:
        """End the loop, and wait up to `JOIN_SECONDS` for its thread.

        Do nothing if the loop has ended, or if a parent process started it. In the loop's own
        thread, do not wait: a middleware that closes its bus returns to the loop.
        """
        if self.is_running:
            self.stop_soon()
            if self._thread.ident != threading.get_ident():
                self._thread.join(JOIN_SECONDS)

    def stop_soon(self) -> None:
        """Begin to end the loop, and do not wait. Do nothing if the loop has ended."""
        self.run_soon(self._stopping.set)

    def _main(self) -> None:
        try:
            with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
                runner.run(self._serve(), context=Context())
        except BaseException as error:  # noqa: BLE001 - an exit in a callback ends only this loop
            self._report(error)
        finally:
            # A call that was added later finds a closed loop. So no thread waits forever, whatever
            # has ended the loop.
            self._is_running = False
            for call in [*self._calls]:
                call.fail(self._lost())

    def _report(self, error: BaseException) -> None:
        facts = failure_facts(error)
        log.error(
            "%s: its event loop ended unexpectedly (%s). The next call starts another",
            self._subject,
            failure_label(facts),
            extra=facts,
        )

    async def _serve(self) -> None:
        watch = asyncio.create_task(self._stop_with_threads())
        await self._stopping.wait()
        watch.cancel()
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._on_stop()
        for _ in range(STEPS_TO_END):  # the error of the bus itself has a better text
            await asyncio.sleep(0)
        for call in [*self._calls]:
            call.fail(self._lost())

    async def _stop_with_threads(self) -> None:
        if _forks.is_child_of_thread:
            await threads_have_ended()
            self._stopping.set()

    def _lost(self) -> ConnectionLost:
        return ConnectionLost(
            f"{self._subject} was closed before the call ended. The message may have been sent.",
            maybe_executed=True,
        )

    def abandon(self) -> None:
        """Close in a forked child what belongs to the loop, and send nothing.

        `loop.close` would remove the sockets from the epoll instance, which is the parent's, too.
        """
        self._is_running = False
        for call in [*self._calls]:  # only a signal handler can fork while its thread waits
            call.fail(
                FailedPrecondition(
                    f"{self._subject}: a call cannot continue in a forked process. "
                    "Call the bus again in this process."
                )
            )
        if self._thread.ident == threading.get_ident():
            return  # `bus.runtime.forking` ends a child that returns to this loop
        sockets = self._selector.sockets()
        waker = getattr(self._loop, "_csock", None)
        if waker is not None:
            sockets.append(waker.fileno())
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        for number in sockets:
            with suppress(OSError):
                # The number stays in use, because the object of the socket will close it.
                os.dup2(null, number, inheritable=False)
        os.close(null)
        self._selector.close()
        for task in asyncio.all_tasks(self._loop):
            with suppress(AttributeError):  # its destruction in this process is not worth a log
                task._log_destroy_pending = False  # type: ignore[attr-defined] # noqa: SLF001


class ExitHook:
    """The hook that stops all loops before the interpreter exits."""

    def __init__(self) -> None:
        self.has_begun = False
        self._process = 0
        self.register()

    def register(self) -> None:
        """Register the hook in this process. A child of `multiprocessing` may have removed it."""
        if self._process != os.getpid():
            self._process = os.getpid()
            atexit.register(self._stop_all)

    def _stop_all(self) -> None:
        self.has_begun = True
        for loop in [*_loops]:
            loop.stop()


def _abandon_all() -> None:
    for loop in [*_loops]:
        loop.abandon()
    _loops.clear()


_forks = ThreadForks()
_loops: WeakSet[BackgroundLoop] = WeakSet()
# Hooks run in reverse order. A hook of the application that was registered later can still send.
_exit = ExitHook()
os.register_at_fork(after_in_child=_abandon_all)
