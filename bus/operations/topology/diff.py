"""The differences between what is needed and what the broker has: a pure comparison."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from typing_extensions import override

from bus.messaging.topology.declarations import UNLIMITED_DELIVERIES
from bus.messaging.topology.model import Binding, Exchange, Queue, QueueRole, Topology
from bus.messaging.topology.names import RETRY_DELAYS, migration_queue, parse_queue_name, retry_tier
from bus.operations.topology.broker_state import (
    CONSUMER_TIMEOUT,
    ActualExchange,
    ActualQueue,
    BrokerState,
    effective_arguments,
)
from bus.operations.topology.required import RequiredTopology

__all__ = ["Difference", "Plan", "Verdict", "diff", "without_expiring_queues"]

Verdict = Literal["missing", "different", "unsafe", "unfinished", "superfluous"]
"""`missing`: apply makes it. `different`: cannot be changed in place. `unsafe`: a policy spoils it. `unfinished`: a migration
has not ended. `superfluous`: it has our kind of name, and these routers do not need it."""

WHY: Mapping[str, str] = {
    "x-dead-letter-exchange": "without its dead-letter route a message is lost when the broker gives it up",
    "x-dead-letter-routing-key": "its dead letters go to the wrong queue, or to none",
    "x-dead-letter-strategy": "unless it is at-least-once a dead letter can be lost on its way",
    "x-overflow": "at-least-once needs reject-publish, and falls back to at-most-once silently",
    "x-delivery-limit": "the broker gives up messages after so many deliveries",
    "x-max-length": "a full queue stalls what is dead-lettered into it",
    "x-max-length-bytes": "a full queue stalls what is dead-lettered into it",
    "x-message-ttl": "messages leave it at another time",
    "x-expires": "it vanishes, with what is in it, when nobody consumes it",
}
VANISHES = "it vanishes, with what is in it, when nobody consumes it"
FULL = "a full queue stalls what is dead-lettered into it"
DROPS = "dead letters are dropped"
WORK = {"max-length": FULL, "max-length-bytes": FULL, "expires": VANISHES}
FORBIDDEN: Mapping[QueueRole, Mapping[str, str]] = {
    "jobs": WORK,
    "events": WORK,
    "retry": WORK,
    "dead": {
        "max-length": DROPS,
        "max-length-bytes": DROPS,
        "expires": VANISHES,
        "message-ttl": DROPS,
    },
}
"""What no policy may set on a queue, and why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One difference; `str` of it is one line."""

    verdict: Verdict
    what: Literal["exchange", "queue", "binding"]
    name: str
    detail: str = ""

    @override
    def __str__(self) -> str:
        return f"{self.verdict} {self.what} {self.name}{f': {self.detail}' if self.detail else ''}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is to be done, and what there is to know."""

    differences: tuple[Difference, ...]
    missing: Topology
    """What apply would make."""
    not_read: tuple[str, ...] = ()
    """What was not looked at, and why."""

    def having(self, *verdicts: Verdict) -> tuple[Difference, ...]:
        """The differences with one of these verdicts."""
        return tuple(each for each in self.differences if each.verdict in verdicts)

    @property
    def clean(self) -> bool:
        """Whether nothing is to be done. What is superfluous harms no service, and nothing here deletes it."""
        return len(self.having("superfluous")) == len(self.differences)


def diff(wanted: RequiredTopology, held: BrokerState) -> Plan:
    """What `wanted` needs, beside `held`."""
    missing = _missing(wanted.topology, held)
    return Plan(
        differences=(
            *_named(missing),
            *_different(wanted, held),
            *_unfinished(wanted, held),
            *_superfluous(wanted, held),
        ),
        missing=missing,
        not_read=held.not_read,
    )


def _missing(topology: Topology, held: BrokerState) -> Topology:
    needed = without_expiring_queues(topology, there=held.queues.keys())
    return Topology(
        exchanges=tuple(each for each in needed.exchanges if each.name not in held.exchanges),
        queues=tuple(each for each in needed.queues if each.name not in held.queues),
        bindings=tuple(each for each in needed.bindings if each not in held.bindings),
    )


def without_expiring_queues(topology: Topology, *, there: Collection[str] = ()) -> Topology:
    """Without the queues that expire, and are not `there`: whoever serves a request makes its queue, and nobody misses it before."""
    gone = {
        each.name
        for each in topology.queues
        if "x-expires" in each.arguments and each.name not in there
    }
    return Topology(
        exchanges=topology.exchanges,
        queues=tuple(each for each in topology.queues if each.name not in gone),
        bindings=tuple(each for each in topology.bindings if each.queue not in gone),
    )


def _named(missing: Topology) -> Iterator[Difference]:
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
        yield Difference(verdict="missing", what="binding", name=_shown(binding))


def _shown(binding: Binding) -> str:
    return f"{binding.exchange} -> {binding.queue}" + (
        f" by {binding.routing_key}" if binding.routing_key else ""
    )


# --- what cannot be changed in place, and what policies spoil ------------------------------------------------------------------


def _different(wanted: RequiredTopology, held: BrokerState) -> Iterator[Difference]:
    for exchange in wanted.topology.exchanges:
        if exchange.name in held.exchanges:
            for detail in _exchange_details(exchange, held.exchanges[exchange.name]):
                yield Difference(
                    verdict="different", what="exchange", name=exchange.name, detail=detail
                )
    for queue in wanted.topology.queues:
        if queue.name in held.queues:
            now = held.queues[queue.name]
            wrong = dict(_queue_details(queue, now, held.default_kind))
            for detail in wrong.values():
                yield Difference(verdict="different", what="queue", name=queue.name, detail=detail)
            timeout = (
                None
                if held.supports_consumer_timeout and now.kind == "quorum"
                else wanted.timeouts.get(queue.name)
            )
            for setting, detail in _policy_details(
                queue, now, wanted.attempts.get(queue.name), timeout
            ):
                if f"x-{setting}" not in wrong:
                    yield Difference(verdict="unsafe", what="queue", name=queue.name, detail=detail)


