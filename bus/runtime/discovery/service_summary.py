"""Summary of each service: its live instances, its operations, and the problems to show first."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from bus.messaging.labels import short_id
from bus.messaging.service_info import InstanceStats
from bus.runtime.discovery.live_view import LifeState, LiveInstance
from bus.runtime.discovery.measurements import Measurement, Measurements
from bus.runtime.discovery.operation_problems import Problem, is_slower, problems_of
from bus.runtime.discovery.operation_summary import (
    Durations,
    Summary,
    summarize,
)
from bus.runtime.discovery.policy_problems import call_problems, instance_problems

__all__ = ["ServiceSummary", "summarize_services"]

WORST_FIRST: tuple[LifeState, ...] = ("not-ready", "starting", "draining", "ready")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceSummary:
    """The live instances of one service, and their statistics."""

    name: str
    instances: Sequence[LiveInstance]
    """All instances of the view, also those that are gone for a while."""
    totals: Summary
    """Statistics since the start of each instance. Durations are those of 1 to 2 minutes."""
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
    def recent(self) -> int:
        """Number of attempts in the last 1 to 2 minutes."""
        return sum(each.recent for each in self.totals.handled)

    @property
    def recently_failed(self) -> int:
        """Number of failed attempts in the last 1 to 2 minutes."""
        return sum(each.recently_failed for each in self.totals.handled)

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
        """Durations of requests in the last 1 to 2 minutes.

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
    records = [each.record for each in service.live]
    stats = [each for each in records if isinstance(each, InstanceStats)]
    yield from instance_problems(stats)
    # A half-open breaker admits probes, which can fail without a line of their own.
    rejected = {
        breaker.name
        for each in stats
        for breaker in each.breakers
        if breaker.state in {"open", "isolated"}
    }
    for row in service.totals.sent:
        yield from call_problems(row, rejected)
    yield from sorted(_operation_problems(service), key=lambda each: ORDER.index(each.code))


ORDER = ("paused", "shedding", "limited", "failing", "long", "full", "slow")


def _operation_problems(service: ServiceSummary) -> Iterator[Problem]:
    intervals = {row.operation: row for row in service.interval.handled}
    # A caller is as slow as the services that it calls, so its line names them.
    causes = [row.operation.type for row in service.totals.sent if is_slower(row)]
    candidates = [
        f"{row.operation.type} {short_id(candidate.id)}"
        for row in service.totals.handled
        for _, candidate in row.candidates
    ]
    for row in service.totals.handled:
        for problem in problems_of(row, intervals.get(row.operation), candidates=candidates):
            if problem.code == "slow" and causes:
                text = f"{problem.text}; its service waits longer for {', '.join(causes)}"
                yield Problem(problem.code, text)
            else:
                yield problem
