"""RabbitMQ's policies: the policy that applies to a queue, and the smaller one of two limits.

The functions are pure: they do not call the broker.
"""

import contextlib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

__all__ = ["CONSUMER_TIMEOUT", "find_invalid_patterns", "merge_limits", "policy_of"]

CONSUMER_TIMEOUT = "consumer-timeout"
"""Key of the consumer timeout in policies. The timeout is in milliseconds."""
SMALLER_WINS = frozenset(
    {CONSUMER_TIMEOUT, "delivery-limit", "expires", "max-length", "max-length-bytes", "message-ttl"}
)
"""Settings that an argument and a policy can limit. The smaller value applies.

For all other settings RabbitMQ uses the argument's value.
"""


def merge_limits(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of both. If both set a limit, return the smaller value.

    For all other settings, the value in `second` applies.
    """
    limits = {
        name: min(value, first[name])
        for name, value in second.items()
        if name in SMALLER_WINS and name in first
    }
    return {**first, **second, **limits}


def policy_of(
    name: str,
    kind: str,
    policies: Sequence[Mapping[str, Any]],
    operators: Sequence[Mapping[str, Any]] = (),
) -> Mapping[str, Any]:
    """Return the effective policy definition for the queue `name`.

    RabbitMQ applies the matching policy with the highest priority, and the matching operator policy
    with the highest priority. If both policies set the same limit, the smaller value applies.
    https://www.rabbitmq.com/docs/parameters#policies
    """
    user, operator = (_find_definition(name, kind, rules) for rules in (policies, operators))
    return merge_limits(user, operator)


def _find_definition(name: str, kind: str, rules: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    scopes = {"all", "queues", f"{kind}_queues", f"{kind}s"}
    matches = [
        rule for rule in rules if rule["apply-to"] in scopes and _matches(rule["pattern"], name)
    ]
    best = max(matches, key=lambda rule: int(rule["priority"]), default=None)
    return best["definition"] if best else {}


def _matches(pattern: str, name: str) -> bool:
    with contextlib.suppress(re.error):
        return re.search(pattern, name) is not None
    return False


def find_invalid_patterns(rules: Iterable[Mapping[str, Any]]) -> Iterable[str]:
    """Yield a line for each policy with a pattern that Python cannot read."""
    for rule in rules:
        try:
            re.compile(rule["pattern"])
        except re.error:
            yield f"policy {rule['name']!r}: its pattern is not a Python regular expression"
