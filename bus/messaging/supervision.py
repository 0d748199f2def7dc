"""Supervision: a loop that repeats a step forever, with a back-off between two runs."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from bus.messaging.backoff import backoff
from bus.messaging.debug_switch import exception_to_log
from bus.messaging.failure_location import failure_facts
from bus.messaging.labels import failure_label

__all__ = ["is_own_cancel", "run_forever"]


log = logging.getLogger("bus.recovery")

STABLE_AFTER_SECONDS = 5.0
"""Seconds after which a run counts as stable. After a stable run, the back-off starts again at the
first wait."""


async def run_forever(
    step: Callable[[], Awaitable[None]],
    *,
    expected: tuple[type[BaseException], ...],
    on_error: Callable[[BaseException], None],
) -> None:
    """Run a step again and again, with a random wait (full jitter) between two runs.

    Only a cancellation of this task ends the loop. If a library cancels a future that the step
    awaits, the step raises CancelledError. After this error, the loop runs the step again.

    Args:
        step: Function to run. It is run again after it returns, and after each error.
        expected: Classes of errors that are not bugs. An error of a different class is logged as a
            bug. The step runs again after a bug, because a consumer must not end silently.
        on_error: Function that is called with each error.
    """
    loop = asyncio.get_running_loop()
    failures = 0
    while True:
        started = loop.time()
        try:
            await _run_cancellable(step)
        except expected as error:
            on_error(error)
        except asyncio.CancelledError as error:
            if is_own_cancel():
                raise
            on_error(error)
        except Exception as error:  # noqa: BLE001 - any bug in the step
            _log_bug(error)
            on_error(error)
        failures = 1 if loop.time() - started > STABLE_AFTER_SECONDS else failures + 1
        await asyncio.sleep(backoff(failures))


def _log_bug(error: Exception) -> None:
    task = asyncio.current_task()
    name = task.get_name() if task is not None else "a supervised step"
    facts = {"task": name, **failure_facts(error)}
    # log.exception is not used, because a traceback can show confidential values.
    log.error(
        "%s failed with an unexpected error (%s); the step runs again",
        name,
        failure_label(facts),
        extra=facts,
        exc_info=exception_to_log(error),
    )


CANCEL_AGAIN_SECONDS = 2.5
"""Seconds to wait for a cancelled step to end. After this time, the step is cancelled again.

The closing handshake of a connection takes less time.
"""


async def _run_cancellable(step: Callable[[], Awaitable[None]]) -> None:
    """Run `step`. If this task is cancelled, cancel `step` repeatedly until `step` ends.

    One cancellation is not enough, because aiormq sometimes ignores a cancellation or converts it
    to another error.
    """
    running = asyncio.ensure_future(step())
    try:
        await asyncio.wait([running])
    except asyncio.CancelledError:
        while not running.done():
            running.cancel()
            await asyncio.wait([running], timeout=CANCEL_AGAIN_SECONDS)
        # Retrieve the exception, because asyncio logs an exception that was never retrieved.
        _ = running.cancelled() or running.exception()
        raise
    running.result()


def is_own_cancel() -> bool:
    """Return True if this task was cancelled.

    The result is False if only a future that the task awaits was cancelled.
    """
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
