"""`bus breakers`: show, isolate and reset the circuit breakers of live instances."""

import asyncio
import time
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
from bus.messaging.control import GetBreakers, Target
from bus.messaging.orders import MAX_ORDER_SECONDS, IsolateBreaker, ResetBreaker
from bus.messaging.policy_info import InstanceBreakers
from bus.runtime.discovery.open_asker import open_asker
from bus.settings import Settings, load_settings

__all__ = ["command"]

DEFAULT_SECONDS = "10m"
NO_BREAKER = "it has no breaker with this name. `bus breakers list --all` shows the names."
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
    probe, or until the end of an operator's order. "failed/calls" counts the sliding window, and
    "rejected" the calls since the start of the instance. "cause" names the operator and the reason
    of an order.

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
    with suppress_library_logs():
        obeyed = asyncio.run(send_order(settings, order, target, window))
    report(shown(obeyed, target), f"isolated {name}", missing=NO_BREAKER, as_json=as_json)


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
    with suppress_library_logs():
        obeyed = asyncio.run(send_order(settings, order, target, window))
    report(shown(obeyed, target), f"reset {name}", missing=NO_BREAKER, as_json=as_json)


def shown(obeyed: Obeyed, target: Target) -> Obeyed:
    """Return the answers to show. Of all services, most do not call the operation."""
    return obeyed.without_missing() if target.service is None else obeyed
