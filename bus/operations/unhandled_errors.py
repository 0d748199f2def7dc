"""Log lines about errors that no code handled: in tasks, callbacks, threads and destructors.

Python's own lines about such errors have the text and the traceback of the exception, which can
contain confidential data. These lines have the class, the location and the frames instead.
"""

import asyncio
import logging
import re
import sys
import threading
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from bus.messaging.debug_switch import exception_to_log, log_tracebacks
from bus.messaging.failure_location import failure_facts
from bus.messaging.labels import failure_label, one_line

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

__all__ = ["log_unhandled_errors"]

log = logging.getLogger("bus.unhandled")

LOOP_TEXT = re.compile(r"[A-Za-z ,.'-]+")
"""Begin of a text of the event loop. A `repr`, which can contain values, begins with another sign.
"""


def log_unhandled_errors(loop: asyncio.AbstractEventLoop, *, debug: bool) -> None:
    """Log the unhandled errors of an event loop, and of the threads and objects of this process.

    A hook that the application has set itself stays. The hooks stay until the process ends, because
    Python reports the error of a forgotten task when it deletes the task.

    Args:
        loop: Event loop of the process.
        debug: True adds the traceback, which has the text of the exception.
    """
    if loop.get_exception_handler() is None:
        loop.set_exception_handler(partial(_log_loop_error, debug=debug))
    if threading.excepthook is threading.__excepthook__:
        threading.excepthook = partial(_log_thread_error, debug=debug)
    if sys.unraisablehook is sys.__unraisablehook__:
        sys.unraisablehook = partial(_log_unraisable, debug=debug)


def _log_loop_error(
    _loop: asyncio.AbstractEventLoop, context: Mapping[str, Any], *, debug: bool
) -> None:
    error = context.get("exception")
    task = context.get("task") or context.get("future")
    if isinstance(error, SystemExit | KeyboardInterrupt):
        return  # these errors also leave the event loop, and `bus run` logs them
    if not isinstance(error, BaseException):
        begin = LOOP_TEXT.match(str(context.get("message")))
        text = begin[0].strip() if begin else "unknown problem"
        log.error("the event loop reported: %s%s", text, _name_of(task))
    elif isinstance(task, asyncio.Task):
        _log(error, f"a task failed, and no code awaited it{_name_of(task)}", debug=debug)
    elif isinstance(task, asyncio.Future):
        _log(error, "a future failed, and no code awaited it", debug=debug)
    elif "handle" in context:
        _log(error, "a callback of the event loop failed", debug=debug)
    else:
        _log(error, "an error reached the event loop", debug=debug)


def _name_of(task: object) -> str:
    """Return the name of a task's coroutine function in brackets, or an empty text."""
    coroutine = task.get_coro() if isinstance(task, asyncio.Task) else None
    name = getattr(coroutine, "__qualname__", "").rpartition("<locals>.")[2]
    return f" [{name}]" if name else ""


def _log_thread_error(arguments: threading.ExceptHookArgs, *, debug: bool) -> None:
    error = arguments.exc_value
    if error is not None and not isinstance(error, SystemExit):
        _log(error, "a thread ended with an error", debug=debug)


def _log_unraisable(unraisable: "UnraisableHookArgs", *, debug: bool) -> None:
    error = unraisable.exc_value
    if error is not None:
        _log(error, "Python ignored an error, for example of a destructor", debug=debug)


def _log(error: BaseException, text: str, *, debug: bool) -> None:
    facts = failure_facts(error)
    # log.exception is not used, because a traceback can show confidential values.
    with log_tracebacks(enabled=debug):  # this error belongs to no task of a bus
        log.error(
            "%s (%s)",
            one_line(text),
            failure_label(facts),
            extra=facts,
            exc_info=exception_to_log(error),
        )
