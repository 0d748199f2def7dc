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
    pending, is_cancelled, is_ending = set(tasks), False, False
    while pending:
        try:
            ended, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_EXCEPTION)
        except asyncio.CancelledError:
            is_cancelled = is_ending = True
            _cancel(pending)
            continue
        if not is_ending and any(map(_has_failed, ended)):
            is_ending = True
            _cancel(pending)
    for task in tasks:
        if _has_failed(task):
            task.result()
    if is_cancelled:
        raise asyncio.CancelledError
    return None


def _cancel(tasks: "Iterable[asyncio.Task[None]]") -> None:
    for task in tasks:
        task.cancel()


def _has_failed(task: "asyncio.Task[None]") -> bool:
    return task.done() and not task.cancelled() and task.exception() is not None
