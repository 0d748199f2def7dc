"""Blocking calls in a thread of their own, outside of the event loop's default executor.

Handlers use the default executor with `asyncio.to_thread`. A slow server must not take its threads.
The event loop also waits for these threads when the process ends. A daemon thread does not delay
the end of the process.
"""

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

__all__ = ["NoThreadError", "call_in_daemon_thread"]

T = TypeVar("T")


class NoThreadError(OSError):
    """A thread that cannot be started, for example because the process has too many threads."""


async def call_in_daemon_thread(
    call: Callable[[], T], *, interrupt: Callable[[], None], name: str
) -> T:
    """Run a blocking call in a daemon thread, and return the result or raise the error of the call.

    Args:
        call: The blocking call.
        interrupt: Makes the blocking call fail. It runs if the caller stops waiting, for example
            because a time limit has passed.
        name: The name of the thread.

    Raises:
        NoThreadError: No thread can be started. The call has not begun.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def run() -> None:
        try:
            result = call()
        # The caller receives every error. An unhandled error would print a traceback.
        except BaseException as error:  # noqa: BLE001
            deliver(done.set_exception, error)
        else:
            deliver(done.set_result, result)

    def deliver(settle: Callable[..., None], value: object) -> None:
        # The loop is closed if the process is ending. Nothing waits for the result any more.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(lambda: None if done.done() else settle(value))

    try:
        threading.Thread(target=run, name=name, daemon=True).start()
    except RuntimeError as error:
        raise NoThreadError(f"no thread can be started ({error})") from None
    try:
        return await done
    except asyncio.CancelledError:
        interrupt()
        raise
