"""`bus chaos`: start, stop and show chaos experiments in live instances."""

import asyncio
import time
from collections.abc import Iterable
from typing import Annotated, Any

import typer
from rich.console import Console, RenderableType
from rich.text import Text

from bus.cli.broker_name import name_broker
from bus.cli.fitting_table import Column, fitting_table
from bus.cli.options import AsJson, Window, duration
from bus.cli.order_options import (
    AllServices,
    ForService,
    Instance,
    Why,
    end_after,
    target_of,
)
from bus.cli.order_sending import Obeyed, operator_name, report, run_order
from bus.cli.output import print_json, say, suppress_library_logs, table_console
from bus.cli.quantities import format_duration
from bus.cli.sender import AsAsker
from bus.cli.services.commands import check_service
from bus.cli.services.questions import no_answer
from bus.messaging.chaos_info import InstanceChaos
from bus.messaging.control import GetChaos, Target
from bus.messaging.escaped_text import one_line
from bus.messaging.orders import StartChaos, StopChaos
from bus.messaging.plurals import count_noun
from bus.messaging.resilience.chaos_grammar import ChaosSyntaxError, parse_chaos
from bus.messaging.resilience.chaos_plan import (
    DEFAULT_CHAOS_SECONDS,
    FAULT_LIMITS,
    MAX_CHAOS_SECONDS,
    ChaosPlan,
)
from bus.runtime.discovery.open_asker import open_asker
from bus.settings import Settings, load_settings

__all__ = ["chaos_table", "command"]

STOP_SECONDS = 60.0
"""Seconds after which an order to stop that has not arrived does nothing."""
NO_OPERATION = "it handles none of the operations. Check the plan with `bus services SERVICE -v`."
NO_EXPERIMENT = "it runs no experiment. `bus chaos status` shows the experiments."
COLUMNS = (
    Column("faults", is_text=True),
    Column("service", is_text=True),
    Column("instance", 4, is_text=True),
    Column("injected", 3, is_text=True),
    Column("ends in"),
    Column("by", 1, is_text=True),
    Column("reason", 2, is_text=True),
    Column("seed", 5),
)

command = typer.Typer(
    no_args_is_help=True, help="Start, stop and show chaos experiments in live instances."
)


@command.command()
def start(
    plan: Annotated[
        str,
        typer.Argument(
            metavar="PLAN",
            help="The faults, such as 'billing.quote: latency=200ms@10%, error=unavailable@5%'.",
        ),
    ],
    *,
    reason: Why,
    for_: Annotated[
        float | None,
        typer.Option(
            "--for",
            parser=duration,
            metavar="TIME",
            show_default=False,
            help="End by itself after this time: 90s, 15m, at most 1h. Default: 10m.",
        ),
    ] = None,
    service: ForService = None,
    all_: AllServices = False,
    instance: Instance = None,
    window: Window = 1.0,
    as_json: AsJson = False,
) -> None:
    """Inject faults into the messages that live instances handle.

    A plan has parts with a semicolon between them: `OPERATION: FAULT@SHARE, FAULT@SHARE`. The
    operation is a name such as billing.quote, a type such as billing.quote.v1, or `*`. The faults
    are latency=200ms or latency=50ms-1s, error=CODE, drop-reply and duplicate. Without a share all
    messages are affected. `seed=NUMBER` repeats the same random numbers.

    An experiment replaces the running one, and ends by itself. No accepted job or event is lost.
    Failed attempts of jobs count as usual, so messages can become dead letters.

    With BUS_AUTH=on the command needs BUS_OPERATOR_KEY, and the right `control.chaos`.
    """
    target, seconds = target_of(service, instance, all_=all_), for_
    parsed = parse_plan(plan)
    if seconds is None:
        seconds = parsed.seconds or DEFAULT_CHAOS_SECONDS
    elif parsed.seconds is not None:
        raise typer.BadParameter("the plan has for=. Remove it, or --for.", param_hint="--for")
    settings = load_settings()
    order = StartChaos(
        plan=plan,
        reason=reason,
        until=end_after(seconds, MAX_CHAOS_SECONDS),
        operator=operator_name(settings),
    )
    obeyed = run_order(settings, order, target, window)
    report(obeyed, "chaos began", missing=NO_OPERATION, as_json=as_json)
    warn_unused(parsed, obeyed)


