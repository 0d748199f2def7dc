"""`bus breakers`: show, isolate and reset the circuit breakers of live instances."""

import asyncio
import time
from collections.abc import Collection
from contextlib import suppress
from typing import Annotated, Literal

import typer

from bus.cli.breaker_table import breaker_table, breakers_to_json
from bus.cli.broker_name import name_broker
from bus.cli.options import AsJson, Window
from bus.cli.order_options import (
    AllServices,
    For,
    ForService,
    Instance,
    Why,
    end_after,
    target_of,
)
from bus.cli.order_sending import Obeyed, operator_name, report, send_order
from bus.cli.output import print_json, suppress_library_logs, table_console
from bus.cli.sender import AsAsker
from bus.cli.services.commands import check_service
from bus.cli.services.questions import no_answer
from bus.errors import BusError
from bus.messaging.control import GetBreakers, GetInfo, Target
from bus.messaging.orders import MAX_ORDER_SECONDS, IsolateBreaker, ResetBreaker
from bus.messaging.policy_info import InstanceBreakers
from bus.messaging.suggestions import did_you_mean
from bus.runtime.discovery.asker import Asker
from bus.runtime.discovery.open_asker import open_asker
from bus.settings import Settings, load_settings

__all__ = ["command"]

DEFAULT_SECONDS = "10m"
NO_BREAKER = "it has no breaker with this name"
RESET_SECONDS = 60.0
"""Seconds after which a reset that has not arrived does nothing."""

command = typer.Typer(
    no_args_is_help=True,
    help="Show, isolate and reset the circuit breakers of live instances.",
)

Breaker = Annotated[
    str,
    typer.Argument(
        metavar="NAME",
        help="The type of an operation, such as billing.quote.v1, or the name of a dependency.",
    ),
]
Kind = Annotated[
    Literal["call", "dependency"] | None,
    typer.Option("--kind", show_default=False, help="The kind of the breaker. Default: both."),
]


@command.command("list")
def list_(
    service: Annotated[
        str | None,
        typer.Argument(
            metavar="SERVICE",
            show_default=False,
            help="Show the breakers in the instances of this service. Default: all services.",
        ),
    ] = None,
    *,
    everything: Annotated[
        bool, typer.Option("--all", help="Show the closed breakers, too.")
    ] = False,
    window: Window = 1.0,
    as_json: AsJson = False,
    as_service: AsAsker = None,
) -> None:
    """Show the circuit breakers of live instances that are not closed.

    A breaker of the kind "call" belongs to an operation that the instance calls. One of the kind
    "dependency" belongs to something that its handlers need. "ends in" is the time until the next
    probe, or until the end of an operator's order. "since" is the time since the first
    opening, also after failed probes. "failed/calls 10s" counts the last 10 s, and "rejected" the
    calls since the start of the instance. "cause" names the operator of an order. A line above the
    table has the operator and the reason.

    Each instance has breakers of its own. The command needs the right `control.read`, and changes
    nothing.
    """
    if service is not None:
        check_service(service)
    settings = load_settings()
    with suppress_library_logs():
        records = asyncio.run(ask_breakers(settings, service, window, as_service))
    now = time.time()
    if as_json:
        print_json(breakers_to_json(records, now), compact=True)
        return
    console = table_console()
    console.print(breaker_table(records, console, now=now, everything=everything))


async def ask_breakers(
    settings: Settings, service: str | None, window: float, as_service: str | None
) -> list[InstanceBreakers]:
    """Ask live instances for their breakers.

    Raises:
        NotFound: Other services answered, and the service did not.
        Unavailable: No instance of any service answered.
    """
    async with open_asker(settings, service=as_service) as asker:
        answers = await asker.ask(GetBreakers(), Target(service), window=window)
        if not answers:
            raise await no_answer(asker, service, window, broker=name_broker(settings))
        return [answer.record for answer in answers]


