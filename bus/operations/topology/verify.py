"""Look whether the broker has what is needed; nothing is declared."""

import logging
from collections.abc import Mapping
from typing import Any

from bus.errors import ConfigurationError, TopologyMismatch, Unauthenticated, Unavailable
from bus.messaging.topology.model import Queue, Topology
from bus.operations.topology.apply import plan
from bus.operations.topology.broker_state import policies_for
from bus.operations.topology.diff import Difference, Plan, Verdict, without_expiring_queues
from bus.operations.topology.required import RequiredTopology
from bus.settings import Settings
from bus.transports.rabbitmq.admin import open_admin_session

__all__ = ["check_policies", "no_policies", "policies_on", "verify", "verify_by_amqp"]

log = logging.getLogger("bus.topology")

BY_AMQP = (
    "arguments, bindings and policies: only the management API tells them (BUS_MANAGEMENT_URL)"
)


async def verify(wanted: RequiredTopology, settings: Settings) -> Plan:
    """The differences by the management API where the settings name it, else as `verify_by_amqp`."""
    return await (plan if settings.management_url else verify_by_amqp)(wanted, settings)


async def verify_by_amqp(wanted: RequiredTopology, settings: Settings) -> Plan:
    """Which exchanges and queues are missing, by passive declarations with a service's own rights."""
    async with open_admin_session(settings) as broker:
        missing = await broker.find_missing(without_expiring_queues(wanted.topology))
    topology = Topology(
        exchanges=tuple(
            each for each in wanted.topology.exchanges if f"exchange {each.name}" in missing
        ),
        queues=tuple(each for each in wanted.topology.queues if f"queue {each.name}" in missing),
    )
    differences = [
        Difference(verdict="missing", what="exchange", name=each.name)
        for each in topology.exchanges
    ]
    differences += [
        Difference(verdict="missing", what="queue", name=each.name) for each in topology.queues
    ]
    return Plan(differences=tuple(differences), missing=topology, not_read=(BY_AMQP,))


async def policies_on(queue: Queue, settings: Settings) -> Mapping[str, Any]:
    """What policies say of a queue; nothing where the management API does not tell."""
    if settings.management_url is None:
        return {}
    try:
        return await policies_for(queue, settings)
    except (Unavailable, Unauthenticated) as error:
        log.warning("the policies were not read", extra={"why": str(error)})
        return {}


async def no_policies(_queue: Queue) -> Mapping[str, Any]:
    """Where there are no policies."""
    return {}


async def check_policies(wanted: RequiredTopology, settings: Settings) -> None:
    """Read back what counts, at a service's start: `TopologyMismatch` or `ConfigurationError` names every queue that would lose messages.

    Without `management_url` there is nothing to read it from. Where the API does not answer the service starts all the same:
    its queues were declared or verified over AMQP, and what runs must not depend on a monitoring port.
    """
    if settings.management_url is None:
        log.info("policies were not looked at; BUS_MANAGEMENT_URL says where")
        return
    try:
        found = await plan(wanted, settings)
    except Unavailable as error:
        log.warning("the effective settings were not read back", extra={"why": str(error)})
        return
    verdicts: tuple[Verdict, ...] = (
        "different",
        "unsafe",
        *(("missing",) if settings.topology == "verify" else ()),
    )
    wrong = found.having(*verdicts)
    if wrong:
        kind = TopologyMismatch if found.having("different") else ConfigurationError
        raise kind(f"not started, since messages could be lost: {'; '.join(map(str, wrong))}")
