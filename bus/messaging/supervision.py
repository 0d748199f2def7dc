"""Supervision: run a step forever, with back-off between its failures."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from bus.errors import error_location
from bus.messaging.backoff import backoff

__all__ = ["is_own_cancel", "run_forever"]


log = logging.getLogger("bus.recovery")

STABLE_AFTER_SECONDS = 5.0
"""Seconds that a step has to last for its next failure to count as the first."""


async def run_forever(
    step: Callable[[], Awaitable[None]],
    *,
    expected: tuple[type[BaseException], ...],
    on_error: Callable[[BaseException], None],
) -> None:
    """Run `step` for ever: after each end, and each error, wait with full jitter and run it again.

    Only being cancelled ends it. What is not in `trouble` is a fault of the program: logged as one, and survived all the
    same, since a consumer that is silently gone is worse. A library's own CancelledError, which it puts into what waits
    when it closes, is survived, too.
    """
    loop = asyncio.get_running_loop()
    failures = 0
    while True:
        began = loop.time()
        try:
            await _run_cancellable(step)
        except expected as error:
            on_error(error)
        except asyncio.CancelledError as error:
            if is_own_cancel():
                raise
            on_error(error)
        except Exception as error:  # noqa: BLE001 - see above
            facts = {"error": type(error).__name__, "where": error_location(error)}
            log.error("a fault of the program; trying again", extra=facts)  # noqa: TRY400 - a traceback's text shows values
            on_error(error)
        failures = 1 if loop.time() - began > STABLE_AFTER_SECONDS else failures + 1
        await asyncio.sleep(backoff(failures))


CANCEL_AGAIN_SECONDS = 2.5
"""Seconds that a cancelled step has to clean up before it is cancelled again; longer than a connection's goodbye takes."""


async def _run_cancellable(step: Callable[[], Awaitable[None]]) -> None:
    """Run `step` so that a cancellation ends it: aiormq's calls swallow one now and then, or make an error of theirs of it."""
    running = asyncio.ensure_future(step())
    try:
        await asyncio.wait([running])
    except asyncio.CancelledError:
        while not running.done():
            running.cancel()
            await asyncio.wait([running], timeout=CANCEL_AGAIN_SECONDS)
        _ = (
            running.cancelled() or running.exception()
        )  # looked at, so that nobody reports it as never retrieved
        raise
    running.result()


def is_own_cancel() -> bool:
    """Whether a CancelledError is meant for this task, and was not put into a future that it awaits."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
