"""How the command line fails: one line that says what to do, and an exit code that a script can tell apart.

| code | meaning | errors |
|---|---|---|
| 0 | done | |
| 1 | not ready, or nobody answers (`bus health` alone) | |
| 2 | the command line is wrong | unknown option, missing argument |
| 65 | what was given is wrong | `InvalidArgument` and its kin, `DataLoss`, `OutOfRange` |
| 66 | it does not exist | `NotFound` |
| 69 | nobody answers | `Unavailable`, `NotServed`, `ConnectionLost` |
| 70 | a fault of the program | `Internal`, `Unknown`, and any other exception |
| 73 | it exists already | `AlreadyExists` |
| 75 | try again later | `DeadlineExceeded`, `ResourceExhausted`, `Aborted`, `Cancelled` |
| 77 | not allowed | `PermissionDenied`, `Unauthenticated` |
| 78 | set up wrongly | `FailedPrecondition`, `ConfigurationError`, `ContractError`, `Unimplemented` |
| 130 | interrupted | Ctrl-C |

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

__all__ = ["EXIT_CODES", "INTERRUPTED", "Reporter", "exit_code"]

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
INTERRUPTED = 130  # 128 + SIGINT, as shells say it


def exit_code(error: BaseException) -> int:
    """The code of the error's nearest class in the table; 70 for what is not in it."""
    return next((EXIT_CODES[kind] for kind in type(error).__mro__ if kind in EXIT_CODES), os.EX_SOFTWARE)


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
            except Exception as error:
                self._say(error)
                raise typer.Exit(exit_code(error)) from error

        return reported

    def _say(self, error: Exception) -> None:
        self._console.print("error:", style="bold red", end=" ")
        self._console.print(told(error), markup=False, highlight=False, soft_wrap=True)
        if self._debug:
            self._console.print("".join(traceback.format_exception(error)), markup=False, highlight=False, soft_wrap=True)


def told(error: Exception) -> str:
    """What a person may read: the bus's own words; of any other exception only its kind, as its text may hold a payload."""
    if isinstance(error, errors.BusError):
        return str(error)
    return f"a fault of the program ({type(error).__name__}); with `bus --debug` it shows where"
