"""Summary of each service: its live instances, its operations, and the problems to show first."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from bus.messaging.labels import short_id
from bus.runtime.discovery.live_view import LifeState, LiveInstance
from bus.runtime.discovery.measurements import Measurement, Measurements
from bus.runtime.discovery.operation_summary import (
    Durations,
    OperationSummary,
    Summary,
    summarize,
)

__all__ = ["Problem", "ServiceSummary", "summarize_services"]

POISON_ISOLATION = "poison-isolation"
"""Reason of a pause: the instance handles a poison candidate alone."""
WORST_FIRST: tuple[LifeState, ...] = ("not-ready", "starting", "draining", "ready")

FAILING_SHARE = 0.05
"""Share of failed attempts from which an operation is a problem."""
FAILURES = (
    *("unknown", "deadline_exceeded", "unimplemented", "internal", "unavailable", "data_loss"),
    "process_lost",
)
"""Codes of failures of a service. The other codes are replies to wrong or early requests.

Source: OpenTelemetry, Semantic Conventions for gRPC, errors of servers.
"""


@dataclass(frozen=True, slots=True)
class Problem:
    """A state of a service that an operator may have to act on."""

    code: str
    """`gone`, `not-ready`, `starting`, `draining`, `versions`, `paused`, `full` or `failing`."""
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceSummary:
    """The live instances of one service, and their statistics."""

    name: str
    instances: Sequence[LiveInstance]
    """All instances of the view, also those that are gone for a while."""
    totals: Summary
    """Statistics since the start of each instance. Durations are those of 5 to 10 minutes."""
    interval: Summary
    """Statistics between the last two answers. It is empty until there are two."""

    @property
    def live(self) -> list[LiveInstance]:
        """Live instances."""
        return [each for each in self.instances if each.is_live]

    @property
    def states(self) -> Counter[LifeState]:
        """Number of live instances in each state."""
        return Counter(each.state for each in self.live)

    @property
    def state(self) -> LifeState:
        """Worst state of a live instance, or `gone` if no instance is live."""
        states = self.states
        return next((state for state in WORST_FIRST if states[state]), "gone")

    @property
    def versions(self) -> list[str]:
        """Versions of the service that live instances run. An instance without one has `-`."""
        return sorted({each.record.version or "-" for each in self.live})

    @property
    def is_mixed(self) -> bool:
        """True if live instances run different versions of the service."""
        return len(self.versions) > 1

    @property
    def is_failing(self) -> bool:
        """True if an operation fails often."""
        return any(problem.code == "failing" for problem in self.problems)

    @property
    def started(self) -> int | None:
        """Start of the oldest live instance, in milliseconds since the epoch."""
        return min((each.record.started for each in self.live), default=None)

    @property
    def count(self) -> int:
        """Number of attempts to handle a message."""
        return sum(each.count for each in self.totals.handled)

    @property
    def failed(self) -> int:
        """Number of failed attempts."""
        return sum(each.failed for each in self.totals.handled)

    @property
    def rate(self) -> float | None:
        """Attempts per second in the interval, or None without an interval."""
        return _total(each.rate for each in self.interval.handled)

    @property
    def error_rate(self) -> float | None:
        """Failed attempts per second in the interval, or None without an interval."""
        return _total(each.error_rate for each in self.interval.handled)

    @property
    def durations(self) -> Durations:
        """Durations of requests in the last 5 to 10 minutes.

        A job may last long, so durations of jobs and events are used only without requests.
        """
        durations, rows = Durations(), self.totals.handled
        requests = [each for each in rows if each.operation.kind == "request"]
        for each in requests or rows:
            durations.buckets.update(each.durations.buckets)
            durations.max = max(durations.max, each.durations.max)
        return durations

    @property
    def slots(self) -> int:
        """Number of messages that all handlers can handle at the same time."""
        return sum(each.slots for each in self.totals.handled)

    @property
    def used(self) -> int:
        """Number of slots with a message."""
        return self.slots - sum(each.free for each in self.totals.handled)

    @property
    def problems(self) -> list[Problem]:
        """Problems of the service, the most important one first."""
        return list(_problems(self))


def summarize_services(
    instances: Iterable[LiveInstance], measurements: Measurements | None = None
) -> list[ServiceSummary]:
    """Return the summary of each service, those with problems first, then by name.

    Args:
        instances: Instances of a view, sorted by name.
        measurements: Their measurements. None: the statistics in the records of the instances.
    """
    if measurements is None:
        measurements = Measurements()
        instances = list(instances)
        measurements.record(instances)
    totals = _by_service(measurements.totals)
    intervals = _by_service(measurements.intervals)
    summaries = [
        ServiceSummary(
            name=name,
            instances=list(group),
            totals=summarize(totals.get(name, [])),
            interval=summarize(intervals.get(name, [])),
        )
        for name, group in groupby(instances, key=lambda each: each.record.service)
    ]
    return sorted(summaries, key=lambda each: (not each.problems, each.name))


def _by_service(measurements: Iterable[Measurement]) -> dict[str, list[Measurement]]:
    found: dict[str, list[Measurement]] = {}
    for each in measurements:
        found.setdefault(each.stats.service, []).append(each)
    return found


def _total(rates: Iterable[float | None]) -> float | None:
    known = [rate for rate in rates if rate is not None]
    return sum(known) if known else None


def _problems(service: ServiceSummary) -> Iterator[Problem]:
    live = len(service.live)
    if not live:
        yield Problem("gone", "no live instance")
        return
    lost = sum(not each.is_live and not each.has_stopped for each in service.instances)
    if lost:
        yield Problem("gone", f"{lost} of {live + lost} instances no longer answer")
    states = service.states
    for state in WORST_FIRST[:-1]:
        if states[state]:
            verb = "is" if states[state] == 1 else "are"
            yield Problem(state, f"{states[state]} of {live} instances {verb} {state}")
    if service.is_mixed:
        yield Problem(
            "versions", f"instances run different versions: {', '.join(service.versions)}"
        )
    candidates = [
        f"{row.operation.type} {short_id(candidate.id)}"
        for row in service.totals.handled
        for _, candidate in row.candidates
    ]
    for row in service.totals.handled:
        yield from _isolations_of(row)
        yield from _problems_of(row, candidates)
    for row in service.interval.handled if service.rate is not None else service.totals.handled:
        failed = sum(row.errors[code] for code in FAILURES)
        if failed and failed >= FAILING_SHARE * row.count:
            share = failed / row.count
            yield Problem("failing", f"{row.operation.type}: {share:.0%} of the attempts fail")


def _isolations_of(row: OperationSummary) -> Iterator[Problem]:
    """Yield each message that is processed alone, with the command that shows its path."""
    for instance, candidate in row.candidates:
        name = short_id(candidate.id)
        action = "is processed alone" if candidate.running else "waits to be processed alone"
        yield Problem(
            "paused",
            f"{row.operation.type} {name} {action} in {instance} after "
            f"{candidate.lost_deliveries} lost deliveries, because it may have ended a process; "
            f"run `bus trace {name}`",
        )


def _problems_of(row: OperationSummary, candidates: Sequence[str]) -> Iterator[Problem]:
    for reason, count in row.pauses.items():
        # An instance of an earlier version does not name its candidate.
        of = f" of {', '.join(candidates)}" if candidates and reason == POISON_ISOLATION else ""
        yield Problem(
            "paused",
            f"{row.operation.type}: {count} of {len(row.handlers)} consumers paused by "
            f"{reason}{of}",
        )
    if row.slots and not row.free:
        yield Problem("full", f"{row.operation.type}: all {row.slots} slots are in use")
