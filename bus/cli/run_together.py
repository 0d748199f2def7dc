"""Services that run together in one process, and end together."""

import asyncio
import logging
from collections.abc import Coroutine, Iterable, Mapping
from typing import Any

from bus.errors import BusError, Internal
from bus.messaging.failure_location import failure_facts
from bus.messaging.labels import failure_label

__all__ = ["cancelled_by_other_code", "run_together"]

log = logging.getLogger("bus")


async def run_together(
    services: Mapping[str, Coroutine[Any, Any, None]], stop: asyncio.Event
) -> None:
    """Run services until all of them have ended. If one fails, cancel the others.

    After `stop` is set, the others are not cancelled, because a cancellation could end their clean
    stop. Each error after the first is logged.

    `asyncio.TaskGroup` cancels its tasks only once. Here each cancellation of the caller reaches
    every task, because the second cancellation ends a clean stop.

    Args:
        services: Coroutine of each service, by the name of the service.
        stop: Event that stops the services cleanly. The first error of a service sets it, too.

    Raises:
        Exception: The first error of a service, after all services have ended.
        Internal: A service was cancelled, but not by the caller.
    """
    if len(services) == 1:
        return await next(iter(services.values()))
    tasks = {asyncio.ensure_future(service): name for name, service in services.items()}
    pending, is_cancelled = set(tasks), False
    errors: list[BaseException] = []
    while pending:
        try:
            ended, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            is_cancelled = True
            _cancel(pending)
            continue
        # The error is read from every task. asyncio logs the traceback of an error that is not.
        for task in [task for task in tasks if task in ended]:
            error = _error_of(task, tasks[task], is_expected=is_cancelled or bool(errors))
            if error is None:
                continue
            if errors:
                _log_further_error(tasks[task], error)
            elif not is_cancelled and not stop.is_set():
                # aiormq can lose a cancellation, and the service then goes on with its start. The
                # event ends that service as soon as it serves.
                stop.set()
                _cancel(pending)
            errors.append(error)
    if errors:
        raise errors[0]
    if is_cancelled:
        raise asyncio.CancelledError
    return None


def _cancel(tasks: "Iterable[asyncio.Task[None]]") -> None:
    for task in tasks:
        task.cancel()


def _error_of(task: "asyncio.Task[None]", name: str, *, is_expected: bool) -> BaseException | None:
    """Return the error of a task that has ended. `is_expected` is True if it may be cancelled."""
    if not task.cancelled():
        return task.exception()
    return None if is_expected else cancelled_by_other_code(name)


def cancelled_by_other_code(name: str) -> Internal:
    """Return the error of a service that neither a signal nor the failure of another one ended."""
    return Internal(
        f"{name}: code of the service or a library cancelled the task that serves it. "
        "Cancel only tasks that this code has started, and send SIGTERM to stop the worker."
    )


def _log_further_error(name: str, error: BaseException) -> None:
    """Log an error that is not raised, with its text only if the text is made for operators."""
    if not isinstance(error, Exception):
        return  # the event loop of the worker logs each exit
    facts = failure_facts(error)
    reason = f"{type(error).__name__}: {error}" if isinstance(error, BusError) else None
    log.error(
        "%s failed, too: %s", name, failure_label(facts, reason), extra={"service": name, **facts}
    )
