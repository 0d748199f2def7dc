"""Problems of one operation: failures, and messages that run or wait too long.

A problem is shown to an operator, so each rule needs evidence of more than one moment.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from bus.messaging.histograms import quantile, subtract
from bus.messaging.labels import short_id
from bus.messaging.plurals import count_noun
from bus.messaging.service_info import PauseInfo
from bus.messaging.timers import utc_time
from bus.runtime.discovery.operation_summary import OperationSummary
from bus.runtime.operator_pause import OPERATOR_PAUSE, STUCK_HANDLER

__all__ = ["FAILING_SHARE", "MIN_LATEST", "Problem", "is_slower", "problems_of"]

POISON_ISOLATION: Final = "poison-isolation"
"""Reason of a pause: the instance handles a poison candidate alone."""
DEPENDENCY: Final = "dependency:"
"""Begin of the reason of a pause: a dependency is down, and its name follows."""
RATE_LIMIT: Final = "rate"
"""Reason of a refused request: its caller exceeds the rate limit."""
FAILING_SHARE: Final = 0.05
"""Share of failed attempts from which an operation is a problem."""
MIN_LATEST: Final = 3
"""Minimum number of failures in the last 10 to 20 s. A single one is not a trend."""
FAILURES: Final = (
    *("unknown", "deadline_exceeded", "unimplemented", "internal", "unavailable", "data_loss"),
    "process_lost",
)
"""Codes of failures of a service. The other codes are replies to wrong or early requests.

Source: OpenTelemetry, Semantic Conventions for gRPC, errors of servers.
"""
LONG_FACTOR, MIN_LONG_SECONDS, MIN_USUAL = 5, 10.0, 20
"""A message runs long if it takes 5 times the 99th percentile of at least 20 others, and 10 s."""
FULL_SECONDS: Final = 2.0
"""Seconds without a free slot. A shorter time is normal under load."""
WAIT_SECONDS: Final = 0.1
"""Minimum start delay of a saturated handler. Clocks of machines can differ by less."""
WHOLE_SECONDS: Final = 10
"""Seconds from which a duration is shown without decimals."""
BUSY_SHARE: Final = 0.9
SLOWER_FACTOR, MIN_SLOW_SECONDS, MIN_EARLIER, MIN_RECENT = 3, 0.05, 100, 20
"""Attempts are slower if their median has become 3 times as long, and is at least 50 ms.

