"""Make what is missing, and nothing else."""

from dataclasses import dataclass

from bus.operations.topology.broker_state import read
from bus.operations.topology.diff import Plan, compare
from bus.operations.topology.required import Wanted
from bus.settings import Settings
from bus.transports.rabbitmq.admin import administering

__all__ = ["Applied", "apply", "plan"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """What apply found."""

    before: Plan
    """Its missing things were made."""
    after: Plan
    """What is left: what cannot be changed in place (migrate does that), what a policy spoils, what is superfluous."""


async def plan(wanted: Wanted, settings: Settings) -> Plan:
    """What would have to be done; nothing is. `read` has the errors."""
    return compare(wanted, await read(settings))


async def apply(wanted: Wanted, settings: Settings) -> Applied:
    """Declare and bind what is missing; running it again does nothing.

    Raises as `read`, and `PermissionDenied` where this user may not make something.
    """
    before = await plan(wanted, settings)
    if before.missing.exchanges or before.missing.queues or before.missing.bindings:
        async with administering(settings) as broker:
            await broker.declare(before.missing)
    return Applied(before=before, after=await plan(wanted, settings))
