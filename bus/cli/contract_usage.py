"""`bus contracts usage`: the senders, servers and subscribers of each version of a contract."""

import asyncio
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from datetime import datetime
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from bus.cli.loading import known_contracts
from bus.cli.output import MEASURE_COLUMNS, print_json, suppress_library_logs, table_console
from bus.cli.queue_table import age
from bus.cli.services.questions import no_answer
from bus.contracts.contract import Contract
from bus.errors import ConfigurationError, NotFound
from bus.messaging.control import GetInfo, GetStats
from bus.messaging.plurals import count_noun
from bus.messaging.suggestions import did_you_mean
from bus.operations.contract_usage import (
    Caller,
    ContractUsage,
    Server,
    UsageReport,
    examine_usage,
)
from bus.runtime.discovery.open_asker import open_asker
from bus.settings import Settings, load_settings

__all__ = ["ask_usage", "print_usage", "run_usage", "select", "usage_to_json"]

INDENT = (0, 0, 0, 2)
NO_SERVICE = "no service"


def run_usage(
    type_: str | None,
    contracts: Sequence[str],
    *,
    window: float,
    as_json: bool,
    as_service: str | None = None,
) -> None:
    """Ask the live instances, and print the usage of the contracts.

    Args:
        type_: Type or name of a contract. None shows all contracts.
        contracts: Names of modules with contracts.
        window: Seconds to wait for the answers.
        as_json: True to print JSON.
        as_service: The service that asks. None: the operator, or the owner of `BUS_KEY`.
    """
    catalog = load_catalog(contracts)
    with suppress_library_logs():
        report = asyncio.run(ask_usage(load_settings(), catalog, window, as_service))
    report = select(report, type_)
    if as_json:
        print_json(usage_to_json(report), compact=True)
    else:
        print_usage(report, table_console(), has_catalog=bool(catalog), now=time.time())


def load_catalog(contracts: Sequence[str]) -> tuple[Contract, ...]:
    """Return the contracts in the modules. Without modules, return those of the folder, if any."""
    if contracts:
        return known_contracts(contracts).contracts
    try:
        return known_contracts(()).contracts
    except ConfigurationError:
        return ()


async def ask_usage(
    settings: Settings,
    catalog: Iterable[Contract],
    window: float,
    as_service: str | None = None,
) -> UsageReport:
    """Ask all live instances, and return the usage of the contracts.

    Raises:
        Unavailable: No instance answered, or the broker is not reachable.
        PermissionDenied: The operator or service has no right to read.
    """
    async with open_asker(settings, service=as_service) as asker:
        info, stats = await asyncio.gather(
            asker.ask(GetInfo(), window=window), asker.ask(GetStats(), window=window)
        )
        if not stats:
            raise await no_answer(asker, None, window)
    return examine_usage(
        [answer.record for answer in info], [answer.record for answer in stats], catalog
    )


def select(report: UsageReport, type_: str | None) -> UsageReport:
    """Return the part of a report about one type, or about all versions of one name.

    Raises:
        NotFound: No contract has this type or name. The error names similar types.
    """
    if type_ is None:
        return report
    found = tuple(each for each in report.contracts if type_ in {each.type, each.name})
    if not found:
        names = [name for each in report.contracts for name in (each.type, each.name)]
        hint = did_you_mean(type_, names) or "."
        raise NotFound(
            f"no live instance and no loaded contract knows {type_!r}{hint} "
            "Run `bus contracts usage` for all types."
        )
    return replace(report, contracts=found)


def usage_to_json(report: UsageReport) -> dict[str, Any]:
    """Return a report as JSON. The keys are part of the command line's interface."""
    return {
        "since": report.since,
        "instances": [asdict(each) for each in report.watched],
        "left_out": report.left_out,
        "combined": report.combined,
        "contracts": [
            {
                "type": each.type,
                **asdict(each),
                "old": each.is_old,
                "used": bool(each.callers),
            }
            for each in report.contracts
        ],
    }


