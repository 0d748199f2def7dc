"""Verification that the broker has the required topology. The verification declares nothing."""

import logging
from collections.abc import Mapping
from typing import Any

from bus.errors import ConfigurationError, TopologyMismatch, Unauthenticated, Unavailable
from bus.messaging.topology.model import Queue, Topology
from bus.messaging.topology.names import CONTROL
from bus.operations.topology.apply import plan
from bus.operations.topology.broker_state import policies_for
from bus.operations.topology.diff import Difference, Plan, Verdict, without_expiring_queues
from bus.operations.topology.required import RequiredTopology
from bus.settings import Settings
from bus.transports.rabbitmq.admin import open_admin_session

__all__ = ["check_policies", "no_policies", "policies_on", "verify", "verify_by_amqp"]

log = logging.getLogger("bus.topology")

NOT_READ_BY_AMQP = "arguments, bindings and policies; set BUS_MANAGEMENT_URL to check them"


async def verify(required: RequiredTopology, settings: Settings) -> Plan:
    """Return the differences between the required topology and the broker's topology.

    If `management_url` is not set, return only the differences that `verify_by_amqp` finds.
    """
    return await (plan if settings.management_url else verify_by_amqp)(required, settings)


async def verify_by_amqp(required: RequiredTopology, settings: Settings) -> Plan:
    """Return the missing exchanges and queues.

    Passive declarations find the missing objects. Passive declarations need only the permissions of
    the service itself.
    """
    async with open_admin_session(settings) as broker:
        names = await broker.find_missing(without_expiring_queues(required.topology))
    missing = Topology(
        exchanges=tuple(
            exchange
            for exchange in required.topology.exchanges
            if f"exchange {exchange.name}" in names
        ),
        queues=tuple(queue for queue in required.topology.queues if f"queue {queue.name}" in names),
    )
    differences = [
        Difference(verdict="missing", what="exchange", name=exchange.name)
        for exchange in missing.exchanges
    ]
    differences += [
        Difference(verdict="missing", what="queue", name=queue.name) for queue in missing.queues
    ]
    return Plan(differences=tuple(differences), missing=missing, not_read=(NOT_READ_BY_AMQP,))


async def policies_on(queue: Queue, settings: Settings) -> Mapping[str, Any]:
    """Return the effective policy definition for a queue.

    The definition is empty if `management_url` is not set, or if the management API does not answer
    or refuses the user.
    """
    if settings.management_url is None:
        return {}
    try:
        return await policies_for(queue, settings)
    except (Unavailable, Unauthenticated) as error:
        log.warning(
            "the RabbitMQ policies for %s were not read: %s",
            queue.name,
            error,
            extra={"queue": queue.name, "why": str(error)},
        )
        return {}


async def no_policies(_queue: Queue) -> Mapping[str, Any]:
    """Return an empty policy definition. Use this function if the broker has no policies."""
    return {}


async def check_policies(required: RequiredTopology, settings: Settings) -> None:
    """Check the effective settings of all queues when a service starts.

    If `management_url` is not set, the check is skipped. If the management API does not answer, the
    service still starts, because a service must not depend on a monitoring port. Before
    this check, the service has already declared or verified the queues over AMQP.

    Raises:
        TopologyMismatch: A queue or exchange has wrong properties. The error lists the differences.
        ConfigurationError: A policy makes a queue unsafe. Or an object is missing, and
            `BUS_TOPOLOGY=verify` is set. The error lists the objects.
    """
    services = ", ".join(sorted(required.services))
    if settings.management_url is None:
        log.info(
            "%s: the RabbitMQ policies for its queues were not checked, "
            "because BUS_MANAGEMENT_URL is not set",
            services,
            extra={"service": services},
        )
        return
    try:
        comparison = await plan(required, settings)
    except Unavailable as error:
        log.warning(
            "%s: the settings and policies of its queues were not checked: %s",
            services,
            error,
            extra={"service": services, "why": str(error)},
        )
        return
    verdicts: tuple[Verdict, ...] = (
        "different",
        "unsafe",
        *(("missing",) if settings.topology == "verify" else ()),
    )
    # Without the exchange, or with a wrong one, only discovery is off.
    differences = [each for each in comparison.having(*verdicts) if each.name != CONTROL]
    if differences:
        is_different = any(each.verdict == "different" for each in differences)
        kind = TopologyMismatch if is_different else ConfigurationError
        raise kind(
            "the broker's topology could lose messages, so the service does not start. "
            f"Fix these differences: {'; '.join(map(str, differences))}"
        )
