"""Tables of one service: its instances, its operations, its calls and its contracts."""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence

from rich.console import Console, Group, RenderableType
from rich.text import Text

from bus.cli.fitting_table import Column, fitting_table
from bus.cli.quantities import (
    format_ago,
    format_duration,
    format_number,
    format_rate,
    format_share,
)
from bus.cli.queue_table import UNKNOWN, age
from bus.cli.services.job_lines import job_lines
from bus.cli.services.list_table import STATE_STYLES, problem_lines
from bus.messaging.escaped_text import one_line
from bus.messaging.plurals import count_noun
from bus.messaging.service_info import InstanceInfo, InstanceState, InstanceStats
from bus.runtime.discovery.live_view import LiveInstance
from bus.runtime.discovery.measurements import Measurement
from bus.runtime.discovery.operation_summary import Operation, OperationSummary, Summary, summarize
from bus.runtime.discovery.service_summary import ServiceSummary

__all__ = ["service_detail"]

INSTANCES = (
    Column("instance", is_text=True),
    Column("state", is_text=True),
    Column("version", 3, is_text=True),
    Column("up", 5),
    Column("since start", 8),
    Column("handled", 4),
    Column("errors", 1),
    Column("p99"),
    Column("in flight", 6),
    Column("slots", 2),
    Column("bus", 7, is_text=True),
)
OPERATIONS = (
    Column("operation", is_text=True),
    Column("since start", 11),
    Column("handled", 6),
    Column("rate/s", 5),
    Column("errors"),
    Column("p50", 2),
    Column("p90", 8),
    Column("p99"),
    Column("max", 7),
    Column("delay p99", 4),
    Column("oldest", 2),
    Column("in flight", 9),
    Column("slots", 3),
)
SENT = (
    Column("sends", is_text=True),
    Column("kind", 3, is_text=True),
    Column("since start", 6),
    Column("sent", 2),
    Column("rate/s", 4),
    Column("errors"),
    Column("p50", 1),
    Column("p99"),
    Column("max", 5),
)
CONTRACTS = (
    Column("contract", is_text=True),
    Column("kind", 2, is_text=True),
    Column("permission", is_text=True),
    Column("instances", 1),
    Column("digest", is_text=True),
    Column("reply digest", 3, is_text=True),
)
MAX_JOB_TYPES = 50
"""Maximum number of lines about durable jobs."""
DIGEST_LENGTH = 12
"""Number of characters of a digest that a table shows. The JSON has the whole digest."""


def service_detail(
    service: ServiceSummary,
    console: Console,
    infos: Sequence[InstanceInfo] = (),
    *,
    verbose: bool = False,
) -> RenderableType:
    """Return the tables of one service.

    Args:
        service: The service.
        console: The console on which the tables are printed.
        infos: Answers of its instances to INFO.
        verbose: True adds a row for each operation in each instance, and the contracts.
    """
    parts: list[RenderableType] = [*problem_lines([service])]
    parts.append(fitting_table(INSTANCES, _instance_rows(service, infos), console))
    if service.totals.handled:
        parts += ["", fitting_table(OPERATIONS, _operation_rows(service, verbose), console)]
    parts += _error_lines(service.totals.handled, "")
    parts += job_lines((each.record for each in service.live), maximum=MAX_JOB_TYPES)
    parts += _incomplete_lines([*(each.record for each in service.live), *infos])
    if service.totals.sent:
        parts += ["", fitting_table(SENT, _sent_rows(service), console)]
        parts += _error_lines(service.totals.sent, "sends ")
        parts += _policy_lines(service.totals.sent)
    if verbose and infos:
        parts += ["", fitting_table(CONTRACTS, _contract_rows(infos), console)]
    return Group(*parts)


def _instance_rows(
    service: ServiceSummary, infos: Sequence[InstanceInfo]
) -> Iterator[tuple[str | Text, ...]]:
    bus_versions = {info.instance: info.bus_version for info in infos}
    for each in service.instances:
        record = each.record
        rows = _summary_of(each).handled
        failed = sum(row.recently_failed for row in rows)
        recent = sum(row.recent for row in rows)
        used = sum(row.slots - row.free for row in rows)
        yield (
            Text(one_line(record.instance), style="" if each.is_live else "dim"),
            _state(each),
            one_line(record.version or UNKNOWN),
            format_ago(record.started),
            format_number(sum(row.count for row in rows)),
            format_number(recent),
            _share(failed, recent),
            format_duration(_slowest(rows)),
            format_number(sum(row.in_flight for row in rows)),
            f"{used}/{sum(row.slots for row in rows)}",
            one_line(bus_versions.get(record.instance, UNKNOWN)),
        )


def _state(instance: LiveInstance) -> Text:
    text: str = instance.state
    if instance.gone_since is not None:
        text = f"gone for {age(max(0.0, time.monotonic() - instance.gone_since))}"
    elif instance.missed:
        text = f"{text}, missed {instance.missed}"
    elif instance.record.flooded:
        text = f"{text}, flooded"
    return Text(text, style=STATE_STYLES[instance.state])


def _summary_of(instance: LiveInstance) -> Summary:
    stats = instance.record
    return summarize([Measurement(stats=stats)] if isinstance(stats, InstanceStats) else [])


def _slowest(rows: Sequence[OperationSummary]) -> float | None:
    """Return the highest 99th percentile of the operations, or None without durations."""
    values = (row.durations.quantile(0.99) for row in rows)
    return max((value for value in values if value is not None), default=None)


