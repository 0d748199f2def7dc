"""Problems that the policies of live instances show: open circuit breakers, rejected calls, chaos.

Each instance has policies of its own, so a line has the number of instances.
"""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import groupby

from bus.messaging.breaker_info import BreakerInfo
from bus.messaging.plurals import count_noun
from bus.messaging.service_info import InstanceStats
from bus.runtime.discovery.operation_problems import Problem
from bus.runtime.discovery.operation_summary import OperationSummary

__all__ = ["call_problems", "instance_problems"]

REJECTIONS = {
    "budget": ("retries", "the retry budget has no token"),
    "bulkhead": ("calls", "too many calls are in flight"),
}
"""Messages that a policy does not send, and the reason. A breaker has a line of its own."""


def instance_problems(records: Sequence[InstanceStats]) -> Iterator[Problem]:
    """Yield the problems of the live instances of one service: chaos, and breakers.

    Args:
        records: The last statistics of each live instance.
    """
    chaos = sorted({line for record in records for line in record.chaos})
    for line in chaos:
        affected = sum(line in record.chaos for record in records)
        yield Problem("chaos", f"chaos in {affected} of {len(records)} instances: {line}")
    breakers = sorted((breaker for record in records for breaker in record.breakers), key=_kind_of)
    for _, group in groupby(breakers, key=_kind_of):
        alike = list(group)
        # A breaker stays half-open while no call is made, and rejects nothing.
        rejecting = [breaker for breaker in alike if breaker.state != "half-open"]
        latest = max(rejecting or alike, key=lambda breaker: breaker.since)
        share = f"{len(alike)} of {count_noun(len(records), 'instance')}"
        yield _breaker_problem(latest, share)


def call_problems(row: OperationSummary) -> Iterator[Problem]:
    """Yield a problem for each policy that rejected calls of an operation lately.

    Args:
        row: An operation that a service sends.
    """
    for policy, count in sorted(row.recently_rejected.items()):
        if policy in REJECTIONS:
            noun, reason = REJECTIONS[policy]
            text = f"{count} {noun} were not sent in the last 1 to 2 minutes, because {reason}"
            yield Problem("rejecting", f"{row.operation.type}: {text}")


def _kind_of(breaker: BreakerInfo) -> tuple[str, str, bool]:
    return breaker.name, breaker.kind, breaker.state == "isolated"


def _breaker_problem(breaker: BreakerInfo, share: str) -> Problem:
    """Return the problem of one breaker, with the cause and the command that shows all of them."""
    cause = f" after {breaker.cause}" if breaker.cause else ""
    if breaker.kind == "dependency":
        text = f"the dependency {breaker.name} is down for {share}{cause}"
    elif breaker.state == "isolated":
        text = f"{breaker.name}: an operator has isolated the calls of {share}{_order(breaker)}"
    else:
        text = f"{breaker.name}: the circuit breaker of {share} is {breaker.state}{cause}"
    return Problem("breaker", f"{text}; run `bus breakers list`")


def _order(breaker: BreakerInfo) -> str:
    """Return the operator, the end and the reason of an isolation."""
    by = f" by {breaker.ordered_by}" if breaker.ordered_by else ""
    until = ""
    if breaker.until is not None:
        until = datetime.fromtimestamp(breaker.until / 1000, UTC).strftime(" until %H:%M:%S UTC")
    reason = f" ({breaker.reason})" if breaker.reason else ""
    return f"{by}{until}{reason}"
