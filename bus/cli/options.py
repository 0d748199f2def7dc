"""Options and arguments that several commands share, and their completion in the shell."""

import contextlib
import io
import re
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from bus.cli.loading import known_contracts
from bus.contracts.contract import Contract, Kind
from bus.contracts.limits import MAX_SECONDS
from bus.messaging.control import MAX_WINDOW_SECONDS

__all__ = [
    "AsJson",
    "Contracts",
    "File",
    "Payload",
    "Window",
    "completed_types",
    "duration",
    "finite",
    "path",
]


def path(text: str | Path) -> Path:
    """Convert the text of an option to a path.

    An empty text is the value of a variable that is not set. It would be the working directory.

    Raises:
        typer.BadParameter: The text is empty.
    """
    if text == "":
        raise typer.BadParameter("the path is empty. Write a path, such as ./name.")
    return Path(text)


Contracts = Annotated[
    list[str] | None,
    typer.Option(
        "--contracts",
        metavar="MODULES",
        envvar="BUS_CONTRACTS",
        show_default=False,
        help="Modules that define contracts, separated by commas. A package includes its modules. "
        "Default: the package 'contracts' in this folder.",
    ),
]
Payload = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="PAYLOAD",
        show_default=False,
        help="JSON in single quotes. With '-' or without a payload, standard input is read.",
    ),
]
File = Annotated[
    Path | None,
    typer.Option(
        "--file",
        metavar="PATH",
        parser=path,
        show_default=False,
        help="Read the payload from a file.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on one line, for programs.")]


def completed_types(
    kind: Kind | None = None,
) -> Callable[[typer.Context, str], list[tuple[str, str]]]:
    """Return a function that completes contract types: types of `kind`, or all types."""

    def complete(context: typer.Context, incomplete: str) -> list[tuple[str, str]]:
        return [
            (contract.type, summary(contract))
            for contract in load_contracts(context)
            if kind in {None, contract.kind} and contract.type.startswith(incomplete)
        ]

    return complete


def load_contracts(context: typer.Context) -> tuple[Contract, ...]:
    """Return the contracts, or an empty tuple if they cannot be loaded.

    No error is raised, because the shell cannot show an error while it completes a line.
    """
    with (
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
        contextlib.suppress(Exception),
    ):
        chosen: Any = context.params.get("contracts") or ()
        return known_contracts(chosen).contracts
    return ()


def summary(contract: Contract) -> str:
    """Return the first line of the contract's docstring, or its kind if it has no docstring."""
    return (contract.model.__doc__ or contract.kind).strip().splitlines()[0]


UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
DURATION = re.compile(r"(\d+(?:\.\d+)?)([smhd])")


def duration(text: str) -> float:
    """Convert a duration such as `90s`, `15m`, `2h` or `7d` to seconds."""
    match = DURATION.fullmatch(text.strip())
    if match is None:
        raise typer.BadParameter(
            f"{text!r} is not a duration. Write a number with a unit (s, m, h or d), such as 15m."
        )
    seconds = float(match[1]) * UNITS[match[2]]
    if seconds > MAX_SECONDS:
        raise typer.BadParameter(f"{text!r} is longer than 100 years. Write a shorter time.")
    return seconds


def finite(value: float | None) -> float | None:
    """Return the value of an option. Refuse NaN and infinity, which no range of typer refuses."""
    if value is not None and not 0 <= value <= MAX_SECONDS:
        raise typer.BadParameter(f"must be a number up to {MAX_SECONDS}, such as 2.5.")
    return value


Window = Annotated[
    float,
    typer.Option(
        min=0.1,
        max=MAX_WINDOW_SECONDS,
        callback=finite,
        metavar="SECONDS",
        help="Time to wait for the answers of the instances.",
    ),
]
"""Seconds of a question to live instances."""


def moment(text: str) -> int:
    """Convert a time to milliseconds since the epoch.

    Args:
        text: `2026-11-22`, `2026-11-22T10:00`, or `2h`, which means two hours ago. A time without
            a time zone is in this machine's time zone.

    Raises:
        typer.BadParameter: The text is not a time.
    """
    if DURATION.fullmatch(text.strip()):
        return int((time.time() - duration(text)) * 1000)
    try:
        return int(datetime.fromisoformat(text).astimezone().timestamp() * 1000)
    except (ValueError, OverflowError, OSError):
        raise typer.BadParameter(
            f"{text!r} is not a time. Write 2026-11-22, 2026-11-22T10:00 or 2h (ago)."
        ) from None
