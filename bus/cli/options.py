"""Options and arguments that several commands have, and what the shell completes them with."""

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

__all__ = [
    "CLI",
    "AsJson",
    "AsService",
    "Contracts",
    "File",
    "Payload",
    "completed_types",
    "duration",
]

CLI = "cli"
"""The service as which the command line asks and submits, where nobody says another."""

Contracts = Annotated[
    list[str] | None,
    typer.Option(
        "--contracts",
        metavar="MODULES",
        envvar="BUS_CONTRACTS",
        show_default=False,
        help="Modules that hold the contracts, with commas between; a package stands for all in it. "
        "Without it: the package 'contracts' in this folder.",
    ),
]
Payload = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="PAYLOAD",
        show_default=False,
        help="JSON in single quotes; '-' or nothing takes standard input.",
    ),
]
File = Annotated[
    Path | None,
    typer.Option(
        "--file", metavar="PATH", show_default=False, help="Take the payload from a file."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="On one line, for programs.")]
AsService = Annotated[
    str, typer.Option("--as", metavar="SERVICE", help="The service that asks; BUS_KEY is its key.")
]


def completed_types(
    kind: Kind | None = None,
) -> Callable[[typer.Context, str], list[tuple[str, str]]]:
    """What completes a contract's type: those of `kind`, or all."""

    def completed(context: typer.Context, incomplete: str) -> list[tuple[str, str]]:
        return [
            (each.type, summary(each))
            for each in found(context)
            if kind in {None, each.kind} and each.type.startswith(incomplete)
        ]

    return completed


def found(context: typer.Context) -> tuple[Contract, ...]:
    """The known contracts; none where they cannot be had, since a shell that completes has no place for an error."""
    with (
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
        contextlib.suppress(Exception),
    ):
        chosen: Any = context.params.get("contracts") or ()
        return known_contracts(chosen).contracts
    return ()


def summary(contract: Contract) -> str:
    """One line about it."""
    return (contract.model.__doc__ or contract.kind).strip().splitlines()[0]


UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


DURATION = re.compile(r"(\d+(?:\.\d+)?)([smhd])")


def duration(text: str) -> float:
    """Seconds of `90s`, `15m`, `2h` or `7d`."""
    found = DURATION.fullmatch(text.strip())
    if found is None:
        raise typer.BadParameter(f"{text!r} is no duration: write 90s, 15m, 2h or 7d")
    return float(found[1]) * UNITS[found[2]]


def moment(text: str) -> int:
    """Milliseconds since the epoch of `2026-11-22`, `2026-11-22T10:00` (in this machine's time zone, unless one is written) or `2h` ago."""
    if DURATION.fullmatch(text.strip()):
        return int((time.time() - duration(text)) * 1000)
    try:
        return int(datetime.fromisoformat(text).astimezone().timestamp() * 1000)
    except (ValueError, OverflowError, OSError):
        raise typer.BadParameter(
            f"{text!r} is no time: write 2026-11-22, 2026-11-22T10:00 or 2h (ago)"
        ) from None
