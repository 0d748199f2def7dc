"""Summaries of statistics: one for each operation, of one instance or of many."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, get_args

from bus.contracts.contract import Kind
from bus.messaging import instruments
from bus.messaging.histograms import quantile
from bus.messaging.outcomes import OK
from bus.messaging.ports.meter import Instrument
from bus.messaging.service_info import CandidateInfo, ErrorInfo, HandlerState, PauseInfo, Series
from bus.runtime.discovery.measurements import Measurement

__all__ = ["Durations", "Operation", "OperationSummary", "Summary", "summarize"]


class Operation(NamedTuple):
    """A contract that a service handles or sends."""

    service: str
    name: str
    version: int
    """Version of the contract. 0 if the meter combined several contracts."""
    kind: str
    subscription: str = ""

    @property
    def type(self) -> str:
        """Type on the wire, for example `transcription.get.v1`."""
        return f"{self.name}.v{self.version}" if self.version else self.name


@dataclass(slots=True)
class Durations:
    """Durations in seconds: those of the last 1 to 2 minutes, or those of an interval."""

    buckets: Counter[int] = field(default_factory=Counter)
    max: float = 0

    @property
    def count(self) -> int:
        """Number of values."""
        return self.buckets.total()

    def add(self, series: Series) -> None:
        """Add the recent values of a histogram."""
        self.buckets.update(series.recent)
        self.max = max(self.max, series.recent_max)

    def quantile(self, q: float) -> float | None:
        """Return the value below which the share `q` of the durations is, or None without values.

        The relative error is at most the width of a bucket.
        """
        return quantile(self.buckets, q, self.max)


@dataclass(slots=True, kw_only=True)
class OperationSummary:
    """The statistics of one operation, summed over instances."""

    operation: Operation
    handlers: list[tuple[str, HandlerState]] = field(default_factory=list)
    """The state of the handler in each instance, with the name of the instance."""
    count: int = 0
    """Number of attempts to handle a message, or of messages that were sent."""
    errors: Counter[str] = field(default_factory=Counter)
    """Number of failed attempts by code."""
    recent: int = 0
    """As `count`, in the last 1 to 2 minutes or in the interval."""
    recent_errors: Counter[str] = field(default_factory=Counter)
    """As `errors`, in the last 1 to 2 minutes or in the interval."""
    latest: int = 0
    """As `count`, in the last 10 to 20 s or in the interval."""
    latest_errors: Counter[str] = field(default_factory=Counter)
    """As `errors`, in the last 10 to 20 s or in the interval."""
    retried: int = 0
    """Failed attempts after which a message entered a retry tier, or requests sent again."""
    dead_lettered: int = 0
    hedged: int = 0
    """Second copies of requests that were sent."""
    rejected: Counter[str] = field(default_factory=Counter)
    """Number of attempts that were not sent, by policy. The budget also refuses hedges."""
    fallbacks: int = 0
    """Failed requests for which the caller received its fallback."""
    recent_fallbacks: int = 0
    """As `fallbacks`, in the last 1 to 2 minutes or in the interval."""
    recently_shed: Counter[str] = field(default_factory=Counter)
    """Number of requests that were refused in the last 1 to 2 minutes, by reason."""
    recently_rejected: Counter[str] = field(default_factory=Counter)
    """Number of calls that were not sent in the last 1 to 2 minutes, by policy."""
    rate: float | None = None
    """Attempts per second. None if the values are not those of an interval."""
    error_rate: float | None = None
    durations: Durations = field(default_factory=Durations)
    """Durations of an attempt, or until the reply or confirm of a message that was sent."""
    all_durations: Counter[int] = field(default_factory=Counter)
    """Durations since the start of each instance as a histogram, or those of an interval."""
    busy: float | None = None
    """Average number of slots with a message. None if the values are not those of an interval."""
    delays: Durations = field(default_factory=Durations)
    """Times from the publish of a message to the start of its first attempt."""

    @property
    def failed(self) -> int:
        """Number of failed attempts."""
        return self.errors.total()

    @property
    def recently_failed(self) -> int:
        """Number of failed attempts in the last 1 to 2 minutes, or in the interval."""
        return self.recent_errors.total()

    @property
    def slots(self) -> int:
        """Number of messages that all instances can handle at the same time."""
        return sum(handler.slots for _, handler in self.handlers)

    @property
    def free(self) -> int:
        """Number of slots without a message."""
        return sum(handler.free for _, handler in self.handlers)

    @property
    def in_flight(self) -> int:
        """Number of messages that were received and are not settled."""
        return sum(handler.in_flight for _, handler in self.handlers)

    @property
    def oldest(self) -> tuple[str, float] | None:
        """Name of the instance with the oldest running message, and the seconds it has run."""
        running = [
            (instance, handler.oldest_seconds)
            for instance, handler in self.handlers
            if handler.oldest_seconds is not None
        ]
        return max(running, key=lambda each: each[1], default=None)

    @property
    def full_seconds(self) -> float | None:
        """Seconds for which all slots have had the same messages. None unless all have one."""
        known = [handler.full_seconds for _, handler in self.handlers]
        full = [seconds for seconds in known if seconds is not None]
        return min(full) if full and len(full) == len(known) else None

    @property
    def pauses(self) -> Counter[str]:
        """Number of paused consumers by reason."""
        return Counter(reason for _, handler in self.handlers for reason in handler.pauses)

    @property
    def operator_pause(self) -> PauseInfo | None:
        """The latest pause of an operator in any instance, or None."""
        pauses = [each.operator_pause for _, each in self.handlers if each.operator_pause]
        return max(pauses, key=lambda each: each.at, default=None)

    @property
    def candidates(self) -> list[tuple[str, CandidateInfo]]:
        """The poison candidates of this operation, with the names of their instances."""
        return [
            (instance, handler.candidate)
            for instance, handler in self.handlers
            if handler.candidate
        ]

    @property
    def last_error(self) -> tuple[str, ErrorInfo] | None:
        """The last error of all instances, with the name of its instance."""
        errors = [
            (instance, handler.last_error)
            for instance, handler in self.handlers
            if handler.last_error
        ]
        return max(errors, key=lambda each: each[1].at, default=None)


@dataclass(frozen=True, slots=True)
class Summary:
    """The operations that instances handle, and those that they send."""

    handled: Sequence[OperationSummary]
    sent: Sequence[OperationSummary]


def summarize(measurements: Iterable[Measurement]) -> Summary:
    """Return the summary of each operation, sorted by service, name and version.

    Args:
        measurements: The statistics of instances of one service or of many.
    """
    handled, sent = _Table(), _Table()
    for measured in measurements:
        stats = measured.stats
        for handler in stats.handlers:
            row = handled.of_handler(stats.service, handler)
            if row is None:
                continue
            row.handlers.append((stats.instance, handler))
            if measured.seconds is not None:
                row.rate, row.error_rate = row.rate or 0.0, row.error_rate or 0.0
        for series in stats.series:
            instrument = INSTRUMENTS.get(series.name)
            table = sent if instrument in SENDING else handled
            if instrument is not None and (found := table.of_series(stats.service, series)):
                _add(found, instrument, series, measured.seconds)
    return Summary(handled.sorted(), sent.sorted())


def _add(
    row: OperationSummary, instrument: Instrument, series: Series, seconds: float | None
) -> None:
    if instrument in COUNTERS:
        _add_attempts(row, series, seconds)
    elif instrument in DURATIONS:
        row.durations.add(series)
        row.all_durations.update(series.buckets)
        if seconds is not None:
            row.busy = (row.busy or 0.0) + series.value / seconds
    elif instrument is instruments.START_DELAY_SECONDS:
        row.delays.add(series)
    elif instrument in RETRIED:
        row.retried += round(series.value)
    elif instrument is instruments.DEAD_LETTERS:
        row.dead_lettered += round(series.value)
    elif instrument is instruments.SHED and (refused := round(series.recent_value)):
        row.recently_shed[series.labels.get("reason", "")] += refused
    else:
        _add_policy(row, instrument, series)


def _add_policy(row: OperationSummary, instrument: Instrument, series: Series) -> None:
    """Add a count of a policy of the caller."""
    amount, recent = round(series.value), round(series.recent_value)
    if instrument is instruments.CALLS_HEDGED:
        row.hedged += amount
    elif instrument is instruments.FALLBACKS:
        row.fallbacks += amount
        row.recent_fallbacks += recent
    elif instrument is instruments.CALLS_REJECTED:
        policy = series.labels.get("policy", "")
        for counts, count in ((row.rejected, amount), (row.recently_rejected, recent)):
            if count:
                counts[policy] += count


def _add_attempts(row: OperationSummary, series: Series, seconds: float | None) -> None:
    outcome = series.labels.get("outcome", OK)
    amount, recent, latest = map(round, (series.value, series.recent_value, series.latest_value))
    row.count += amount
    row.recent += recent
    row.latest += latest
    if seconds is not None:
        failed = 0 if outcome == OK else amount
        row.rate = (row.rate or 0) + amount / seconds
        row.error_rate = (row.error_rate or 0) + failed / seconds
    if outcome != OK:
        for errors, count in (
            (row.errors, amount),
            (row.recent_errors, recent),
            (row.latest_errors, latest),
        ):
            if count:
                errors[outcome] += count


class _Table(dict[Operation, OperationSummary]):
    """Summaries by operation."""

    def find(self, operation: Operation) -> OperationSummary | None:
        """Return the summary of an operation, or None if the table has no room for a new one."""
        row = self.get(operation)
        if row is None and len(self) < MAX_OPERATIONS:
            self[operation] = row = OperationSummary(operation=operation)
        return row

    def of_handler(self, service: str, handler: HandlerState) -> OperationSummary | None:
        """Return the summary of a handler's operation, or None without room for it."""
        name, subscription = handler.operation, handler.subscription or ""
        return self.find(Operation(service, name, handler.version, handler.kind, subscription))

    def of_series(self, service: str, series: Series) -> OperationSummary | None:
        """Return the summary of a series' operation, or None if the series has no operation."""
        labels = series.labels
        name, kind = labels.get("operation", ""), labels.get("kind", "")
        if INSTRUMENTS[series.name] in POLICIES:
            kind = "request"  # Only requests pass the policies, so the series have no kind.
        if not name or kind not in KINDS:
            return None
        version = labels.get("version", "")
        # A meter with too many labels counts the others with the version `other`.
        number = int(version) if VERSION.fullmatch(version) else 0
        return self.find(Operation(service, name, number, kind, labels.get("subscription", "")))

    def sorted(self) -> list[OperationSummary]:
        """Return the summaries, sorted by operation."""
        return [self[operation] for operation in sorted(self)]


MAX_OPERATIONS = 2000
"""Maximum number of operations in a summary. No real service has as many."""
VERSION = re.compile(r"[0-9]{1,4}")
KINDS: frozenset[str] = frozenset(get_args(Kind))
INSTRUMENTS = {each.name: each for each in instruments.INSTRUMENTS}
POLICIES = {
    instruments.CALLS_RETRIED,
    instruments.CALLS_HEDGED,
    instruments.CALLS_REJECTED,
    instruments.FALLBACKS,
}
SENDING = {instruments.SENT, instruments.SEND_SECONDS, *POLICIES}
RETRIED = {instruments.RETRIES, instruments.CALLS_RETRIED}
COUNTERS = {instruments.SENT, instruments.HANDLED}
DURATIONS = {instruments.SEND_SECONDS, instruments.HANDLER_SECONDS}
