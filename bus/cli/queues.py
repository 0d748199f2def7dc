"""`bus queues`: show the messages, consumers and dead letters of each queue."""

import asyncio
from collections.abc import Sequence
from typing import Annotated

import typer

from bus.cli.loading import has_default, known_contracts, load_router
from bus.cli.options import Contracts, finite
from bus.cli.output import print_json, table_console
from bus.cli.queue_table import print_report, report_to_json
from bus.cli.queue_watch import watch_queues
from bus.contracts.contract import check_part
from bus.errors import ContractError, NotFound
from bus.messaging.suggestions import did_you_mean
from bus.messaging.topology.declarations import job_topology, request_topology
from bus.messaging.topology.names import service_queues
from bus.operations.queue_inspection import BrokerAddress, QueueFilter, inspect_queues
from bus.settings import load_settings

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
            help="Refresh at this interval, until Ctrl-C. In a pipe each refresh is a block of "
            "lines.",
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

    "oldest" is the time since the oldest message in the queue was sent. RabbitMQ reads it every
    5 s, so the value can be 6 s too high while consumers take messages. Below 10 s it is then shown
    as "<10s". RabbitMQ reports it only for classic queues. For the quorum queues of jobs, events
    and dead letters the column shows "-".
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
    if as_json:
        print_json(report_to_json(report), compact=True)
    else:
        print_report(report, table_console())


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
