"""Commands of `bus dead` that only read dead letters.

`bus.cli.dead.replay` has the commands that move or delete dead letters.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from bus.cli.audit import audited, revealing
from bus.cli.dead.abbreviations import browse_selected
from bus.cli.dead.export_file import write
from bus.cli.dead.imports import import_
from bus.cli.dead.messages import count_letters, describe_not_scanned, describe_unmatched, summary
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
    build_selection,
)
from bus.cli.dead.queues import run
from bus.cli.dead.replay import purge_, replay_
from bus.cli.dead.table import decrypt_payload, details, format_payload, show_table, to_json
from bus.cli.output import print_json, say, table_console
from bus.errors import NotFound
from bus.messaging.topology.names import queue_prefix, service_of
from bus.operations.dead_letters import BrowseResult, Selection
from bus.settings import load_settings

__all__ = ["command"]

SEE_JOBS = (
    "a failed job of a service with a store is not a dead letter: run `bus jobs list --state "
    "failed` with its BUS_STORE"
)
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
        int, typer.Option(min=1, metavar="N", help="Show at most N dead letters, oldest first.")
    ] = 100,
    scan: Scan = SCAN,
    as_json: AsJson = False,
) -> None:
    """List dead letters without their payloads. The dead letters stay in their queues.

    To read dead letters, the command takes them out of their queue and puts them back. RabbitMQ
    counts this as a delivery; a dead-letter queue allows a million deliveries. While the command
    holds the dead letters, no other client can read them.

    If the broker dead-lettered a message, the column "code" shows the broker's reason.
    delivery_limit: the message was delivered 100 times. rejected: the message is larger than
    BUS_MAX_MESSAGE of its worker. unroutable: the message returned from a retry tier, and its work
    queue did not exist any more.
    """
    selection = build_selection(
        types=type_, codes=code, since=since, until=until, correlation_id=correlation_id
    )
    found = run(
        lambda transport, names: browse_selected(transport, names, selection, scan=scan),
        service,
        queue,
    )
    selection, browse_result = found.selection, found.result
    letters = browse_result.letters[:limit]
    if as_json:
        print_json(
            {
                "letters": [to_json(letter) for letter in letters],
                "matching": browse_result.matching,
                "unseen": browse_result.not_scanned,
            },
            compact=True,
        )
        return
    if letters:
        show_table(letters, table_console())
    say(summary(browse_result, len(letters), selection))
    is_for_jobs = any(is_job_queue(each) for each in queue or ())
    if load_settings().has_store or (is_for_jobs and not letters):
        say(SEE_JOBS)


@command.command()
def show(
    id_: Annotated[
        str, typer.Argument(metavar="ID", help="The message id, or its first 4 or more characters.")
    ],
    *,
    service: Service = None,
    queue: Queues = None,
    reveal: Annotated[
        bool, typer.Option("--reveal", help="Also show the payload. The audit log records this.")
    ] = False,
    scan: Scan = SCAN,
    as_json: AsJson = False,
) -> None:
    """Show why a message was dead-lettered, and its headers. The message stays in its queue.

    The payload is shown only with --reveal, because it can hold personal data. With
    BUS_AUTH=on, --reveal requires BUS_OPERATOR_KEY and the right dead-letters.reveal. With
    BUS_AUTH=dev, it requires only BUS_KEY.
    """
    operator = revealing(load_settings()) if reveal else {}
    browse_result = find_letters(id_, service, queue, scan)
    for letter in browse_result.letters:
        if reveal:
            audited(
                "payload revealed",
                message_id=letter.id,
                type=letter.type,
                queue=letter.dead_queue,
                **operator,
            )
            letter = decrypt_payload(letter)  # noqa: PLW2901 - the decrypted letter replaces it
        if as_json:
            print_json(to_json(letter, headers=True, body=reveal), compact=True)
            continue
        console = table_console()
        console.print(details(letter, now=int(time.time() * 1000)))
        console.print(
            f"[bold]payload[/]  {len(letter.envelope.body)} bytes"
            + ("" if reveal else ", hidden; use --reveal to show it"),
            highlight=False,
        )
        if reveal:
            console.print(format_payload(letter), markup=False, highlight=False, soft_wrap=True)


command.command("replay")(replay_)
command.command("purge")(purge_)


@command.command()
def export(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE", help="The file to create. Only the current user can read it."
        ),
    ],
    *,
    reveal: Annotated[
        bool,
        typer.Option(
            "--reveal", help="Confirm that payloads are exported. The audit log records the export."
        ),
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
    """Write dead letters to a file, one line of JSON each. The dead letters stay in their queues.

    The file holds the payloads in base64. Payloads can be personal data, so the command requires
    --reveal, and the same rights as `bus dead show --reveal`.
    """
    if not reveal:
        raise typer.BadParameter(
            "the file would hold payloads, which can be personal data. Pass --reveal to confirm."
        )
    operator = revealing(load_settings())
    selection = build_selection(
        types=type_, codes=code, since=since, until=until, correlation_id=correlation_id
    )
    found = run(
        lambda transport, names: browse_selected(transport, names, selection, scan=scan),
        service,
        queue,
    )
    selection, browse_result = found.selection, found.result
    write(file, browse_result.letters)
    audited("exported", file=str(file.absolute()), letters=len(browse_result.letters), **operator)
    if as_json:
        print_json(
            {
                "file": str(file),
                "letters": len(browse_result.letters),
                "unseen": browse_result.not_scanned,
            },
            compact=True,
        )
        return
    say(
        f"wrote {count_letters(len(browse_result.letters))} to {file}"
        f"{describe_unmatched(selection, browse_result.seen)}"
        f"{describe_not_scanned(browse_result.not_scanned)}"
    )


command.command("import")(import_)


def is_job_queue(queue: str) -> bool:
    """Return True if a work queue, or a dead-letter queue, is one of jobs."""
    return queue.startswith(queue_prefix(service_of(queue), "jobs"))


def find_letters(
    id_: str, service: str | None, queues: Sequence[str] | None, scan: int
) -> BrowseResult:
    """Return all dead letters with this id. A message can be dead-lettered more than once.

    Raises:
        InvalidArgument: The id is abbreviated, and ambiguous or too short.
        NotFound: No dead letter has this id.
    """
    selection = Selection(ids=frozenset([id_]))
    browse_result = run(
        lambda transport, names: browse_selected(transport, names, selection, scan=scan),
        service,
        queues,
    ).result
    if not browse_result.letters:
        raise NotFound(
            f"dead letter {id_!r} was not found{describe_not_scanned(browse_result.not_scanned)}. "
            "List the dead letters with `bus dead list`. A failed job of a service with a store is "
            "in its store: run `bus jobs show ID`."
        )
    return browse_result
