"""The options that the commands for dead letters share: where to look, and which are meant."""

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
    "selected",
]


Service = Annotated[
    str | None,
    typer.Option(
        "--service",
        metavar="SERVICE|MODULE:ROUTER",
        show_default=False,
        help="Whose dead letters; without it all of the bus.",
    ),
]
Queues = Annotated[
    list[str] | None,
    typer.Option(
        "--queue",
        metavar="QUEUE",
        show_default=False,
        help="The work queue that they came from; may be given again.",
    ),
]
Types = Annotated[
    list[str] | None,
    typer.Option(
        "--type",
        metavar="TYPE",
        show_default=False,
        help="Such as library.scan.v1; may be given again.",
    ),
]
Codes = Annotated[
    list[str] | None,
    typer.Option(
        "--code",
        metavar="CODE",
        show_default=False,
        help="The error's code, such as internal; may be given again.",
    ),
]
Since = Annotated[
    int | None,
    typer.Option(
        "--since",
        metavar="TIME",
        parser=moment,
        show_default=False,
        help="Died then or later: 2026-11-22T10:00, or 2h (ago).",
    ),
]
Until = Annotated[
    int | None,
    typer.Option("--until", metavar="TIME", parser=moment, show_default=False, help="Died before."),
]
Correlation = Annotated[
    str | None,
    typer.Option(
        "--correlation-id",
        metavar="ID",
        show_default=False,
        help="The id of all that one cause set off.",
    ),
]
Ids = Annotated[
    list[str] | None, typer.Argument(metavar="ID", show_default=False, help="Message ids.")
]
Scan = Annotated[
    int,
    typer.Option(
        "--scan", min=1, metavar="N", help="Look through so many of each queue; memory holds them."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="On one line, for programs.")]

SCAN = MAX_BROWSED


def selected(
    *,
    ids: Sequence[str] | None = None,
    types: Sequence[str] | None,
    codes: Sequence[str] | None,
    since: int | None,
    until: int | None,
    correlation_id: str | None,
) -> Selection:
    """What the filters mean together."""
    return Selection(
        ids=frozenset(ids or ()),
        types=frozenset(types or ()),
        codes=frozenset(codes or ()),
        since=since,
        until=until,
        correlation_id=correlation_id,
    )
