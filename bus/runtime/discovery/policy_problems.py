"""Problems of the calls of live instances: open breakers, failed and rejected calls, chaos.

Each instance has policies of its own, so a line has the number of instances.
"""

from collections.abc import Collection, Iterator, Sequence
from itertools import groupby
from typing import Final

from bus.messaging.breaker_info import BreakerInfo
from bus.messaging.plurals import count_noun
from bus.messaging.service_info import InstanceStats
from bus.messaging.timers import utc_time
from bus.runtime.discovery.operation_problems import FAILING_SHARE, MIN_LATEST, Problem
from bus.runtime.discovery.operation_summary import OperationSummary

__all__ = ["call_problems", "instance_problems"]

REJECTIONS = {
    "budget": ("retries", "the retry budget has no token"),
    "bulkhead": ("calls", "too many calls are in flight"),
}
"""Messages that a policy does not send, and the reason. A breaker has a line of its own."""
CALL_FAILURES: Final = ("unavailable", "deadline_exceeded")
"""Codes of calls that no instance of the called service has answered, or that it cannot handle.

With the other codes, the called service has a line of its own.
"""


def instance_problems(records: Sequence[InstanceStats]) -> Iterator[Problem]:
    """Yield the problems of the live instances of one service: chaos, and breakers.

    Args:
        records: The last statistics of each live instance.
    """
    chaos = sorted({line for record in records for line in record.chaos})
    for line in chaos:
        affected = sum(line in record.chaos for record in records)
        share = f"{affected} of {count_noun(len(records), 'instance')}"
        yield Problem("chaos", f"chaos in {share}: {line}")
    breakers = sorted((breaker for record in records for breaker in record.breakers), key=_kind_of)
    for _, group in groupby(breakers, key=_kind_of):
        alike = list(group)
        # A breaker stays half-open while no call is made, and rejects nothing.
        rejecting = [breaker for breaker in alike if breaker.state != "half-open"]
        latest = max(rejecting or alike, key=lambda breaker: breaker.since)
        share = f"{len(alike)} of {count_noun(len(records), 'instance')}"
        yield _breaker_problem(latest, share)


def call_problems(row: OperationSummary, rejected: Collection[str] = ()) -> Iterator[Problem]:
    """Yield a problem if calls of an operation failed lately, or if a policy rejected them.

    A failed call is a problem also if its caller received a fallback: the replies are not current.

    Args:
        row: An operation that a service sends.
        rejected: Types of the operations with an open breaker, which has a line of its own.
    """
    fallbacks = row.recent_fallbacks
    failed = None if row.operation.type in rejected else _failed_calls(row)
    if failed is not None:
        given = f"; {fallbacks} of them received a fallback" if fallbacks else ""
        called = row.operation.name.partition(".")[0]
        text = f"{failed}{given}; run `bus services {called}`"
        yield Problem("calls-failing", f"{row.operation.type}: {text}")
    elif fallbacks:
        text = f"{count_noun(fallbacks, 'call')} in the last 1 to 2 minutes received a fallback"
        yield Problem("fallbacks", f"{row.operation.type}: {text}")
    for policy, count in sorted(row.recently_rejected.items()):
        if policy in REJECTIONS:
            noun, reason = REJECTIONS[policy]
            text = f"{count} {noun} were not sent in the last 1 to 2 minutes, because {reason}"
            yield Problem("rejecting", f"{row.operation.type}: {text}")


def _failed_calls(row: OperationSummary) -> str | None:
    """Return the number of calls that failed lately with their codes, or None if few failed."""
    if row.operation.kind != "request":
        return None
    for count, errors, least, span in (
        (row.recent, row.recent_errors, 1, "1 to 2 minutes"),
        (row.latest, row.latest_errors, MIN_LATEST, "10 to 20 s"),
    ):
        codes = [code for code in CALL_FAILURES if errors[code]]
        failed = sum(errors[code] for code in codes)
        if failed >= least and failed >= FAILING_SHARE * count:
            calls = f"{failed} of {count_noun(count, 'call')}"
            return f"{calls} in the last {span} failed ({', '.join(codes)})"
    return None


def _kind_of(breaker: BreakerInfo) -> tuple[str, str, bool]:
    return breaker.name, breaker.kind, breaker.state == "isolated"


def _breaker_problem(breaker: BreakerInfo, share: str) -> Problem:
    """Return the problem of one breaker, with the cause and the command that shows all of them."""
    cause = f" after {breaker.cause}" if breaker.cause else ""
    is_dependency = breaker.kind == "dependency"
    subject = f"the dependency {breaker.name}" if is_dependency else breaker.name
    if breaker.state == "isolated":
        text = f"{subject}: isolated in {share} by {_order(breaker)}"
    elif is_dependency and breaker.state == "half-open":  # also at night, if no message comes
        text = f"{subject} was down for {share}{cause}; the next message tries it"
    elif is_dependency:
        text = f"{subject} is down for {share}{cause}"
    else:
        text = f"{breaker.name}: the circuit breaker of {share} is {breaker.state}{cause}"
    return Problem("breaker", f"{text}; run `bus breakers list`")


def _order(breaker: BreakerInfo) -> str:
    """Return the operator, the end and the reason of an isolation."""
    until = "" if breaker.until is None else f" until {utc_time(breaker.until / 1000)}"
    reason = f" ({breaker.reason})" if breaker.reason else ""
    return f"{breaker.ordered_by or 'an operator'}{until}{reason}"
