"""Make what is missing, and nothing else."""

from dataclasses import dataclass

from bus.operations.topology.broker_state import read_broker_state
from bus.operations.topology.diff import Plan, diff
from bus.operations.topology.required import RequiredTopology
from bus.settings import Settings
from bus.transports.rabbitmq.admin import open_admin_session

__all__ = ["ApplyResult", "apply", "plan"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ApplyResult:
    """What apply found."""

    before: Plan
    """Its missing things were made."""
    after: Plan
    """What is left: what cannot be changed in place (migrate does that), what a policy spoils, what is superfluous."""


async def plan(wanted: RequiredTopology, settings: Settings) -> Plan:
    """What would have to be done; nothing is. `read` has the errors."""
    return diff(wanted, await read_broker_state(settings))


async def apply(wanted: RequiredTopology, settings: Settings) -> ApplyResult:
    """Declare and bind what is missing; running it again does nothing.

    Raises as `read`, and `PermissionDenied` where this user may not make something.
    """
    before = await plan(wanted, settings)
    if before.missing.exchanges or before.missing.queues or before.missing.bindings:
        async with open_admin_session(settings) as broker:
            await broker.declare(before.missing)
    return ApplyResult(before=before, after=await plan(wanted, settings))