def _share(failed: int, count: int) -> Text:
    return Text(format_share(failed, count), style="red" if failed else "")


def _operation_rows(
    service: ServiceSummary,
    verbose: bool,
) -> Iterator[tuple[str | Text, ...]]:
    intervals = {row.operation: row for row in service.interval.handled}
    for row in service.totals.handled:
        yield _operation_row(name_of(row.operation), row, intervals.get(row.operation))
        if not verbose:
            continue
        for each in service.live:
            for own in _summary_of(each).handled:
                if own.operation == row.operation:
                    yield _operation_row(f"  {each.record.instance}", own, None)


def name_of(operation: Operation) -> str:
    """Return the type of an operation, with the name of its subscription if it has one."""
    suffix = f" ({operation.subscription})" if operation.subscription else ""
    return f"{operation.type}{suffix}"


def _operation_row(
    name: str, row: OperationSummary, interval: OperationSummary | None
) -> tuple[str | Text, ...]:
    durations = row.durations
    return (
        one_line(name),
        format_number(row.count),
        format_number(row.recent),
        format_rate(interval.rate if interval else None),
        _share(row.recently_failed, row.recent),
        *(format_duration(durations.quantile(q)) for q in (0.5, 0.9, 0.99)),
        format_duration(durations.max if durations.count else None),
        format_duration(row.delays.quantile(0.99)),
        format_duration(row.oldest[1] if row.oldest else None),
        format_number(row.in_flight),
        f"{row.slots - row.free}/{row.slots}",
    )


def _error_lines(rows: Iterable[OperationSummary], verb: str) -> Iterator[Text]:
    """Yield a line for each operation that failed: numbers by code, and the last error.

    Args:
        rows: The operations.
        verb: Text before the type of an operation: empty, or `sends ` for messages that are sent.
    """
    for row in rows:
        facts = [f"{format_number(count)} {code}" for code, count in row.errors.most_common()]
        if row.dead_lettered:
            facts.append(count_noun(row.dead_lettered, "dead letter"))
        counts = f" since start: {', '.join(facts)}" if facts else ""
        last = ""
        if row.last_error is not None:
            instance, error = row.last_error
            place = f" at {error.place}" if error.place else ""
            last = f" last {error.code} {format_ago(error.at)} ago{place} in {instance}"
        if counts or last:
            name, comma = name_of(row.operation), ";" if counts and last else ""
            yield Text(one_line(f"{verb}{name}{counts}{comma}{last}"), style="red")


def _policy_lines(rows: Iterable[OperationSummary]) -> Iterator[Text]:
    """Yield a line for each operation that is called, with what the policies of its caller did."""
    for row in rows:
        refused = row.rejected.most_common()
        counts = [
            (row.retried, "sent again"),
            (row.hedged, "hedged"),
            *((count, f"not sent by the {policy}") for policy, count in refused),
            (row.fallbacks, "answered by a fallback"),
        ]
        facts = [f"{format_number(count)} {what}" for count, what in counts if count]
        if facts:
            text = f"sends {name_of(row.operation)} since start: {', '.join(facts)}"
            yield Text(one_line(text), style="yellow")


def _incomplete_lines(records: Iterable[InstanceState]) -> Iterator[Text]:
    """Yield a line for each answer that was too large for one message."""
    for record in records:
        if record.left_out:
            values = count_noun(record.left_out, "value")
            text = f"{record.instance}: {values} left out, because the answer is too large"
            yield Text(one_line(text), style="yellow")


def _sent_rows(service: ServiceSummary) -> Iterator[tuple[str | Text, ...]]:
    intervals = {row.operation: row for row in service.interval.sent}
    for row in service.totals.sent:
        interval, durations = intervals.get(row.operation), row.durations
        yield (
            one_line(row.operation.type),
            row.operation.kind,
            format_number(row.count),
            format_number(row.recent),
            format_rate(interval.rate if interval else None),
            _share(row.recently_failed, row.recent),
            format_duration(durations.quantile(0.5)),
            format_duration(durations.quantile(0.99)),
            format_duration(durations.max if durations.count else None),
        )


def _contract_rows(infos: Sequence[InstanceInfo]) -> Iterator[tuple[str | Text, ...]]:
    """Yield a row for each contract and schema. Two rows of one type have different digests."""
    found: dict[tuple[str, ...], int] = {}
    for info in infos:
        for each in info.contracts:
            name = f"{each.type} ({each.subscription})" if each.subscription else each.type
            digests = (each.digest[:DIGEST_LENGTH], (each.reply_digest or UNKNOWN)[:DIGEST_LENGTH])
            row = (name, each.kind, each.permission, *digests)
            found[row] = found.get(row, 0) + 1
    names = _count_names(found)
    for (name, kind, permission, digest, reply_digest), instances in sorted(found.items()):
        style = "yellow" if names[name] > 1 else ""
        yield (
            Text(one_line(name), style=style),
            kind,
            one_line(permission),
            f"{instances}/{len(infos)}",
            one_line(digest),
            one_line(reply_digest),
        )


def _count_names(rows: Mapping[tuple[str, ...], int]) -> dict[str, int]:
    names: dict[str, int] = {}
    for name, *_ in rows:
        names[name] = names.get(name, 0) + 1
    return names