def warn_unused(plan: ChaosPlan, obeyed: Obeyed) -> None:
    """Print a line on standard error for each fault without an effect in any instance."""
    faults = plan.faults
    for number in sorted(obeyed.unused):
        if number < len(faults):
            rule, fault = faults[number]
            say(
                f"{rule.target}: {fault}: without an effect. Check the name with "
                f"`bus services SERVICE -v`; {FAULT_LIMITS}."
            )


def parse_plan(text: str) -> ChaosPlan:
    """Return the plan in an argument.

    Raises:
        typer.BadParameter: The text is not a plan. The error has the position.
    """
    try:
        return parse_chaos(text)
    except ChaosSyntaxError as error:
        raise typer.BadParameter(f"{error}.", param_hint="PLAN") from None


@command.command()
def stop(
    *,
    reason: Why = "the experiment is over",
    service: ForService = None,
    instance: Instance = None,
    window: Window = 1.0,
    as_json: AsJson = False,
) -> None:
    """End the running experiments, in all services or in those of --service.

    With BUS_AUTH=on the command needs BUS_OPERATOR_KEY, and the right `control.chaos`.
    """
    target = target_of(service, instance, all_=service is None)
    settings = load_settings()
    order = StopChaos(
        reason=reason,
        until=end_after(STOP_SECONDS, MAX_CHAOS_SECONDS),
        operator=operator_name(settings),
    )
    obeyed = run_order(settings, order, target, window)
    # Instances without an experiment are not worth a line if others had one.
    report(obeyed.without_missing(), "chaos ended", missing=NO_EXPERIMENT, as_json=as_json)


@command.command()
def status(
    service: Annotated[
        str | None,
        typer.Argument(
            metavar="SERVICE",
            show_default=False,
            help="Show the experiments in this service. Default: all services.",
        ),
    ] = None,
    *,
    window: Window = 1.0,
    as_json: AsJson = False,
    as_service: AsAsker = None,
) -> None:
    """Show the running experiments, and the faults that they have injected.

    The command needs the right `control.read`, and changes nothing.
    """
    if service is not None:
        check_service(service)
    settings = load_settings()
    with suppress_library_logs():
        records = asyncio.run(ask_chaos(settings, service, window, as_service))
    now = time.time()
    if as_json:
        print_json(chaos_to_json(records, now), compact=True)
        return
    console = table_console()
    console.print(chaos_table(records, console, now=now))


async def ask_chaos(
    settings: Settings, service: str | None, window: float, as_service: str | None
) -> list[InstanceChaos]:
    """Ask live instances for their experiments.

    Raises:
        NotFound: Other services answered, and the service did not.
        Unavailable: No instance of any service answered.
    """
    async with open_asker(settings, service=as_service) as asker:
        answers = await asker.ask(GetChaos(), Target(service), window=window)
        if not answers:
            raise await no_answer(asker, service, window, broker=name_broker(settings))
        records = [answer.record for answer in answers]
        return sorted(records, key=lambda record: (record.service, record.instance))


def chaos_table(
    records: Iterable[InstanceChaos], console: Console, *, now: float
) -> RenderableType:
    """Return a table with a row for each rule of each running experiment.

    Args:
        records: The answers of the instances.
        console: The console on which the table is printed.
        now: Seconds since the epoch.
    """
    records = list(records)
    rows = [row for record in records for row in _rows(record, now)]
    if not rows:
        return Text(f"no chaos experiment in {count_noun(len(records), 'instance')}")
    return fitting_table(COLUMNS, rows, console)


def _rows(record: InstanceChaos, now: float) -> Iterable[tuple[str | Text, ...]]:
    info = record.chaos
    if info is None:
        return
    injected = ", ".join(f"{kind} {count}" for kind, count in sorted(info.faults.items()))
    for rule in info.rules:
        yield (
            Text(one_line(rule), style="yellow"),
            Text(one_line(record.service), style="bold"),
            one_line(record.instance),
            one_line(injected) or "none",
            format_duration(max(0.0, info.until / 1000 - now)),
            one_line(info.ordered_by),
            one_line(info.reason),
            str(info.seed),
        )


def chaos_to_json(records: Iterable[InstanceChaos], at: float) -> dict[str, Any]:
    """Return the experiments. The keys are a part of the command's interface."""
    return {
        "at": round(at, 3),
        "instances": [
            {
                "service": record.service,
                "instance": record.instance,
                "chaos": None if record.chaos is None else record.chaos.model_dump(),
            }
            for record in records
        ],
    }