A median from buckets differs from the true one by at most 28 %, so a factor of 3 is a change.
"""


@dataclass(frozen=True, slots=True)
class Problem:
    """A state of a service that an operator may have to act on."""

    code: str
    """`gone`, `not-ready`, `starting`, `draining`, `versions`, `chaos`, `breaker`, `calls-failing`,
    `fallbacks`, `rejecting`, or a code of an operation.

    The codes of an operation are `paused`, `shedding`, `limited`, `failing`, `long`, `full` and
    `slow`.
    """
    text: str


def problems_of(
    row: OperationSummary,
    interval: OperationSummary | None = None,
    *,
    candidates: Sequence[str] = (),
) -> list[Problem]:
    """Return the problems of an operation, the most important one first.

    Args:
        row: The operation since the start of its instances.
        interval: The operation in the interval between the last two answers, if there is one.
        candidates: Types and short ids of the poison candidates of the whole service.
    """
    return [
        Problem(code, f"{row.operation.type}: {text}")
        for code, text in (
            *_isolated(row),
            *_paused(row, candidates),
            *_shedding(row),
            *_failing(row),
            *_long(row),
            *_full(row, interval),
            *_slow(row),
        )
    ]


def is_slower(row: OperationSummary) -> bool:
    """Return True if the recent attempts take several times as long as those before them."""
    return _medians(row) is not None


def _isolated(row: OperationSummary) -> Iterator[tuple[str, str]]:
    """Yield each message that is processed alone, with the command that shows its path."""
    for instance, candidate in row.candidates:
        name = short_id(candidate.id)
        action = "is processed alone" if candidate.running else "waits to be processed alone"
        yield (
            "paused",
            (
                f"message {name} {action} in {instance} after {candidate.lost_deliveries} lost "
                f"deliveries, because it may have ended a process; run `bus trace {name}`"
            ),
        )


def _paused(row: OperationSummary, candidates: Sequence[str]) -> Iterator[tuple[str, str]]:
    for reason, count in row.pauses.items():
        if reason == OPERATOR_PAUSE and row.operator_pause is not None:
            text = _by_operator(row.operator_pause)
            yield "paused", f"{count} of {len(row.handlers)} consumers paused by {text}"
            continue
        if reason == STUCK_HANDLER:
            text = (
                f"{count} of {len(row.handlers)} consumers have a handler that does not end after "
                "the cancellation of its job; see the log, and restart the instance"
            )
            yield "stuck", text
            continue
        # An instance of an earlier version does not name its candidate.
        of = f" of {', '.join(candidates)}" if candidates and reason == POISON_ISOLATION else ""
        yield "paused", f"{count} of {len(row.handlers)} consumers paused by {reason}{of}"


def _by_operator(pause: PauseInfo) -> str:
    until = "until resumed" if pause.until is None else f"until {utc_time(pause.until / 1000)}"
    stored = ", stored" if pause.stored else ""
    return f"the operator {pause.by} ({until}{stored}): {pause.reason}"


def _shedding(row: OperationSummary) -> Iterator[tuple[str, str]]:
    """Yield a problem if requests were refused before their handler, by the kind of the reason."""
    refused = row.recently_shed
    limited = refused[RATE_LIMIT]
    if shed := refused.total() - limited:
        text = f"{count_noun(shed, 'request')} shed in the last 1 to 2 minutes; add instances"
        yield "shedding", text
    if limited:
        text = f"{count_noun(limited, 'request')} above the rate limit in the last 1 to 2 minutes"
        yield "limited", text


def _failing(row: OperationSummary) -> Iterator[tuple[str, str]]:
    """Yield a problem if attempts failed lately, after any number of good ones before.

    While all consumers are paused by a dependency, the attempts are its probes. The dependency has
    a line of its own.
    """
    if row.handlers and _paused_by_dependency(row) == len(row.handlers):
        return
    latest = sum(row.latest_errors[code] for code in FAILURES)
    recent = sum(row.recent_errors[code] for code in FAILURES)
    if latest >= MIN_LATEST and latest >= FAILING_SHARE * row.latest:
        yield "failing", f"{latest / row.latest:.0%} of the attempts in the last 10 to 20 s failed"
    elif recent and recent >= FAILING_SHARE * row.recent:
        share = f"{recent / row.recent:.0%}"
        yield "failing", f"{share} of the attempts in the last 1 to 2 minutes failed"


def _paused_by_dependency(row: OperationSummary) -> int:
    return sum(
        any(reason.startswith(DEPENDENCY) for reason in handler.pauses)
        for _, handler in row.handlers
    )


def _long(row: OperationSummary) -> Iterator[tuple[str, str]]:
    if (oldest := row.oldest) is None:
        return
    instance, seconds = oldest
    text = f"its oldest message has run for {_seconds(seconds)} in {instance}"
    usual, limit = _usual(row), _timeout(row)
    if limit is not None and seconds > limit:
        yield "long", f"{text}, although the handler's timeout is {_seconds(limit)}"
    elif usual is not None and seconds >= max(MIN_LONG_SECONDS, LONG_FACTOR * usual):
        yield "long", f"{text}; 99% of the attempts take at most {_seconds(usual)}"


def _usual(row: OperationSummary) -> float | None:
    """Return the 99th percentile since the start, or None if there are too few attempts."""
    buckets = row.all_durations
    return quantile(buckets, 0.99) if buckets.total() >= MIN_USUAL else None


def _timeout(row: OperationSummary) -> float | None:
    """Return the longest timeout of the instances, or None if one has no timeout."""
    known = [handler.timeout for _, handler in row.handlers]
    limits = [limit for limit in known if limit is not None]
    return max(limits) if limits and len(limits) == len(known) else None


def _full(row: OperationSummary, interval: OperationSummary | None) -> Iterator[tuple[str, str]]:
    """Yield a problem if all slots are in use now, and other values show that messages wait."""
    if not row.slots or row.free > 0:
        return
    subject = "its slot" if row.slots == 1 else f"all {row.slots} slots"
    verb = "is" if row.slots == 1 else "are"
    delays = (interval or row).delays
    wait, usual = delays.quantile(0.5), (interval or row).durations.quantile(0.5)
    if row.full_seconds is not None and row.full_seconds >= FULL_SECONDS:
        yield "full", f"{subject} {verb} in use by the same work for {_seconds(row.full_seconds)}"
    elif wait is not None and wait >= max(WAIT_SECONDS, usual or 0.0):
        yield (
            "full",
            f"{subject} {verb} in use, and half of the last messages waited {_seconds(wait)}",
        )
    elif _is_busy(row, interval):
        yield "full", f"{subject} {verb} in use, and hardly ever free"
    elif any(_long(row)):
        yield "full", f"{subject} {verb} in use"


def _is_busy(row: OperationSummary, interval: OperationSummary | None) -> bool:
    """Return True if the slots were in use for almost the whole interval."""
    if interval is None or not interval.rate or interval.busy is None:
        return False
    # An attempt counts when it ends. One from before the interval would count as too much.
    seconds = interval.recent / interval.rate
    return interval.durations.max <= seconds and interval.busy >= BUSY_SHARE * row.slots


def _slow(row: OperationSummary) -> Iterator[tuple[str, str]]:
    if (medians := _medians(row)) is not None:
        recent, earlier = map(_seconds, medians)
        yield (
            "slow",
            f"half of the recent attempts took {recent} or longer, before that {earlier}",
        )


def _medians(row: OperationSummary) -> tuple[float, float] | None:
    """Return the medians of the recent attempts and of all earlier ones, if they got slower."""
    recent = row.durations.buckets
    earlier = subtract(row.all_durations, recent)
    if recent.total() < MIN_RECENT or sum(earlier.values()) < MIN_EARLIER:
        return None
    now, before = row.durations.quantile(0.5), quantile(earlier, 0.5)
    if now is None or before is None or now < max(MIN_SLOW_SECONDS, SLOWER_FACTOR * before):
        return None
    return now, before


def _seconds(value: float) -> str:
    """Return seconds with two digits: `0.73 s`, `45 s`."""
    return f"{value:.0f} s" if value >= WHOLE_SECONDS else f"{value:.2g} s"