def _exchange_details(exchange: Exchange, held: ActualExchange) -> Iterator[str]:
    need = {
        "type": exchange.kind,
        "durable": True,
        "auto_delete": False,
        "internal": False,
        **exchange.arguments,
    }
    have = {
        "type": held.kind,
        "durable": held.durable,
        "auto_delete": held.auto_delete,
        "internal": held.internal,
        **held.arguments,
    }
    yield from _clashes(need, have).values()


def _queue_details(queue: Queue, held: ActualQueue, default_kind: str) -> Iterator[tuple[str, str]]:
    need = {
        "type": default_kind,
        "durable": queue.durable,
        "auto_delete": False,
        "exclusive": queue.exclusive,
        **_plain(queue.arguments),
    }
    have = {
        "type": held.kind,
        "durable": held.durable,
        "auto_delete": held.auto_delete,
        "exclusive": held.exclusive,
    }
    clashes = _clashes(need, {**have, **_plain({**held.arguments, "x-queue-type": held.kind})})
    yield from (
        (name, detail + (f" ({WHY[name]})" if name in WHY else ""))
        for name, detail in clashes.items()
    )


def _plain(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The type by its own name: RabbitMQ 4 puts it among the arguments by itself, 3 does not."""
    return {"type" if name == "x-queue-type" else name: value for name, value in arguments.items()}


def _clashes(need: Mapping[str, Any], have: Mapping[str, Any]) -> dict[str, str]:
    names = [*need, *(name for name in have if name not in need)]
    return {
        name: f"{name} is {_value(have, name)}, needed {_value(need, name)}"
        for name in names
        if need.get(name) != have.get(name)
    }


def _value(values: Mapping[str, Any], name: str) -> str:
    if name not in values:
        return "not set"
    return str(values[name]).lower() if isinstance(values[name], bool) else str(values[name])


def _policy_details(
    queue: Queue, held: ActualQueue, attempts: int | None, timeout: float | None
) -> Iterator[tuple[str, str]]:
    """What is wrong with what counts, although the arguments are right: by the setting."""
    counts = effective_arguments(held)
    for setting, harm in FORBIDDEN.get(queue.role, {}).items():
        tolerable = (
            setting.startswith("max-length")
            and queue.role == "dead"
            and counts.get("overflow") == "reject-publish"
        )
        if setting in counts and f"x-{setting}" not in queue.arguments and not tolerable:
            yield setting, f"a policy sets {setting} to {counts[setting]}: {harm}"
    if (
        "x-message-ttl" in queue.arguments
        and counts.get("message-ttl") != queue.arguments["x-message-ttl"]
    ):
        yield (
            "message-ttl",
            f"a policy sets message-ttl to {counts.get('message-ttl')}: retries come back early",
        )
    yield from _limit_details(queue, counts, attempts)
    patience = counts.get(CONSUMER_TIMEOUT)
    if timeout is not None and isinstance(patience, int) and patience < timeout * 1000:
        waits = (
            f"the consumer timeout is {patience / 1000:g} s, below the {timeout:g} s of its handler"
        )
        yield CONSUMER_TIMEOUT, f"{waits}: the broker gives its message to another meanwhile"


def _limit_details(
    queue: Queue, counts: Mapping[str, Any], attempts: int | None
) -> Iterator[tuple[str, str]]:
    limit = counts.get("delivery-limit")
    if not isinstance(limit, int):
        return
    if attempts is not None and limit < attempts:
        yield (
            "delivery-limit",
            f"the delivery limit is {limit}, below the {attempts} attempts of its handler: the broker gives up first",
        )
    elif queue.role == "dead" and limit < UNLIMITED_DELIVERIES:
        yield (
            "delivery-limit",
            f"a policy sets delivery-limit to {limit}: dead letters are deleted after so many looks",
        )


# --- what is left over -----------------------------------------------------------------------------------------------------------


def _unfinished(wanted: RequiredTopology, held: BrokerState) -> Iterator[Difference]:
    for queue in wanted.topology.queues:
        holding = migration_queue(queue.name)
        if holding in held.queues:
            detail = f"messages wait in {holding}; go on with `bus topology migrate`"
            yield Difference(verdict="unfinished", what="queue", name=queue.name, detail=detail)


def _superfluous(wanted: RequiredTopology, held: BrokerState) -> Iterator[Difference]:
    topology = wanted.topology
    exchanges, queues = (
        {each.name for each in values} for values in (topology.exchanges, topology.queues)
    )
    for name in sorted(
        retry_tier(service, tier) for service in wanted.services for tier in RETRY_DELAYS
    ):
        if name in held.exchanges and name not in exchanges:
            yield Difference(verdict="superfluous", what="exchange", name=name)
    for name in sorted(held.queues):
        read = parse_queue_name(name)
        if (
            read
            and read.service in wanted.services
            and read.role != "replies"
            and name not in queues
        ):
            waiting = held.queues[name].messages
            yield Difference(
                verdict="superfluous",
                what="queue",
                name=name,
                detail=f"{waiting} messages" if waiting else "",
            )
    for binding in sorted(held.bindings - {*topology.bindings}, key=_shown):
        if binding.queue in queues:
            yield Difference(verdict="superfluous", what="binding", name=_shown(binding))
