"""Services that run together in one process, and end together."""

import asyncio
from collections.abc import Coroutine, Iterable, Sequence
from typing import Any

__all__ = ["run_together"]


async def run_together(services: Sequence[Coroutine[Any, Any, None]]) -> None:
    """Run coroutines until all of them have ended. If one fails, cancel the others.

    `asyncio.TaskGroup` cancels its tasks only once. Here each cancellation of the caller reaches
    every task, because the second cancellation ends a clean stop.

    Raises:
        Exception: The first error of a coroutine, after all coroutines have ended.
    """
    if len(services) == 1:
        return await services[0]
    tasks = [asyncio.ensure_future(service) for service in services]
    pending, is_cancelled = set(tasks), False
    errors: list[BaseException] = []
    while pending:
        try:
            ended, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_EXCEPTION)
        except asyncio.CancelledError:
            is_cancelled = True
            _cancel(pending)
            continue
        # The error is read from every task. asyncio logs the traceback of an error that is not.
        found = (_error_of(task) for task in tasks if task in ended)
        failed = [error for error in found if error is not None]
        if failed and not errors and not is_cancelled:
            _cancel(pending)
        errors += failed
    if errors:
        raise errors[0]
    if is_cancelled:
        raise asyncio.CancelledError
    return None


def _cancel(tasks: "Iterable[asyncio.Task[None]]") -> None:
    for task in tasks:
        task.cancel()


def _error_of(task: "asyncio.Task[None]") -> BaseException | None:
    return None if task.cancelled() else task.exception()
