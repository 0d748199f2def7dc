"""Error messages and exit codes of the command line.

A failed command prints one line with the problem and its remedy. It ends with an exit code that a
script can check. The exit codes are defined by BSD's sysexits.h (os.EX_*). With `--debug` the
traceback follows the line.
"""

import errno
import functools
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import typer
from rich.console import Console
from typer.exceptions import TyperException

from bus import errors
from bus.cli.output import EscapingConsole
from bus.messaging.escaped_text import escape_text, one_line, shorten_spaces
from bus.messaging.failure_location import failure_location

__all__ = [
    "EXIT_CODES",
    "INTERRUPTED",
    "MEANINGS",
    "TERMINATED",
    "Reporter",
    "add_class",
    "exit_code",
    "is_debugging",
    "show_traceback",
]

debugging: ContextVar[bool] = ContextVar("bus_command_debugging", default=False)

shows_traceback: ContextVar[bool] = ContextVar("bus_command_shows_traceback", default=False)

EXIT_CODES: dict[type[BaseException], int] = {
    errors.InvalidArgument: os.EX_DATAERR,
    errors.DataLoss: os.EX_DATAERR,
    errors.OutOfRange: os.EX_DATAERR,
    errors.NotFound: os.EX_NOINPUT,
    errors.Unavailable: os.EX_UNAVAILABLE,
    errors.AlreadyExists: os.EX_CANTCREAT,
    errors.DeadlineExceeded: os.EX_TEMPFAIL,
    errors.ResourceExhausted: os.EX_TEMPFAIL,
    errors.Aborted: os.EX_TEMPFAIL,
    errors.Cancelled: os.EX_TEMPFAIL,
    errors.PermissionDenied: os.EX_NOPERM,
    errors.Unauthenticated: os.EX_NOPERM,
    errors.FailedPrecondition: os.EX_CONFIG,
    errors.ContractError: os.EX_CONFIG,
    errors.Unimplemented: os.EX_CONFIG,
}
CONTINUED = "\n    "
"""Start of each further line of an error. Only the first line begins with `error:`."""
INTERRUPTED, TERMINATED = 130, 143
"""Exit codes after SIGINT and SIGTERM: 128 plus the signal's number, as in a shell."""
MEANINGS: dict[int, str] = {
    os.EX_OK: "success",
    1: "the reader of the output has closed the pipe, or the user answered no; "
    "`bus health`: the worker is not ready or does not answer",
    2: "the command line is invalid: an unknown command or option, a missing argument, or too many "
    "arguments; `bus topology plan`, `apply` and `verify`: the broker's topology differs from the "
    "required one; `bus topology prune`: old queues are left",
    os.EX_DATAERR: "the input is invalid",
    os.EX_NOINPUT: "not found",
    os.EX_UNAVAILABLE: "the broker or the service does not answer",
    os.EX_SOFTWARE: "an internal error of the program or of the called service",
    os.EX_IOERR: "the output cannot be written, because the disk is full",
    os.EX_CANTCREAT: "the file or object already exists",
    os.EX_TEMPFAIL: "a temporary failure; try again later",
    os.EX_NOPERM: "permission denied",
    os.EX_CONFIG: "the configuration is invalid",
    INTERRUPTED: "interrupted by Ctrl-C; `bus run`: interrupted by a second Ctrl-C, before its "
    "work was done",
    TERMINATED: "ended by SIGTERM; `bus run`: ended by a second SIGTERM, before its work was done",
}
"""Meaning of each exit code. `docs/reference/command-line.md` lists the errors of each code."""


def exit_code(error: BaseException) -> int:
    """Return the exit code of the error's class or nearest base class in `EXIT_CODES`, or 70."""
    return next(
        (EXIT_CODES[kind] for kind in type(error).__mro__ if kind in EXIT_CODES), os.EX_SOFTWARE
    )


class Reporter:
    """Decorator that turns a command's exception into a line on standard error and an exit code."""

    def __init__(self, *, debug: bool, console: Console | None = None) -> None:
        self._debug = debug
        self._console = console or EscapingConsole(stderr=True)

    def __call__(self, command: Callable[..., Any]) -> Callable[..., Any]:
        """Return the command with error reporting."""

        @functools.wraps(command)
        def run_reported(*args: Any, **kwargs: Any) -> Any:
            debugging.set(self._debug)
            shows_traceback.set(self._debug)
            try:
                return command(*args, **kwargs)
            except KeyboardInterrupt as error:
                raise typer.Exit(INTERRUPTED) from error
            except (typer.Exit, typer.Abort, TyperException):
                raise  # typer ends the program itself
            except OSError as error:
                if not is_full(error):
                    self._print_error(error)
                    raise typer.Exit(exit_code(error)) from error
                text = f"the output cannot be written: {error.strerror}."
                self._print_error(errors.Unavailable(text))
                discard_output()
                raise typer.Exit(os.EX_IOERR) from error
            except Exception as error:
                # A user sees one line for any error, and a traceback only with --debug.
                self._print_error(error)
                raise typer.Exit(exit_code(error)) from error

        return run_reported

    def _print_error(self, error: Exception) -> None:
        self._console.print("error:", style="bold red", end=" ")
        self._console.print(
            escape_text(shorten_spaces(describe_error(error))).replace("\n", CONTINUED),
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
        if shows_traceback.get():
            self._console.print(
                escape_text("".join(traceback.format_exception(error))),
                markup=False,
                highlight=False,
                soft_wrap=True,
            )


def is_full(error: OSError) -> bool:
    """Return True if the output was written to a full disk. Errors of named files are others."""
    return error.errno in {errno.ENOSPC, errno.EDQUOT} and error.filename is None


def discard_output() -> None:
    """Discard the output that Python still holds. Otherwise its end would report the error again.

    rich does the same if the reader of a pipe ends.
    """
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)


@contextmanager
def add_class(correlation_id: str | None = None) -> Iterator[None]:
    """Let the text of a `BusError` in the block begin with the name of its class.

    A service writes its errors for callers that catch classes. Without the class, `no such book`
    does not show whether the service found nothing or failed.

    Args:
        correlation_id: Correlation id of the message. The text ends with it, unless the class of
            the error shows that no service received the message. The user searches the logs of the
            services for it.
    """
    try:
        yield
    except errors.BusError as error:
        # The service chose the text. A line end in it could forge a second line of the command.
        text = f"{type(error).__name__}: {one_line(str(error))}"
        # A handler can raise `Unavailable` itself. It never arrives as one of the two subclasses.
        is_unsent = (
            isinstance(error, errors.NotServed | errors.ConnectionLost) and not error.maybe_executed
        )
        if correlation_id is not None and not is_unsent:
            text = f"{text.removesuffix('.')}; correlation id {correlation_id}"
        error.args = (text,)
        raise


def is_debugging() -> bool:
    """Return True if the command line of the running command has the option `--debug`."""
    return debugging.get()


def show_traceback() -> None:
    """Let the traceback follow the line about an error, as with `--debug`.

    `bus run` calls this function if `BUS_DEBUG` is set. The lifespan or an import of a service can
    then show its traceback.
    """
    shows_traceback.set(True)


def describe_error(error: Exception) -> str:
    """Return the line that the user sees.

    For a `BusError` the line contains the error's text. For any other exception the line contains
    only the exception's class and location, because the text may contain a payload.
    """
    if isinstance(error, errors.BusError):
        return f"{error}{' (the operation may have been executed)' if error.maybe_executed else ''}"
    where = failure_location(error)
    return (
        f"internal error ({type(error).__name__}{f' at {where}' if where else ''}). "
        "Run the command with `--debug` to see the traceback."
    )
