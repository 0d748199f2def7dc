"""`bus dead`: an operator's hands on dead letters."""

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from bus.cli.audit import audited, begin_audit, revealing, who
from bus.cli.dead_file import read, write
from bus.cli.dead_options import (
    SCAN,
    AsJson,
    Codes,
    Correlation,
    Ids,
    Queues,
    Scan,
    Service,
    Since,
    Types,
    Until,
    duration,
    selected,
)
from bus.cli.dead_places import connected, look_everywhere, places
from bus.cli.dead_table import as_value, details, listing, opened, payload
from bus.cli.dead_words import end_with, letters_of, progress, summary, tell_replayed, unseen
from bus.cli.screen import print_json, say, table_console
from bus.dead_letters import Looked, Purged, Replayed, Replaying, Selection, purge, replay
from bus.dead_letters.moving import WINDOW
from bus.errors import BusError, NotFound, ResourceExhausted
from bus.operators import operator_of
from bus.settings import load_settings
from bus.topology import dead_letter_address
from bus.transport import Accepted, Transport

__all__ = ["command"]

SUMMARY = "List, show, replay, delete and export dead letters."
command = typer.Typer(no_args_is_help=True, help=SUMMARY)

T = TypeVar("T")
Work = Callable[[Transport, list[str]], Coroutine[Any, Any, T]]
SEND_TIMEOUT = 10.0
"""Seconds for the broker's confirm."""


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
    limit: Annotated[int, typer.Option(min=1, help="Show so many, the oldest first.")] = 100,
    scan: Scan = SCAN,
    as_json: AsJson = False,
) -> None:
    """List dead letters, without their payloads. They stay where they are.

    They are taken out and put back, which is counted: a dead-letter queue allows a million times. Meanwhile nobody else
    sees them. Those that the broker itself gave up have its reason as their code: delivery_limit for
    what was delivered 100 times, unroutable for what came back from a retry tier and found its queue gone.
    """
    wanted = selected(types=type_, codes=code, since=since, until=until, correlation_id=correlation_id)
    found = run(lambda transport, names: look_everywhere(transport, names, wanted, scan=scan), service, queue)
    letters = found.letters[:limit]
    if as_json:
        print_json({"letters": [as_value(each) for each in letters], "matching": found.matching, "unseen": found.unseen}, compact=True)
        return
    if letters:
        listing(letters, table_console())
    say(summary(found, len(letters)))


@command.command()
def show(
    id_: Annotated[str, typer.Argument(metavar="ID", help="The message's id.")],
    *,
    service: Service = None,
    queue: Queues = None,
    reveal: Annotated[bool, typer.Option("--reveal", help="Show the payload, too; who did is logged.")] = False,
    scan: Scan = SCAN,
    as_json: AsJson = False,
) -> None:
    """Show why a message died, and its headers. It stays where it is.

    The payload is a patient's data, and hidden without --reveal, which takes BUS_OPERATOR_KEY and a right, unless BUS_AUTH is off.
    """
    by = revealing(load_settings()) if reveal else {}
    found = looked_for([id_], service, queue, scan)
    for letter in found.letters:
        if reveal:
            audited("payload revealed", message_id=letter.id, type=letter.type, queue=letter.dead_queue, **by)
            letter = opened(letter)  # noqa: PLW2901 - from here on with its payload
        if as_json:
            print_json(as_value(letter, headers=True, body=reveal), compact=True)
            continue
        console = table_console()
        console.print(details(letter, now=int(time.time() * 1000)))
        console.print(
            f"[bold]payload[/]  {len(letter.envelope.body)} bytes" + ("" if reveal else ", hidden; --reveal shows it"), highlight=False
        )
        if reveal:
            console.print(payload(letter), markup=False, highlight=False, soft_wrap=True)


@command.command("replay")
def replay_(
    ids: Ids = None,
    *,
    service: Service = None,
    queue: Queues = None,
    type_: Types = None,
    code: Codes = None,
    since: Since = None,
    until: Until = None,
    correlation_id: Correlation = None,
    everything: Annotated[bool, typer.Option("--all", help="All, where nothing else says which.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything, move nothing.")] = False,
    extend: Annotated[
        float | None,
        typer.Option(parser=duration, metavar="TIME", show_default=False, help="Give what has expired so much time: 90s, 15m, 2h, 7d."),
    ] = None,
    reason: Annotated[
        str | None, typer.Option("--reason", metavar="TEXT", show_default=False, help="Why they get more time; it stays with them.")
    ] = None,
    rate: Annotated[float | None, typer.Option(min=0.001, metavar="N", show_default=False, help="At most so many a second.")] = None,
    window: Annotated[int, typer.Option(min=1, max=1000, help="Under way at a time.")] = WINDOW,
    scan: Scan = SCAN,
    as_json: AsJson = False,
) -> None:
    """Move dead letters back into their work queues, to be handled anew.

    Each starts at attempt 1, with who replayed it and when in its headers. It goes to the queue that gave it up, and to no
    other subscriber. It is deleted here when the broker has confirmed it there: killed at any point, a replay loses
    nothing, and leaves at most a window of messages in both places. What has expired stays, unless --extend gives it time.
    What dies again meanwhile is not moved a second time.

    With --extend an operator signs for each: that takes BUS_OPERATOR_KEY and --reason, unless BUS_AUTH is off. A message
    gets more time three times at most.
    """
    wanted = selected(ids=ids, types=type_, codes=code, since=since, until=until, correlation_id=correlation_id)
    demand_a_choice(wanted, everything or bool(queue) or bool(service))
    settings = load_settings()
    results: dict[str, Replayed] = {}

    async def work(transport: Transport, names: list[str]) -> None:
        word = await operator_of(settings, actor=who(), reason=reason) if extend is not None else None
        how = Replaying(by=who(), extend=extend, countersign=word, rate=rate, window=window, most=scan, dry_run=dry_run)
        for name in names:
            with progress(name, await transport.depth(name), results) as update:
                await replay(transport, name, wanted, how=how, on_progress=update)
            if results[name].failure is not None:
                break

    try:
        run(work, service, queue)
    finally:  # interrupted, too
        moved = {name: each.replayed for name, each in results.items() if each.replayed or each.doubtful}
        if moved and not dry_run:
            audited("replayed", **moved, **({"extended": extend, "reason": reason} if extend is not None else {}))
    tell_replayed(results, dry_run=dry_run, as_json=as_json)


