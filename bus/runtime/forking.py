"""Forked processes: a child that a handler forks must not disturb its parent, the worker.

A forked child inherits the parent's event loop. With Python 3.11, a signal to the child wakes the
parent's loop, which then stops the worker. If a child ran the loop, it would be a second worker on
the connection of the first.
"""

import asyncio
import contextlib
import os
import signal
import threading
from collections import deque
from functools import cache
from weakref import WeakKeyDictionary

from bus.runtime.exits import NO_PYTHON_HANDLER

__all__ = ["protect_parent"]

EXIT_CODE = os.EX_SOFTWARE
MESSAGE = (
    b"bus: a forked child process has returned to the event loop of its parent, and ends now. "
    b"Call os._exit at the end of its work, or use multiprocessing.\n"
)

_loops: WeakKeyDictionary[asyncio.AbstractEventLoop, int] = WeakKeyDictionary()
"""The event loops that have used a bus, with their threads. Loops that have ended are ignored."""


def protect_parent() -> None:
    """Separate processes that are forked from now on from the running event loop."""
    _register_hooks()
    with contextlib.suppress(TypeError):  # a loop of another library may allow no weak references
        _loops[asyncio.get_running_loop()] = threading.get_ident()


@cache  # the interpreter keeps a hook forever
def _register_hooks() -> None:
    os.register_at_fork(
        before=_hold_signals, after_in_parent=_release_signals, after_in_child=_separate_child
    )


class State(threading.local):
    """Values that the hooks before and after a fork share.

    Another thread can register the hooks during a fork. Then only the hooks after the fork run.
    """

    before: set[int] | None = None
    main_thread: int | None = None


_state = State()


def _hold_signals() -> None:
    """Block the signals that an event loop handles, until the child has its own handling."""
    _state.main_thread = threading.main_thread().ident
    _state.before = signal.pthread_sigmask(signal.SIG_BLOCK, _handled_by_loop())


def _release_signals() -> None:
    before, _state.before = _state.before, None
    if before is not None:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _separate_child() -> None:
    """Restore the default signal handling, and end the child if it runs an inherited loop."""
    inherited = {loop: thread for loop, thread in _loops.items() if loop.is_running()}
    # Only the event loop of the main thread handles signals. The loop of a `SyncBus` does not, and
    # the child keeps the wake-up descriptor that its own code has set.
    if _state.main_thread in inherited.values():
        _restore_signal_handling()
    for loop, thread in inherited.items():
        if thread != threading.get_ident():
            continue  # that thread does not exist in the child
        with contextlib.suppress(RuntimeError):  # raised in debug mode if a thread has forked
            loop.call_soon(_end_child)
            # Callbacks that were ready at the fork belong to the parent, and must not run twice.
            getattr(loop, "_ready", deque[object]()).rotate(1)
    _loops.clear()
    try:
        _release_signals()
    except KeyboardInterrupt:  # Python ignores the errors of this function
        os._exit(128 + signal.SIGINT)


def _restore_signal_handling() -> None:
    """Remove the signal handlers of the parent's event loop.

    These handlers do nothing, so that a child with them could not be terminated. And the child
    would report its signals to the parent's event loop.
    """
    with contextlib.suppress(ValueError):  # raised only in a thread that is not the main thread
        signal.set_wakeup_fd(-1)
        for number in _handled_by_loop():
            is_interrupt = number == signal.SIGINT
            signal.signal(number, signal.default_int_handler if is_interrupt else signal.SIG_DFL)


def _handled_by_loop() -> list[int]:
    return [
        number
        for number in signal.valid_signals()
        if (getattr(signal.getsignal(number), "__module__", None) or "").startswith(
            NO_PYTHON_HANDLER
        )
    ]


def _end_child() -> None:
    os.write(2, MESSAGE)
    os._exit(EXIT_CODE)