def print_usage(report: UsageReport, console: Console, *, has_catalog: bool, now: float) -> None:
    """Print the table, the old versions, the unused contracts, and what was counted.

    Args:
        report: The usage.
        console: The console.
        has_catalog: True if contracts were loaded, so that unused ones can be listed.
        now: Seconds since the epoch.
    """
    used = [each for each in report.contracts if each.callers or each.servers]
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for name in ("type", "kind", "served by", "sent by"):
        table.add_column(name, no_wrap=True)
    for each in used:
        table.add_row(
            Text(each.type, style="yellow" if each.is_old else ""),
            each.kind,
            Text("\n".join(server_lines(each.servers, now)) or "-"),
            Text("\n".join(caller_lines(each.callers, now)) or "-"),
        )
    # No line of a cell is broken, so the table needs its full width.
    options = console.options.update(max_width=MEASURE_COLUMNS)
    if console.measure(table, options=options).maximum <= console.width:
        console.print(table)
    else:
        print_narrow(used, console, now)
    for line in summary_lines(report, has_catalog=has_catalog):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def print_narrow(used: Iterable[ContractUsage], console: Console, now: float) -> None:
    """Print each type on its own line, and its servers and callers below that line."""
    for each in used:
        console.print(Text(f"{each.type}, {each.kind}"), soft_wrap=True)
        for line in server_lines(each.servers, now) or [NO_SERVICE]:
            console.print(Padding(Text(f"served by {line}"), INDENT))
        for line in caller_lines(each.callers, now) or [NO_SERVICE]:
            console.print(Padding(Text(f"sent by {line}"), INDENT))


def server_lines(servers: Iterable[Server], now: float) -> list[str]:
    """Return a line for each service that serves a version, or subscribes to it."""
    return [
        f"{server.service}{f' ({server.subscription})' if server.subscription else ''}: "
        f"{count_noun(server.instances, 'instance')}, handled {server.handled:,}"
        f"{ago(server.last, now)}"
        for server in servers
    ]


def caller_lines(callers: Iterable[Caller], now: float) -> list[str]:
    """Return a line for each service that sends a version."""
    return [
        f"{caller.service}: {describe_counts(caller)}{ago(caller.last, now)}" for caller in callers
    ]


def describe_counts(caller: Caller) -> str:
    """Return the counts of a caller. A count of 0 is left out."""
    counts = (("sent", caller.sent), ("handled", caller.handled))
    return ", ".join(f"{name} {count:,}" for name, count in counts if count)


def ago(milliseconds: int | None, now: float) -> str:
    """Return `, 5s ago` for a time in milliseconds, or an empty text for None."""
    if milliseconds is None:
        return ""
    return f", {age(max(0.0, now - milliseconds / 1000))} ago"


def summary_lines(report: UsageReport, *, has_catalog: bool) -> list[str]:
    """Return the lines below the table."""
    lines = [""]
    for each in report.old:
        by = ", ".join(caller.service for caller in each.callers) or NO_SERVICE
        lines.append(f"old version: {each.type} (latest v{each.latest}) is sent by {by}")
    if report.unused:
        unused = ", ".join(describe_unused(each) for each in report.unused)
        lines.append(f"without a sender: {unused}")
    if not has_catalog:
        lines.append("no contracts are loaded (--contracts), so only those of services are shown")
    if report.left_out or report.combined:
        lines.append(
            f"not complete: {report.left_out} entries of answers are left out, and "
            f"{report.combined:,} messages have no contract, because an instance has too many"
        )
    lines.append(describe_watched(report))
    return lines


def describe_unused(usage: ContractUsage) -> str:
    """Return the type of a contract without senders, with the services that serve it."""
    services = ", ".join(dict.fromkeys(server.service for server in usage.servers))
    return f"{usage.type} (served by {services})" if services else usage.type


def describe_watched(report: UsageReport) -> str:
    """Return what was counted: the instances, and the times from which they have counted."""
    first, last = report.watched[0], report.watched[-1]
    services = len({each.service for each in report.watched})
    since = f"since {local_time(first.since)}"
    if first is not last:
        since = f"the first ({first.service}) {since}, the last ({last.service}) since "
        since += local_time(last.since)
    return (
        f"counted by {count_noun(len(report.watched), 'instance')} of "
        f"{count_noun(services, 'service')}, {since}. Instances that have stopped are not counted."
    )


def local_time(milliseconds: int) -> str:
    """Return a time in this machine's time zone."""
    return f"{datetime.fromtimestamp(milliseconds / 1000).astimezone():%Y-%m-%d %H:%M:%S}"