@command.command("purge")
def purge_(
    ids: Ids = None,
    *,
    service: Service = None,
    queue: Queues = None,
    type_: Types = None,
    code: Codes = None,
    since: Since = None,
    until: Until = None,
    correlation_id: Correlation = None,
    everything: Annotated[bool, typer.Option("--all", help="All, where no filter says which.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    scan: Scan = SCAN,
) -> None:
    """Delete dead letters for good: exactly those that were counted when it asks."""
    wanted = selected(ids=ids, types=type_, codes=code, since=since, until=until, correlation_id=correlation_id)
    demand_a_choice(wanted, everything)
    found = run(lambda transport, names: look_everywhere(transport, names, wanted, scan=scan), service, queue)
    if not found.letters:
        say(summary(found, 0))
        return
    counts = {name: sum(each.dead_queue == name for each in found.letters) for name in sorted({each.dead_queue for each in found.letters})}
    for name, count in counts.items():
        say(f"{name}: {count}")
    if not yes:
        typer.confirm(f"Delete {letters_of(len(found.letters))} for good?", abort=True, err=True)
    exactly = Selection(keys=frozenset(each.key for each in found.letters))

    results: dict[str, Purged] = {}

    async def work(transport: Transport, names: list[str]) -> None:
        for name in names:
            with progress(name, counts[name], results) as update:
                await purge(transport, name, exactly, most=scan, on_progress=update)

    try:
        run(work, None, list(counts))
    finally:  # interrupted, too
        audited("purged", **{name: each.deleted for name, each in results.items()})
    say(f"deleted {letters_of(sum(each.deleted for each in results.values()))}{unseen(found.unseen)}")
    end_with(results.values())


@command.command()
def export(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A new file; its owner alone may read it.")],
    *,
    reveal: Annotated[bool, typer.Option("--reveal", help="Yes, payloads and all; who did is logged.")] = False,
    service: Service = None,
    queue: Queues = None,
    type_: Types = None,
    code: Codes = None,
    since: Since = None,
    until: Until = None,
    correlation_id: Correlation = None,
    scan: Scan = SCAN,
) -> None:
    """Write dead letters into a file, a line of JSON each, payloads in base64. They stay where they are.

    The file holds patients' data, so it takes --reveal, and the same right as to show a payload.
    """
    if not reveal:
        raise typer.BadParameter("the file will hold payloads, which are patients' data: say --reveal")
    by = revealing(load_settings())
    wanted = selected(types=type_, codes=code, since=since, until=until, correlation_id=correlation_id)
    found = run(lambda transport, names: look_everywhere(transport, names, wanted, scan=scan), service, queue)
    write(file, found.letters)
    audited("exported", file=str(file.absolute()), letters=len(found.letters), **by)
    say(f"wrote {letters_of(len(found.letters))} into {file}{unseen(found.unseen)}")


@command.command("import")
def import_(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What `bus dead export` wrote.")],
) -> None:
    """Put exported dead letters back among the dead letters of their queues. Those that are still there will be there twice.

    From there `bus dead replay` takes them. The whole file is read before the first is sent.
    """
    messages = list(read(file))

    async def work(transport: Transport, _: list[str]) -> int:
        sent = 0
        for queue, message in messages:
            outcome = await transport.send(message, dead_letter_address(queue), timeout=SEND_TIMEOUT)
            if not isinstance(outcome, Accepted):
                raise failed_import(queue, outcome.reason, sent)
            sent += 1
        return sent

    sent = run(work, None, [])
    audited("imported", file=str(file.absolute()), letters=sent)
    say(f"put back {letters_of(sent)}")


def run(work: Work[T], service: str | None, queues: Sequence[str] | None) -> T:
    """Connect, find the queues, and do it; `queues` given as an empty list means that none are needed."""
    settings = load_settings()

    async def connect() -> T:
        async with connected(settings) as transport:
            return await work(transport, [] if queues == [] else await places(transport, settings, service, queues))

    begin_audit(settings)
    return asyncio.run(connect())


def looked_for(ids: Sequence[str], service: str | None, queues: Sequence[str] | None, scan: int) -> Looked:
    """The letters of these ids; `NotFound`."""
    found = run(lambda transport, names: look_everywhere(transport, names, Selection(ids=frozenset(ids)), scan=scan), service, queues)
    if not found.letters:
        raise NotFound(f"there is no such dead letter{unseen(found.unseen)}")
    return found


def demand_a_choice(wanted: Selection, chosen: bool) -> None:
    """What moves or deletes has to be told which."""
    if wanted.everything and not chosen:
        raise typer.BadParameter("say which: ids, filters such as --type or --since, or --all")


def failed_import(queue: str, reason: str, sent: int) -> BusError:
    """Why, and how far it came: who tries again has those twice."""
    came = f"{letters_of(sent)} were put back before" if sent else "nothing was put back"
    if reason == "NO_ROUTE":
        return NotFound(f"{queue} has no dead-letter queue here ({came}); start its service, which declares it")
    return ResourceExhausted(f"{queue}: {reason} ({came})")
