"""The event loop of a worker, which `sys.exit` in a task does not end without a clean stop."""

import asyncio
import logging
import os
from collections.abc import Coroutine
from typing import Any

from bus.messaging.failure_location import failure_location
from bus.operations.unhandled_errors import log_unhandled_errors
from bus.runtime.exits import raises_interrupts

__all__ = ["run_worker"]

log = logging.getLogger("bus")


def run_worker(
    serving: Coroutine[Any, Any, int], stop: asyncio.Event, *, debug: bool = False
) -> int:
    """Run the service, and stop it cleanly if a task or a callback calls `sys.exit`.

    asyncio raises such an exit out of the event loop. An exit of a handler never arrives here,
    because it fails the handler's message.

    Args:
        serving: The coroutine that serves until `stop` is set, and returns the exit code.
        stop: The event that stops the service.
        debug: True adds the tracebacks to the log lines about errors that no code handled.

    Returns:
        The exit code. After `sys.exit` it is never 0, because the operator did not stop the worker.
    """
    with asyncio.Runner() as runner:
        loop, requested = runner.get_loop(), 0
        main = loop.create_task(serving)
        log_unhandled_errors(loop, debug=debug)
        while True:
            try:
                return loop.run_until_complete(main) or requested
            except (SystemExit, KeyboardInterrupt) as error:
                if isinstance(error, KeyboardInterrupt) and raises_interrupts():
                    raise  # Ctrl-C before the service handles signals
                if not requested:
                    _log_exit(error)
                requested = _exit_code_of(error)
                if main.done():
                    return requested
                stop.set()


def _log_exit(error: BaseException) -> None:
    # The text of the error is not logged, because it can be confidential.
    facts = {"error": type(error).__name__, "where": failure_location(error)}
    log.error(
        "%s outside of a handler at %s; the worker stops. "
        "Raise another exception, or send SIGTERM to the process",
        *facts.values(),
        extra=facts,
    )


def _exit_code_of(error: BaseException) -> int:
    code = error.code if isinstance(error, SystemExit) else None
    return code & 0xFF or os.EX_SOFTWARE if isinstance(code, int) else os.EX_SOFTWARE
