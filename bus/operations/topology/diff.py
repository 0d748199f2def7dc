"""The differences between the required topology and the broker's topology.

The functions are pure: they do not call the broker.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from typing_extensions import override

from bus.messaging.topology.declarations import UNLIMITED_DELIVERIES
from bus.messaging.topology.model import Binding, Exchange, Queue, QueueRole, Topology
from bus.messaging.topology.names import RETRY_DELAYS, migration_queue, parse_queue_name, retry_tier
from bus.operations.topology.broker_state import (
    ActualExchange,
    ActualQueue,
    BrokerState,
    effective_arguments,
)
from bus.operations.topology.policies import CONSUMER_TIMEOUT
from bus.operations.topology.required import RequiredTopology

__all__ = ["Difference", "Plan", "Verdict", "diff", "without_expiring_queues"]

Verdict = Literal["missing", "different", "unsafe", "unfinished", "superfluous"]
"""Kind of a difference.

- `missing`: the object does not exist. `apply` declares it.
- `different`: the object has wrong properties. RabbitMQ cannot change these properties in place.
- `unsafe`: a policy overrides the arguments with an unsafe value.
- `unfinished`: a migration was interrupted.
- `superfluous`: the object is not required, but its name belongs to one of the services. A
  binding is superfluous if it is not required and leads to a required queue.
"""

EXPIRES = "the broker deletes the queue and its messages when it has no consumer"
FULL = "if the queue is full, dead-lettering into it stalls"
DROPS = "the broker drops dead letters"
WHY: Mapping[str, str] = {
    "x-dead-letter-exchange": "without a dead-letter route the broker drops dead letters",
    "x-dead-letter-routing-key": "dead letters reach the wrong queue, or no queue",
    "x-dead-letter-strategy": "unless it is at-least-once, a dead letter can be lost in flight",
    "x-overflow": "without reject-publish, at-least-once silently becomes at-most-once",
    "x-delivery-limit": "the broker dead-letters a message after this number of deliveries",
    "x-max-length": FULL,
    "x-max-length-bytes": FULL,
    "x-message-ttl": "messages leave the queue at another time",
    "x-expires": EXPIRES,
}
"""The name of each queue argument, and the effect of a wrong value."""
WORK_QUEUE_POLICIES = {"max-length": FULL, "max-length-bytes": FULL, "expires": EXPIRES}
FORBIDDEN: Mapping[QueueRole, Mapping[str, str]] = {
    "jobs": WORK_QUEUE_POLICIES,
    "events": WORK_QUEUE_POLICIES,
    "retry": WORK_QUEUE_POLICIES,
    "dead": {
        "max-length": DROPS,
        "max-length-bytes": DROPS,
        "expires": EXPIRES,
        "message-ttl": DROPS,
    },
}
"""The settings that a policy must not set for each queue role, and the effect of each setting."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One difference. `str` formats it as one line."""

    verdict: Verdict
    what: Literal["exchange", "queue", "binding"]
    name: str
    detail: str = ""

    @override
    def __str__(self) -> str:
        return f"{self.verdict} {self.what} {self.name}{f': {self.detail}' if self.detail else ''}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The differences, and the objects that `apply` declares."""

    differences: tuple[Difference, ...]
    missing: Topology
    """Objects that `apply` declares."""
    not_read: tuple[str, ...] = ()
    """Objects that could not be checked. Each text contains the reason."""

    def having(self, *verdicts: Verdict) -> tuple[Difference, ...]:
        """Return the differences with one of these verdicts."""
        return tuple(
            difference for difference in self.differences if difference.verdict in verdicts
        )

    @property
    def clean(self) -> bool:
        """True if the operator has nothing to do.

        Superfluous objects do not count. They harm no service, and `prune` can delete them.
        """
        return len(self.having("superfluous")) == len(self.differences)


def diff(required: RequiredTopology, actual: BrokerState) -> Plan:
    """Compare the required topology with the broker's topology."""
    missing = _find_missing(required.topology, actual)
    return Plan(
        differences=(
            *_list_missing(missing),
            *_find_mismatches(required, actual),
            *_find_unfinished(required, actual),
            *_find_superfluous(required, actual),
        ),
        missing=missing,
        not_read=actual.not_read,
    )


