"""`bus queues`: show the messages, consumers and dead letters of each queue."""

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
from bus.cli.options import Contracts, finite
from bus.cli.output import print_json, table_console
from bus.cli.queue_table import notes, table
from bus.contracts.contract import check_part
from bus.errors import BusError, ContractError, NotFound
from bus.messaging.escaped_text import one_line
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
from bus.operations.unserved_queues import UnservedQueue, find_unserved
from bus.settings import Settings, load_settings

__all__ = ["command"]


def command(
    target: Annotated[
        str | None,
        typer.Argument(
            metavar="SERVICE|MODULE:ROUTER",
            show_default=False,
            help="Show only the queues of this service or router. Default: all queues.",
        ),
    ] = None,
    *,
    watch: Annotated[
        float | None,
        typer.Option(
            "--watch",
            min=0.5,
            callback=finite,
            metavar="SECONDS",
            help="Refresh at this interval, until Ctrl-C.",
        ),
    ] = None,
    contracts: Contracts = None,
    as_json: Annotated[
        bool,
        typer.Option(
            "--json", help="Print JSON for programs. With --watch, print one line per refresh."
        ),
    ] = False,
) -> None:
    """Show the messages, consumers and dead letters of each queue.

    The command takes no message out of a queue and changes nothing. It reads the numbers of ready
    messages and of consumers over AMQP. If RabbitMQ's management API answers, the command reads the
    names of all queues from it, and the columns "unacked" and "oldest". The API's URL is
    BUS_MANAGEMENT_URL. If it is not set, the command tries the default port of the broker's host.

    "oldest" is the time since the oldest message in the queue was sent. RabbitMQ reports it only
    for classic queues. For the quorum queues of jobs, events and dead letters the column shows "-".
    """
    settings = load_settings()
    where = BrokerAddress.of(settings, renew=watch is None)
    selection = select_queues(target, contracts or [])
    if watch is not None:
        asyncio.run(watch_queues(settings, selection, watch, as_json=as_json))
        return
    report = asyncio.run(inspect_queues(where, selection))
    if not report.queues and target and not selection.names:
        hint = did_you_mean(target, asyncio.run(list_services(where)))
        raise NotFound(f"service {target!r} has no queues on this broker{hint}")
    show(report, as_json=as_json)


def select_queues(target: str | None, contracts: Sequence[str]) -> QueueFilter:
    """Return the filter for the queues of the service or router in `target`."""
    if target is None:
        return QueueFilter()
    if ":" in target:
        router = load_router(target)
        names = {
            queue.name for _, topology in router.topology().values() for queue in topology.queues
        }
        return QueueFilter(names=tuple(sorted(names)), service=router.name)
    try:
        check_part(target, "service")
    except ContractError as error:
        raise ContractError(f"{error}, or pass MODULE:ROUTER.") from None
    guesses = (*service_queues(target), *guess_queues(target, contracts))
    return QueueFilter(service=target, guesses=guesses)


def guess_queues(service: str, contracts: Sequence[str]) -> set[str]:
    """Return the names of the request and job queues of the service's known contracts.

    Queues of event subscriptions are not included, because contracts do not name subscribers.
    """
    if not contracts and not has_default():
        return set()
    topologies = [
        request_topology(contract)
        if contract.kind == "request"
        else job_topology(contract, tiers=())
        for contract in known_contracts(contracts).contracts
        if contract.service == service and contract.kind != "event"
    ]
    return {queue.name for topology in topologies for queue in topology.queues}


async def list_services(where: BrokerAddress) -> set[str]:
    """Return the names of the services that have queues on the broker."""
    return {queue.service for queue in (await inspect_queues(where, QueueFilter())).queues}


async def watch_queues(
    settings: Settings, selection: QueueFilter, seconds: float, *, as_json: bool
) -> None:
    """Show the queues, and refresh the display every `seconds` until Ctrl-C or SIGTERM.

    If the broker does not answer, show the error, and try again at the next refresh.
    """
    with signals() as stop, Live(console=table_console(), auto_refresh=False) as live:
        while not stop.is_set():
            inspection = asyncio.ensure_future(inspect_once(settings, selection))
            stopping = asyncio.ensure_future(stop.wait())
            await asyncio.wait({inspection, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if inspection.done():
                update(live, inspection, as_json=as_json)
                await asyncio.wait({stopping}, timeout=seconds)
            inspection.cancel()
            stopping.cancel()


async def inspect_once(settings: Settings, selection: QueueFilter) -> QueueReport:
    """Inspect the queues. The password file is read again, because its content can have changed."""
    return await inspect_queues(BrokerAddress.of(settings, renew=False), selection)


def update(live: Live, inspection: "asyncio.Future[QueueReport]", *, as_json: bool) -> None:
    """Show the result of an inspection on the live display, or print it as one line of JSON."""
    error = inspection.exception()
    if error is not None and not isinstance(error, BusError):
        raise error
    if as_json:
        print_json({"error": str(error)} if error else to_json(inspection.result()), compact=True)
    elif error is not None:
        live.update(Text(one_line(f"error: {error}"), style="red"), refresh=True)
    else:
        report = inspection.result()
        # Show the notes above the table: rich cuts off the lines that do not fit on the screen.
        live.update(
            Group(*(Text.from_markup(line, emoji=False) for line in notes(report)), table(report)),
            refresh=True,
        )


def show(report: QueueReport, *, as_json: bool) -> None:
    """Print the report as JSON or as a table with notes."""
    if as_json:
        print_json(to_json(report), compact=True)
        return
    console = table_console()
    console.print(table(report))
    for line in notes(report):
        console.print(line, highlight=False)


def queue_to_json(status: QueueStatus, unserved: UnservedQueue | None) -> dict[str, Any]:
    """Return one queue as JSON. The keys are part of the command line's interface."""
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
        "unserved": unserved is not None,
        "newer": unserved.newer if unserved else None,
    }


def to_json(report: QueueReport) -> dict[str, Any]:
    """Return the report as JSON. Unknown values are null. Times are in seconds."""
    unserved = find_unserved(report.queues)
    return {
        "broker": asdict(report.server),
        "at": round(report.at, 3),
        "without_management": report.without_management,
        "queues": [queue_to_json(queue, unserved.get(queue.name)) for queue in report.queues],
    }
