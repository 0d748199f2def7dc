"""Exits: a handler that calls `sys.exit` fails its message, and never ends its worker.

asyncio raises `SystemExit` and `KeyboardInterrupt` of a task out of the event loop, which ends the
program without a clean stop. The service activator catches these errors of a handler. A task
factory replaces them in each task that a handler starts.
"""

import asyncio
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Coroutine, Generator, Iterator
from types import CellType, TracebackType
from typing import Any

from typing_extensions import override

from bus.messaging.context import Context, current

__all__ = ["TaskExit", "contain_exits", "is_for_handler", "raises_interrupts"]

EXIT_ERRORS = (SystemExit, KeyboardInterrupt)
NO_PYTHON_HANDLER = ("asyncio.unix_events", "uvloop")
"""Modules of the signal handlers that event loops install. These handlers raise nothing."""

AnyCoroutine = Coroutine[Any, Any, Any]
TaskFactory = Callable[..., Any]


class TaskExit(Exception):
    """An error of a task that called `sys.exit` or raised `KeyboardInterrupt` in a handler.

    It replaces the original error, and does not contain that error's text.
    """


def is_for_handler(error: BaseException, context: Context) -> bool:
    """Return True if an error that left a handler is an error of the handler's message.

    Return False if Ctrl-C raised `KeyboardInterrupt`, or if the coroutine of the handler is being
    closed. If a child process that the handler forked raises `SystemExit`, the child ends here.

    Args:
        error: The error, which is not an `Exception`.
        context: The context of the message.
    """
    if isinstance(error, GeneratorExit):
        # Only code of the handler runs in its context. The garbage collector closes a coroutine in
        # another one.
        return current.get() is context
    if isinstance(error, SystemExit) and _is_forked():
        _end_child(error)
    return not (isinstance(error, KeyboardInterrupt) and raises_interrupts())


def raises_interrupts() -> bool:
    """Return True if Ctrl-C can raise `KeyboardInterrupt` in this thread."""
    handler = signal.getsignal(signal.SIGINT)
    module = getattr(handler, "__module__", None) or ""
    return (
        callable(handler)
        and not module.startswith(NO_PYTHON_HANDLER)
        and threading.current_thread() is threading.main_thread()
    )


@contextlib.contextmanager
def contain_exits() -> Iterator[None]:
    """Replace exits in the tasks that handlers start on the running event loop, inside the block.

    Tasks that other code starts are not changed. Blocks can overlap.
    """
    loop = asyncio.get_running_loop()
    factory = loop.get_task_factory()
    own = factory if isinstance(factory, ContainingFactory) else ContainingFactory(factory)
    loop.set_task_factory(own)
    own.users += 1
    try:
        yield
    finally:
        own.users -= 1
        if not own.users and loop.get_task_factory() is own:
            loop.set_task_factory(own.inner)


class NamedTask(asyncio.Task[Any]):
    """A task that keeps its default name if the event loop sets the name None.

    In Python 3.13, the event loop sets the name of each task that a factory has made.
    """

    @override
    def set_name(self, value: object) -> None:
        """Set the name, unless it is None."""
        if value is not None:
            super().set_name(value)


TASK: type[asyncio.Task[Any]] = NamedTask if sys.version_info[:2] == (3, 13) else asyncio.Task


class ContainingFactory:
    """A task factory that wraps the coroutines of handlers, and then calls the factory inside."""

    def __init__(self, inner: TaskFactory | None) -> None:
        self.inner = inner
        self.users = 0
        """The number of open blocks of `contain_exits`."""

    def __call__(self, loop: asyncio.AbstractEventLoop, coro: Any, **options: Any) -> Any:
        """Return a new task for a coroutine."""
        coro = _contain(coro)
        if self.inner is not None:
            return self.inner(loop, coro, **options)
        return TASK(coro, loop=loop, **options)

    def __getattr__(self, name: str) -> Any:
        """Return an attribute of the factory inside.

        anyio recognizes `asyncio.eager_task_factory` by its `__code__`. It then creates tasks that
        are not eager, with the constructor in the first cell of its `__closure__`.
        """
        value = getattr(self.inner, name)
        if name != "__closure__" or not value:
            return value

        def construct(coro: Any, **options: Any) -> Any:
            return value[0].cell_contents(_contain(coro), **options)

        return (CellType(construct), *value[1:])


def _contain(coro: Any) -> Any:
    """Return a coroutine of a handler with its exits replaced, and any other coroutine as it is."""
    if current.get() is not None and asyncio.iscoroutine(coro):
        return ContainedCoroutine(coro)
    return coro


class ContainedCoroutine(AnyCoroutine):
    """A coroutine that raises `TaskExit` if the coroutine inside raises an exit.

    A coroutine function is not enough. If its task is cancelled before it starts, the coroutine
    inside is never awaited, and Python warns.
    """

    __slots__ = ("_inner",)

    def __init__(self, inner: AnyCoroutine) -> None:
        self._inner = inner

    @override
    def send(self, value: Any) -> Any:
        """Run the coroutine inside until its next suspension."""
        try:
            return self._inner.send(value)
        except EXIT_ERRORS as error:
            replacement = _replace_exit(error)
        raise replacement

    @override
    def throw(
        self,
        typ: Any,
        val: BaseException | object = None,
        tb: TracebackType | None = None,
    ) -> Any:
        """Raise an error at the suspension of the coroutine inside."""
        # Python 3.12 warns if `throw` gets three arguments.
        arguments = (typ,) if val is None and tb is None else (typ, val, tb)
        try:
            return self._inner.throw(*arguments)
        except EXIT_ERRORS as error:
            replacement = _replace_exit(error)
        raise replacement

    @override
    def close(self) -> None:
        """Close the coroutine inside."""
        self._inner.close()

    @override
    def __await__(self) -> Generator[Any, Any, Any]:
        return self._inner.__await__()

    def __getattr__(self, name: str) -> Any:
        # Debuggers and anyio read `cr_frame`, `cr_code` and other attributes.
        return getattr(self._inner, name)


def _replace_exit(error: BaseException) -> BaseException:
    """Return the error that a task raises instead, with the same traceback and without the text."""
    if isinstance(error, SystemExit) and _is_forked():
        _end_child(error)
    if isinstance(error, KeyboardInterrupt) and raises_interrupts():
        return error
    name = type(error).__name__
    return TaskExit(f"a task of a handler raised {name}").with_traceback(error.__traceback__)


def _is_forked() -> bool:
    """Return True in a child process that was forked inside a handler.

    In such a process asyncio has no running event loop.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return True
    return False


def _end_child(error: SystemExit) -> None:
    """End a forked process, which must not continue as a second worker on the same connection."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    code = error.code
    os._exit(code & 0xFF if isinstance(code, int) else int(code is not None))