def _find_missing(topology: Topology, actual: BrokerState) -> Topology:
    needed = without_expiring_queues(topology, existing=actual.queues.keys())
    return Topology(
        exchanges=tuple(
            exchange for exchange in needed.exchanges if exchange.name not in actual.exchanges
        ),
        queues=tuple(queue for queue in needed.queues if queue.name not in actual.queues),
        bindings=tuple(binding for binding in needed.bindings if binding not in actual.bindings),
    )


def without_expiring_queues(topology: Topology, *, existing: Collection[str] = ()) -> Topology:
    """Return the topology without its expiring queues. Queues in `existing` are kept.

    Only request queues expire. A service declares its request queues when the service starts.
    Before the start, these queues do not count as missing.
    """
    expired = {
        queue.name
        for queue in topology.queues
        if "x-expires" in queue.arguments and queue.name not in existing
    }
    return Topology(
        exchanges=topology.exchanges,
        queues=tuple(queue for queue in topology.queues if queue.name not in expired),
        bindings=tuple(binding for binding in topology.bindings if binding.queue not in expired),
    )


def _list_missing(missing: Topology) -> Iterator[Difference]:
    for exchange in missing.exchanges:
        yield Difference(
            verdict="missing", what="exchange", name=exchange.name, detail=exchange.kind
        )
    for queue in missing.queues:
        yield Difference(
            verdict="missing",
            what="queue",
            name=queue.name,
            detail=str(queue.arguments.get("x-queue-type", "")),
        )
    for binding in missing.bindings:
        yield Difference(verdict="missing", what="binding", name=_format_binding(binding))


def _format_binding(binding: Binding) -> str:
    return f"{binding.exchange} -> {binding.queue}" + (
        f" by {binding.routing_key}" if binding.routing_key else ""
    )


# --- Mismatches and unsafe policies ---------------------------------------------------------------


def _find_mismatches(required: RequiredTopology, actual: BrokerState) -> Iterator[Difference]:
    for exchange in required.topology.exchanges:
        if exchange.name in actual.exchanges:
            for detail in _compare_exchange(exchange, actual.exchanges[exchange.name]):
                yield Difference(
                    verdict="different", what="exchange", name=exchange.name, detail=detail
                )
    for queue in required.topology.queues:
        if queue.name in actual.queues:
            actual_queue = actual.queues[queue.name]
            mismatches = dict(_compare_queue(queue, actual_queue, actual.default_kind))
            for detail in mismatches.values():
                yield Difference(verdict="different", what="queue", name=queue.name, detail=detail)
            timeout = (
                None
                if actual.supports_consumer_timeout and actual_queue.kind == "quorum"
                else required.timeouts.get(queue.name)
            )
            for setting, detail in _check_policy(
                queue, actual_queue, required.attempts.get(queue.name), timeout
            ):
                if f"x-{setting}" not in mismatches:
                    yield Difference(verdict="unsafe", what="queue", name=queue.name, detail=detail)


def _compare_exchange(exchange: Exchange, actual: ActualExchange) -> Iterator[str]:
    need = {
        "type": exchange.kind,
        "durable": True,
        "auto_delete": False,
        "internal": False,
        **exchange.arguments,
    }
    have = {
        "type": actual.kind,
        "durable": actual.durable,
        "auto_delete": actual.auto_delete,
        "internal": actual.internal,
        **actual.arguments,
    }
    yield from _compare_values(need, have).values()


def _compare_queue(
    queue: Queue, actual: ActualQueue, default_kind: str
) -> Iterator[tuple[str, str]]:
    need = {
        "type": default_kind,
        "durable": queue.durable,
        "auto_delete": False,
        "exclusive": queue.exclusive,
        **_rename_type(queue.arguments),
    }
    have = {
        "type": actual.kind,
        "durable": actual.durable,
        "auto_delete": actual.auto_delete,
        "exclusive": actual.exclusive,
    }
    arguments = _rename_type({**actual.arguments, "x-queue-type": actual.kind})
    yield from (
        (name, detail + (f" ({WHY[name]})" if name in WHY else ""))
        for name, detail in _compare_values(need, {**have, **arguments}).items()
    )


