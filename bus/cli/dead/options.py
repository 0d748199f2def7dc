"""Options that several commands of `bus dead` share: queues and filters."""

from collections.abc import Sequence
from typing import Annotated

import typer

from bus.cli.options import moment
from bus.operations.dead_letters import MAX_BROWSED, Selection

__all__ = [
    "AsJson",
    "Codes",
    "Correlation",
    "Ids",
    "Queues",
    "Scan",
    "Service",
    "Since",
    "Types",
    "Until",
    "build_selection",
]


Service = Annotated[
    str | None,
    typer.Option(
        "--service",
        metavar="SERVICE|MODULE:ROUTER",
        show_default=False,
        help="Only dead letters of this service or router. Default: all services.",
    ),
]
Queues = Annotated[
    list[str] | None,
    typer.Option(
        "--queue",
        metavar="QUEUE",
        show_default=False,
        help="Only dead letters of this work queue. The option is repeatable.",
    ),
]
Types = Annotated[
    list[str] | None,
    typer.Option(
        "--type",
        metavar="TYPE",
        show_default=False,
        help="Only messages of this type, such as library.scan.v1. The only version may be left "
        "out. The option is repeatable.",
    ),
]
Codes = Annotated[
    list[str] | None,
    typer.Option(
        "--code",
        metavar="CODE",
        show_default=False,
        help="Only messages with this error code, such as internal. The option is repeatable.",
    ),
]
Since = Annotated[
    int | None,
    typer.Option(
        "--since",
        metavar="TIME",
        parser=moment,
        show_default=False,
        help="Only messages dead-lettered at or after this time: 2026-11-22T10:00, or 2h (ago).",
    ),
]
Until = Annotated[
    int | None,
    typer.Option(
        "--until",
        metavar="TIME",
        parser=moment,
        show_default=False,
        help="Only messages dead-lettered before this time.",
    ),
]
Correlation = Annotated[
    str | None,
    typer.Option(
        "--correlation-id",
        metavar="ID",
        show_default=False,
        help="Only messages with this correlation id. Its first 4 or more characters are enough.",
    ),
]
Ids = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="ID",
        show_default=False,
        help="Ids of messages. The first 4 or more characters of an id are enough.",
    ),
]
Scan = Annotated[
    int,
    typer.Option(
        "--scan",
        min=1,
        metavar="N",
        help="Read at most N dead letters of each queue. The command holds them in memory.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on one line, for programs.")]

SCAN = MAX_BROWSED


def build_selection(
    *,
    ids: Sequence[str] | None = None,
    types: Sequence[str] | None,
    codes: Sequence[str] | None,
    since: int | None,
    until: int | None,
    correlation_id: str | None,
) -> Selection:
    """Return the selection of the dead letters that match all given filters."""
    return Selection(
        ids=frozenset(ids or ()),
        types=frozenset(types or ()),
        codes=frozenset(codes or ()),
        since=since,
        until=until,
        correlation_id=correlation_id,
    )
