"""`bus dead`: an operator's hands on dead letters. Here is what leaves them where they are; `dead_moving` has the rest."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from bus.cli.audit import audited, revealing
from bus.cli.dead.export_file import write
from bus.cli.dead.messages import letters_of, summary, unmet, unseen
from bus.cli.dead.options import (
    SCAN,
    AsJson,
    Codes,
    Correlation,
    Queues,
    Scan,
    Service,
    Since,
    Types,
    Until,
    selected,
)
from bus.cli.dead.queues import look_everywhere, run
from bus.cli.dead.replay import import_, purge_, replay_
from bus.cli.dead.table import as_value, details, listing, opened, payload
from bus.cli.output import print_json, say, table_console
from bus.errors import NotFound
from bus.operations.dead_letters import BrowseResult, Selection
from bus.settings import load_settings

__all__ = ["command"]

SUMMARY = "List, show, replay, delete and export dead letters."
command = typer.Typer(no_args_is_help=True, help=SUMMARY)


@command.command("list")
def list_(
    *,
    service: Service = None,
    queue: Queues = None,
    type_: Types = None,
    code: Codes = None,
    since: Since = None,
    until: Until = None,
    correlation_id: Correlation = None,
    limit: Annotated[
        int, typer.Option(min=1, metavar="N", help="Show so many, the oldest first.")
    ] = 100,
    scan: Scan = SCAN,
    as_json: AsJson = False,
) -> None:
    """List dead letters, without their payloads. They stay where they are.

    They are taken out and put back, which is counted: a dead-letter queue allows a million times. Meanwhile nobody else
    sees them. Those that the broker itself gave up have its reason as their code: delivery_limit for
    what was delivered 100 times, unroutable for what came back from a retry tier and found its queue gone.
    """
    wanted = selected(
        types=type_, codes=code, since=since, until=until, correlation_id=correlation_id
    )
    found = run(
        lambda transport, names: look_everywhere(transport, names, wanted, scan=scan),
        service,
        queue,
    )
    letters = found.letters[:limit]
    if as_json:
        print_json(
            {
                "letters": [as_value(each) for each in letters],
                "matching": found.matching,
                "unseen": found.not_scanned,
            },
            compact=True,
        )
        return
    if letters:
        listing(letters, table_console())
    say(summary(found, len(letters), wanted))


@command.command()
def show(
    id_: Annotated[str, typer.Argument(metavar="ID", help="The message's id.")],
    *,
    service: Service = None,
    queue: Queues = None,
    reveal: Annotated[
        bool, typer.Option("--reveal", help="Show the payload, too; who did is logged.")
    ] = False,
    scan: Scan = SCAN,
    as_json: AsJson = False,
) -> None:
    """Show why a message died, and its headers. It stays where it is.

    The payload is a patient's data, and hidden without --reveal, which takes BUS_OPERATOR_KEY and a right, unless BUS_AUTH is off.
    """
    by = revealing(load_settings()) if reveal else {}
    found = looked_for(id_, service, queue, scan)
    for letter in found.letters:
        if reveal:
            audited(
                "payload revealed",
                message_id=letter.id,
                type=letter.type,
                queue=letter.dead_queue,
                **by,
            )
            letter = opened(letter)  # noqa: PLW2901 - from here on with its payload
        if as_json:
            print_json(as_value(letter, headers=True, body=reveal), compact=True)
            continue
        console = table_console()
        console.print(details(letter, now=int(time.time() * 1000)))
        console.print(
            f"[bold]payload[/]  {len(letter.envelope.body)} bytes"
            + ("" if reveal else ", hidden; --reveal shows it"),
            highlight=False,
        )
        if reveal:
            console.print(payload(letter), markup=False, highlight=False, soft_wrap=True)


command.command("replay")(replay_)
command.command("purge")(purge_)


@command.command()
def export(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="A new file; its owner alone may read it.")
    ],
    *,
    reveal: Annotated[
        bool, typer.Option("--reveal", help="Yes, payloads and all; who did is logged.")
    ] = False,
    service: Service = None,
    queue: Queues = None,
    type_: Types = None,
    code: Codes = None,
    since: Since = None,
    until: Until = None,
    correlation_id: Correlation = None,
    scan: Scan = SCAN,
    as_json: AsJson = False,
) -> None:
    """Write dead letters into a file, a line of JSON each, payloads in base64. They stay where they are.

    The file holds patients' data, so it takes --reveal, and the same right as to show a payload.
    """
    if not reveal:
        raise typer.BadParameter(
            "the file will hold payloads, which are patients' data: say --reveal"
        )
    by = revealing(load_settings())
    wanted = selected(
        types=type_, codes=code, since=since, until=until, correlation_id=correlation_id
    )
    found = run(
        lambda transport, names: look_everywhere(transport, names, wanted, scan=scan),
        service,
        queue,
    )
    write(file, found.letters)
    audited("exported", file=str(file.absolute()), letters=len(found.letters), **by)
    if as_json:
        print_json(
            {"file": str(file), "letters": len(found.letters), "unseen": found.not_scanned},
            compact=True,
        )
        return
    say(
        f"wrote {letters_of(len(found.letters))} into {file}{unmet(wanted, found.seen)}{unseen(found.not_scanned)}"
    )


command.command("import")(import_)


def looked_for(
    id_: str, service: str | None, queues: Sequence[str] | None, scan: int
) -> BrowseResult:
    """The letters of this id, which can have died more than once; `NotFound`."""
    found = run(
        lambda transport, names: look_everywhere(
            transport, names, Selection(ids=frozenset([id_])), scan=scan
        ),
        service,
        queues,
    )
    if not found.letters:
        raise NotFound(
            f"there is no dead letter {id_!r}; `bus dead list` shows which there are{unseen(found.not_scanned)}"
        )
    return found
