"""`bus queues`: what waits in the queues, who consumes it, and what is dead."""

import asyncio
from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated, Any

import typer
from rich.console import Group
from rich.live import Live
from rich.text import Text

from bus.cli.broker import signals
from bus.cli.loading import has_default, known_contracts, load_router
from bus.cli.options import Contracts
from bus.cli.output import print_json, table_console
from bus.cli.queue_table import notes, table
from bus.contracts.contract import check_part
from bus.errors import BusError, ContractError, NotFound
from bus.messaging.suggestions import did_you_mean
from bus.messaging.topology.declarations import job_topology, request_topology
from bus.messaging.topology.names import service_queues
from bus.operations.queue_inspection import (
    BrokerAddress,
    QueueFilter,
    QueueReport,
    QueueStatus,
    inspect_queues,
)
from bus.settings import Settings, load_settings

__all__ = ["command"]


def command(
    target: Annotated[
        str | None,
        typer.Argument(
            metavar="SERVICE|MODULE:ROUTER",
            show_default=False,
            help="Whose queues; without it all of the bus.",
        ),
    ] = None,
    *,
    watch: Annotated[
        float | None,
        typer.Option(
            "--watch", min=0.5, metavar="SECONDS", help="Look again and again, until Ctrl-C."
        ),
    ] = None,
    contracts: Contracts = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="For programs; with --watch a line for each look.")
    ] = False,
) -> None:
    """Show what waits in the queues, who consumes it, and what is dead.

    Nothing is taken out of a queue and nothing is changed. Ready messages and consumers come from AMQP; the list of the
    queues, unacked and oldest come from RabbitMQ's management API, where it answers (BUS_MANAGEMENT_URL; without it the
    usual port is tried).

    oldest is the time since the first message in the queue was sent. RabbitMQ tells it of classic queues only, so of
    jobs, events and dead letters, which are in quorum queues, there is "-".
    """
    settings = load_settings()
    where = BrokerAddress.of(settings, renew=watch is None)
    wanted = wanted_queues(target, contracts or [])
    if watch is not None:
        asyncio.run(watched(settings, wanted, watch, as_json=as_json))
        return
    seen = asyncio.run(inspect_queues(where, wanted))
    if not seen.queues and target and not wanted.names:
        raise NotFound(
            f"there are no queues of a service {target!r}{did_you_mean(target, asyncio.run(services(where)))}"
        )
    show(seen, as_json=as_json)


def wanted_queues(target: str | None, contracts: Sequence[str]) -> QueueFilter:
    """What the argument names."""
    if target is None:
        return QueueFilter()
    if ":" in target:
        router = load_router(target)
        needed = {
            queue.name for _, topology in router.topology().values() for queue in topology.queues
        }
        return QueueFilter(names=tuple(sorted(needed)), service=router.name)
    try:
        check_part(target, "service")
    except ContractError as error:
        raise ContractError(f"{error}; or write MODULE:ROUTER") from None
    return QueueFilter(service=target, guesses=(*service_queues(target), *owned(target, contracts)))


def owned(service: str, contracts: Sequence[str]) -> set[str]:
    """The queues of the requests and jobs of a service whose contracts are known here; its subscriptions nobody knows."""
    if not contracts and not has_default():
        return set()
    own = [each for each in known_contracts(contracts).contracts if each.service == service]
    topologies = [
        request_topology(each) if each.kind == "request" else job_topology(each, tiers=())
        for each in own
        if each.kind != "event"
    ]
    return {queue.name for topology in topologies for queue in topology.queues}


async def services(where: BrokerAddress) -> set[str]:
    """Those that have queues."""
    return {each.service for each in (await inspect_queues(where, QueueFilter())).queues}


async def watched(
    settings: Settings, wanted: QueueFilter, seconds: float, *, as_json: bool
) -> None:
    """Look every so many seconds until a signal; a broker that does not answer meanwhile is told, and asked again."""
    with signals() as stop, Live(console=table_console(), auto_refresh=False) as live:
        while not stop.is_set():
            looking = asyncio.ensure_future(look(settings, wanted))
            stopping = asyncio.ensure_future(stop.wait())
            await asyncio.wait({looking, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if looking.done():
                update(live, looking, as_json=as_json)
                await asyncio.wait({stopping}, timeout=seconds)
            looking.cancel()
            stopping.cancel()


async def look(settings: Settings, wanted: QueueFilter) -> QueueReport:
    """What is there now; with a password's file with what that has now."""
    return await inspect_queues(BrokerAddress.of(settings, renew=False), wanted)


def update(live: Live, looking: "asyncio.Future[QueueReport]", *, as_json: bool) -> None:
    """Show what was seen in place of what was shown, or as the next line."""
    error = looking.exception()
    if error is not None and not isinstance(error, BusError):
        raise error
    if as_json:
        print_json({"error": str(error)} if error else as_value(looking.result()), compact=True)
    elif error is not None:
        live.update(Text(f"error: {error}", style="red"), refresh=True)
    else:
        seen = looking.result()
        # What is to be done stands first: of a table that is longer than the screen the end is cut.
        live.update(
            Group(*(Text.from_markup(line) for line in notes(seen)), table(seen)), refresh=True
        )


def show(seen: QueueReport, *, as_json: bool) -> None:
    """For a program, or for a person."""
    if as_json:
        print_json(as_value(seen), compact=True)
        return
    console = table_console()
    console.print(table(seen))
    for line in notes(seen):
        console.print(line, highlight=False)


def queue_value(status: QueueStatus) -> dict[str, Any]:
    """Return one queue as JSON; the keys are part of the command line's interface."""
    return {
        "name": status.name,
        "service": status.service,
        "purpose": status.role,
        "work_queue": status.work_queue,
        "type": status.type,
        "exists": status.exists,
        "ready": status.ready,
        "unacked": status.unacked,
        "consumers": status.consumers,
        "oldest": None if status.oldest is None else round(status.oldest, 1),
        "trouble": status.last_error,
    }


def as_value(seen: QueueReport) -> dict[str, Any]:
    """For programs: names in full, null for what nobody could tell, seconds."""
    return {
        "broker": asdict(seen.server),
        "at": round(seen.at, 3),
        "without_management": seen.without_management,
        "queues": [queue_value(each) for each in seen.queues],
    }
