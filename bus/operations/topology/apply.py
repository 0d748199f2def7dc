"""Declaration of missing exchanges, queues and bindings. Existing objects are not changed."""

from dataclasses import dataclass

from bus.operations.topology.broker_state import read_broker_state
from bus.operations.topology.diff import Plan, diff
from bus.operations.topology.required import RequiredTopology
from bus.settings import Settings
from bus.transports.rabbitmq.admin import open_admin_session

__all__ = ["ApplyResult", "apply", "plan"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ApplyResult:
    """The plans before and after the declaration."""

    before: Plan
    """Plan before the declaration. `apply` has declared the objects in `missing`."""
    after: Plan
    """Plan after the declaration. It lists the remaining differences.

    The plan can contain objects that cannot be changed in place (use `migrate`) and interrupted
    migrations. It can also contain policies that make a queue unsafe, and superfluous objects.
    """


async def plan(required: RequiredTopology, settings: Settings) -> Plan:
    """Return the differences between `required` and the broker. Change nothing.

    Raises:
        BusError: The broker cannot be read; see `read_broker_state`.
    """
    return diff(required, await read_broker_state(settings))


async def apply(required: RequiredTopology, settings: Settings) -> ApplyResult:
    """Declare and bind the missing objects. A second run changes nothing.

    Raises:
        BusError: The broker cannot be read; see `read_broker_state`.
        PermissionDenied: The broker does not allow this user to declare an object.
    """
    before = await plan(required, settings)
    if before.missing.exchanges or before.missing.queues or before.missing.bindings:
        async with open_admin_session(settings) as broker:
            await broker.declare(before.missing)
    return ApplyResult(before=before, after=await plan(required, settings))
