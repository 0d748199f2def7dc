"""Commands of `bus consumers`."""

import asyncio
import time
from collections.abc import Sequence
from typing import Annotated

import typer

from bus.cli.broker_name import name_broker
from bus.cli.consumers.table import consumers_table, consumers_to_json
from bus.cli.options import AsJson, Window, duration
from bus.cli.order_options import Why, end_after
from bus.cli.order_sending import operator_name, report, run_order
from bus.cli.output import print_json, say, suppress_library_logs, table_console
from bus.cli.sender import AsAsker
from bus.cli.services.commands import check_service
from bus.cli.services.questions import no_answer
from bus.errors import NotFound
from bus.messaging.control import GetStats, Target
from bus.messaging.orders import (
    MAX_ORDER_SECONDS,
    OrderResult,
    PauseConsumers,
    ResumeConsumers,
)
from bus.messaging.service_info import InstanceStats
from bus.messaging.topology.names import service_of
from bus.runtime.discovery.open_asker import open_asker
from bus.settings import Settings, load_settings

__all__ = ["command", "service_and_target", "storing_line"]

DEFAULT_SECONDS = 3600.0
"""Seconds of a pause without `--for`."""
RESUME_SECONDS = 60.0
"""Seconds after which an order to resume that has not arrived does nothing."""
NOT_CONSUMED = (
    "it has no such consumer of events or jobs. `bus consumers list` shows the queues. For an "
    "event, pass --service SUBSCRIBER."
)
NOT_PAUSED = "no operator has paused its consumers. `bus consumers list` shows the pauses."

command = typer.Typer(
    no_args_is_help=True, help="Show, pause and resume the consumers of events and jobs."
)

Consumers = Annotated[
    str,
    typer.Argument(
        metavar="TARGET",
        help="A service, the type of its events or jobs such as library.scan.v1, or a work queue.",
    ),
]
OfService = Annotated[
    str | None,
    typer.Option(
        "--service",
        metavar="SERVICE",
        show_default=False,
        help="The service that consumes the type. Default: the service in the name of TARGET.",
    ),
]


@command.command("list")
def list_(
    service: Annotated[
        str | None,
        typer.Argument(
            metavar="SERVICE",
            show_default=False,
            help="Show the consumers of this service. Default: all services.",
        ),
    ] = None,
    *,
    paused: Annotated[
        bool, typer.Option("--paused", help="Show only the consumers that are paused.")
    ] = False,
    window: Window = 1.0,
    as_json: AsJson = False,
    as_service: AsAsker = None,
) -> None:
    """Show the consumers of live instances, and why some of them are paused.

    A row has the consumers of one queue in all instances. "paused" is the number of instances that
    start no message now. "stored" is "yes" if the store of the service keeps the pause: instances
    that start later then begin paused. A dependency that is down and a poison candidate pause
    consumers, too.

    The command needs the right `control.read`, and changes nothing.
    """
    if service is not None:
        check_service(service)
    settings = load_settings()
    with suppress_library_logs():
        records = asyncio.run(ask_consumers(settings, service, window, as_service))
    now = time.time()
    if as_json:
        print_json(consumers_to_json(records, now, only_paused=paused), compact=True)
        return
    console = table_console()
    console.print(consumers_table(records, console, now=now, only_paused=paused))


async def ask_consumers(
    settings: Settings, service: str | None, window: float, as_service: str | None
) -> list[InstanceStats]:
    """Ask live instances for the state of their consumers.

    Raises:
        NotFound: Other services answered, and the service did not.
        Unavailable: No instance of any service answered.
    """
    async with open_asker(settings, service=as_service) as asker:
        answers = await asker.ask(GetStats(), Target(service), window=window)
        if not answers:
            raise await no_answer(asker, service, window, broker=name_broker(settings))
        return [answer.record for answer in answers]