@command.command()
def isolate(
    name: Breaker,
    *,
    reason: Why,
    for_: For = DEFAULT_SECONDS,  # type: ignore[assignment]  # typer parses the default, too
    service: ForService = None,
    all_: AllServices = False,
    instance: Instance = None,
    kind: Kind = None,
    window: Window = 1.0,
    as_json: AsJson = False,
) -> None:
    """Keep a circuit breaker open until a time. Its calls then fail at once.

    Name the service whose instances stop calling the operation with --service, or let all services
    stop with --all. The order ends by itself after --for, and `bus breakers reset` ends it earlier.
    A breaker of a dependency pauses the queues of its handlers. No message is lost.

    With BUS_AUTH=on the command needs BUS_OPERATOR_KEY, and the right `control.order`.
    """
    target = target_of(service, instance, all_=all_)
    settings = load_settings()
    order = IsolateBreaker(
        breaker=name,
        kind=kind,
        reason=reason,
        until=end_after(for_, MAX_ORDER_SECONDS),
        operator=operator_name(settings),
    )
    give(settings, order, target, window, as_json=as_json)


@command.command()
def reset(
    name: Breaker,
    *,
    reason: Why,
    service: ForService = None,
    all_: AllServices = False,
    instance: Instance = None,
    kind: Kind = None,
    window: Window = 1.0,
    as_json: AsJson = False,
) -> None:
    """Close a circuit breaker at once. Its calls are sent again.

    Use it after an isolation, or if you know that a service works again before the next probe. If
    calls still fail, the breaker opens again.

    With BUS_AUTH=on the command needs BUS_OPERATOR_KEY, and the right `control.order`.
    """
    target = target_of(service, instance, all_=all_)
    settings = load_settings()
    order = ResetBreaker(
        breaker=name,
        kind=kind,
        reason=reason,
        until=end_after(RESET_SECONDS, MAX_ORDER_SECONDS),
        operator=operator_name(settings),
    )
    give(settings, order, target, window, as_json=as_json)


def give(
    settings: Settings,
    order: IsolateBreaker | ResetBreaker,
    target: Target,
    window: float,
    *,
    as_json: bool,
) -> None:
    """Give an order, and print what the instances have done."""

    async def send() -> tuple[Obeyed, str]:
        obeyed = await send_order(settings, order, target, window)
        if obeyed.applied:
            return obeyed, f"{NO_BREAKER}."
        names: set[str] = set()
        # An operator can have the right to order without the right to read.
        with suppress(BusError):
            async with open_asker(settings) as asker:
                names = await breaker_names(asker, target, window)
        return obeyed, without_breaker(order.breaker, names)

    with suppress_library_logs():
        obeyed, missing = asyncio.run(send())
    done = f"{'isolated' if order.is_lasting else 'reset'} {order.breaker}"
    report(shown(obeyed, target), done, missing=missing, as_json=as_json)


async def breaker_names(asker: Asker, target: Target, window: float) -> set[str]:
    """Return the names that a breaker of live instances can have.

    A service does not tell which contracts it calls, so the types are those that any service
    handles.
    """
    infos, breakers = await asyncio.gather(
        asker.ask(GetInfo(), window=window), asker.ask(GetBreakers(), target, window=window)
    )
    contracts = [each for answer in infos for each in answer.record.contracts]
    types = {each.type for each in contracts if each.kind == "request"}
    return types | {each.name for answer in breakers for each in answer.record.breakers}


def without_breaker(name: str, names: Collection[str]) -> str:
    """Return why an instance ignores an order, with similar names and the meaning of a name."""
    similar = did_you_mean(name, [each for each in names if each != name]) or "."
    return (
        f"{NO_BREAKER}{similar} NAME is a type with its version, such as billing.quote.v1, or a "
        "dependency. The breaker of a type is in the service that calls it, so --service is the "
        "caller. `bus breakers list --all` shows the names."
    )


def shown(obeyed: Obeyed, target: Target) -> Obeyed:
    """Return the answers to show. Of all services, most do not call the operation."""
    return obeyed.without_missing() if target.service is None else obeyed
