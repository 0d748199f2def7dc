"""How the command line fails: one line that says what to do, and an exit code that a script can tell apart.

The numbers are those of BSD's sysexits.h (os.EX_*). With `--debug` the traceback follows.
"""

import functools
import os
import traceback
from collections.abc import Callable
from typing import Any

import typer
from rich.console import Console
from typer.exceptions import TyperException

from bus import errors
from bus.cli.output import harmless

__all__ = ["EXIT_CODES", "INTERRUPTED", "MEANINGS", "TERMINATED", "Reporter", "exit_code"]

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
INTERRUPTED, TERMINATED = 130, 143  # 128 + SIGINT and SIGTERM, as shells say it
MEANINGS: dict[int, str] = {
    os.EX_OK: "done",
    1: "who read its output has gone (a closed pipe), or whoever was asked said no; of `bus health`: not ready, or nobody answers",
    2: "the command line is wrong: an unknown command or option, an argument too many or missing; "
    "of `bus topology plan`, `apply` and `verify`: something is to be done",
    os.EX_DATAERR: "what was given is wrong",
    os.EX_NOINPUT: "it does not exist",
    os.EX_UNAVAILABLE: "nobody answers",
    os.EX_SOFTWARE: "a fault of the program, or of the service that was asked",
    os.EX_CANTCREAT: "it exists already",
    os.EX_TEMPFAIL: "try again later",
    os.EX_NOPERM: "not allowed",
    os.EX_CONFIG: "set up wrongly",
    INTERRUPTED: "interrupted by Ctrl-C; of `bus run`: by a second one, which ends it before its work is done",
    TERMINATED: "ended by SIGTERM; of `bus run`: by a second one",
}
"""What each exit code says; `docs/reference/command-line.md` has them with the errors of each."""


def exit_code(error: BaseException) -> int:
    """The code of the error's nearest class in the table; 70 for what is not in it."""
    return next(
        (EXIT_CODES[kind] for kind in type(error).__mro__ if kind in EXIT_CODES), os.EX_SOFTWARE
    )


class Reporter:
    """Wraps commands, so that what they raise ends as a line on standard error and an exit code."""

    def __init__(self, *, debug: bool, console: Console | None = None) -> None:
        self._debug = debug
        self._console = console or Console(stderr=True)

    def __call__(self, command: Callable[..., Any]) -> Callable[..., Any]:
        """The command, with its failures reported."""

        @functools.wraps(command)
        def reported(*args: Any, **kwargs: Any) -> Any:
            try:
                return command(*args, **kwargs)
            except KeyboardInterrupt as error:
                raise typer.Exit(INTERRUPTED) from error
            except (typer.Exit, typer.Abort, TyperException):
                raise  # typer's own way of ending
            except Exception as error:  # the last line of defence: a person gets one line, and never a traceback unasked
                self._say(error)
                raise typer.Exit(exit_code(error)) from error

        return reported

    def _say(self, error: Exception) -> None:
        self._console.print("error:", style="bold red", end=" ")
        self._console.print(harmless(told(error)), markup=False, highlight=False, soft_wrap=True)
        if self._debug:
            self._console.print(
                "".join(traceback.format_exception(error)),
                markup=False,
                highlight=False,
                soft_wrap=True,
            )


def told(error: Exception) -> str:
    """What a person may read: the bus's own words; of any other exception only its kind, as its text may hold a payload."""
    if isinstance(error, errors.BusError):
        return f"{error}{'; it may have been done all the same' if error.maybe_executed else ''}"
    return f"a fault of the program ({type(error).__name__}); with `bus --debug` it shows where"