@command.command()
def pause(
    target: Consumers,
    *,
    reason: Why,
    for_: Annotated[
        float | None,
        typer.Option(
            "--for",
            parser=duration,
            metavar="TIME",
            show_default=False,
            help="End the pause by itself after this time: 90s, 15m, at most 24h. Default: 1h.",
        ),
    ] = None,
    until_resumed: Annotated[
        bool,
        typer.Option(
            "--until-resumed",
            help="Pause until `bus consumers resume`. The service needs a store (BUS_STORE).",
        ),
    ] = False,
    service: OfService = None,
    window: Window = 1.0,
    as_json: AsJson = False,
) -> None:
    """Start no further events and jobs in any instance of a service, until a time.

    Running messages finish. The others wait in their queue, or in the store. No message is lost,
    and none uses an attempt. Requests are never paused, because their callers wait for a reply.

    If the service has a store, it keeps the pause, and instances that start later begin paused.
    Without a store, they begin without the pause.

    With BUS_AUTH=on the command needs BUS_OPERATOR_KEY, and the right `control.order`.
    """
    if until_resumed and for_ is not None:
        raise typer.BadParameter(
            "the pause has two ends. Remove --for, or --until-resumed.", param_hint="--for"
        )
    owner, named = service_and_target(target, service)
    longest = MAX_ORDER_SECONDS
    seconds = for_ if for_ is not None else longest if until_resumed else DEFAULT_SECONDS
    settings = load_settings()
    order = PauseConsumers(
        target=named,
        until_resumed=until_resumed,
        reason=reason,
        until=end_after(seconds, longest),
        operator=operator_name(settings),
    )
    obeyed = run_order(settings, order, Target(owner), window)
    report(obeyed, f"paused {target}", missing=NOT_CONSUMED, as_json=as_json)
    if not as_json:
        say(storing_line(obeyed.applied))


@command.command()
def resume(
    target: Consumers,
    *,
    reason: Why = "the pause is over",
    service: OfService = None,
    window: Window = 1.0,
    as_json: AsJson = False,
) -> None:
    """End the pauses that operators have requested, in all instances of a service.

    A dependency that is down still pauses its consumers (`bus breakers list`).

    With BUS_AUTH=on the command needs BUS_OPERATOR_KEY, and the right `control.order`.
    """
    owner, named = service_and_target(target, service)
    settings = load_settings()
    order = ResumeConsumers(
        target=named,
        reason=reason,
        until=end_after(RESUME_SECONDS, MAX_ORDER_SECONDS),
        operator=operator_name(settings),
    )
    obeyed = run_order(settings, order, Target(owner), window)
    # An instance that the pause never reached is not worth a line if others were paused.
    obeyed = obeyed.without_missing()
    report(obeyed, f"resumed {target}", missing=NOT_PAUSED, as_json=as_json)
    if any(each.stored is False for each in obeyed.applied):
        say(
            "the store did not confirm it, so the consumers can be paused again within a minute. "
            "Give the order again when the store answers."
        )


def service_and_target(target: str, service: str | None) -> tuple[str, str | None]:
    """Return the service that an order is for, and its type or queue. None: all its consumers.

    Raises:
        ContractError: The name of the service is invalid.
        NotFound: The target is the name of another service.
    """
    owner = service or service_of(target)
    check_service(owner)
    if "." in target:
        return owner, target
    if owner != target:
        raise NotFound(
            f"{target!r} is not a type or a queue of the service {owner!r}. Pass a name such as "
            f"{owner}.scan.v1, or leave out --service."
        )
    return owner, None


def storing_line(applied: Sequence[OrderResult]) -> str:
    """Return the line that tells whether the store keeps the pause of these instances."""
    stored = [each.stored for each in applied]
    if all(stored):
        return "stored: instances that start later begin paused"
    if all(each is None for each in stored):
        return "not stored: the service has no store, so instances that start later are not paused"
    return (
        "not stored by every instance: the store did not confirm it in time. `bus consumers list` "
        "shows whether it is stored now"
    )