def _rename_type(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Rename `x-queue-type` to `type`.

    RabbitMQ 4 adds `x-queue-type` to the queue's arguments, but RabbitMQ 3 does not.
    """
    return {"type" if name == "x-queue-type" else name: value for name, value in arguments.items()}


def _compare_values(need: Mapping[str, Any], have: Mapping[str, Any]) -> dict[str, str]:
    names = [*need, *(name for name in have if name not in need)]
    return {
        name: f"{name} is {_format_value(have, name)}, needed {_format_value(need, name)}"
        for name in names
        if need.get(name) != have.get(name)
    }


def _format_value(values: Mapping[str, Any], name: str) -> str:
    if name not in values:
        return "not set"
    return str(values[name]).lower() if isinstance(values[name], bool) else str(values[name])


def _check_policy(
    queue: Queue, actual: ActualQueue, attempts: int | None, timeout: float | None
) -> Iterator[tuple[str, str]]:
    """Yield the name and a description of each setting that a policy makes unsafe."""
    effective = effective_arguments(actual)
    for setting, harm in FORBIDDEN.get(queue.role, {}).items():
        tolerable = (
            setting.startswith("max-length")
            and queue.role == "dead"
            and effective.get("overflow") == "reject-publish"
        )
        if setting in effective and f"x-{setting}" not in queue.arguments and not tolerable:
            yield setting, f"a policy sets {setting} to {effective[setting]}: {harm}"
    if (
        "x-message-ttl" in queue.arguments
        and effective.get("message-ttl") != queue.arguments["x-message-ttl"]
    ):
        yield (
            "message-ttl",
            f"a policy sets message-ttl to {effective.get('message-ttl')}: retries start too early",
        )
    yield from _check_delivery_limit(queue, effective, attempts)
    consumer_timeout = effective.get(CONSUMER_TIMEOUT)
    if (
        timeout is not None
        and isinstance(consumer_timeout, int)
        and consumer_timeout < timeout * 1000
    ):
        detail = (
            f"the consumer timeout is {consumer_timeout / 1000:g} s, below the {timeout:g} s of "
            "its handler: the broker delivers the message to another consumer while the handler "
            "runs"
        )
        yield CONSUMER_TIMEOUT, detail


def _check_delivery_limit(
    queue: Queue, effective: Mapping[str, Any], attempts: int | None
) -> Iterator[tuple[str, str]]:
    limit = effective.get("delivery-limit")
    if not isinstance(limit, int):
        return
    if attempts is not None and limit < attempts:
        detail = (
            f"the delivery limit is {limit}, below the {attempts} attempts of its handler: "
            "the broker dead-letters the message before the last attempt"
        )
        yield "delivery-limit", detail
    elif queue.role == "dead" and limit < UNLIMITED_DELIVERIES:
        detail = (
            f"a policy sets delivery-limit to {limit}: dead letters are deleted after this number "
            "of deliveries"
        )
        yield "delivery-limit", detail


# --- Unfinished migrations and superfluous objects ------------------------------------------------


def _find_unfinished(required: RequiredTopology, actual: BrokerState) -> Iterator[Difference]:
    for queue in required.topology.queues:
        name = migration_queue(queue.name)
        if name in actual.queues:
            detail = f"messages wait in {name}; run `bus topology migrate` again"
            yield Difference(verdict="unfinished", what="queue", name=queue.name, detail=detail)


def _find_superfluous(required: RequiredTopology, actual: BrokerState) -> Iterator[Difference]:
    topology = required.topology
    exchanges = {exchange.name for exchange in topology.exchanges}
    queues = {queue.name for queue in topology.queues}
    for name in sorted(
        retry_tier(service, tier) for service in required.services for tier in RETRY_DELAYS
    ):
        if name in actual.exchanges and name not in exchanges:
            yield Difference(verdict="superfluous", what="exchange", name=name)
    for name in sorted(actual.queues):
        parsed = parse_queue_name(name)
        if (
            parsed
            and parsed.service in required.services
            and parsed.role != "replies"
            and name not in queues
        ):
            messages = actual.queues[name].messages
            yield Difference(
                verdict="superfluous",
                what="queue",
                name=name,
                detail=f"{messages} messages" if messages else "",
            )
    for binding in sorted(actual.bindings - {*topology.bindings}, key=_format_binding):
        if binding.queue in queues:
            yield Difference(verdict="superfluous", what="binding", name=_format_binding(binding))
