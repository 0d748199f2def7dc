"""The sender's own check: its bus rejects a message that the grants forbid, before it is sent."""

import re
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from bus import Bus, Event, Router, contract
from bus.contracts.contract import contract_of
from bus.errors import PermissionDenied
from bus.messaging.topology.names import event_queue
from bus.testing import MemoryBuses, wall_clock
from tests.security.deployment import Deployment
from tests.unit.ledger import Add, BooksClosed, CloseBooks

GRANTS = """
clients = ["office"]

[services.office]
call = ["ledger.total"]

[services.ledger]
publish = ["ledger.late"]
consume = ["ledger.closed"]
"""

# No service serves these contracts, so the broker would return a message that was sent.
FORBIDDEN: dict[str, tuple[str, Callable[[Bus], Awaitable[object]], str]] = {
    "a request": (
        "office",
        lambda bus: bus.request(Add()),
        (
            "office has no right to call ledger.add. Grant it in {}: "
            '[services.office] call = ["ledger.add"]'
        ),
    ),
    "a job": (
        "office",
        lambda bus: bus.submit(CloseBooks()),
        (
            "office has no right to call ledger.close. Grant it in {}: "
            '[services.office] call = ["ledger.close"]'
        ),
    ),
    "an event": (
        "ledger",
        lambda bus: bus.publish(BooksClosed()),
        (
            "ledger has no right to publish ledger.closed. Grant it in {}: "
            '[services.ledger] publish = ["ledger.closed"]'
        ),
    ),
}


@pytest.fixture
def deployment(tmp_path: Path) -> Deployment:
    deployment = Deployment(tmp_path)
    deployment.grants.write_text(GRANTS)
    return deployment


@pytest.mark.parametrize("what", FORBIDDEN)
async def test_what_is_not_granted_is_refused_before_it_is_sent(
    what: str, deployment: Deployment
) -> None:
    service, send, told = FORBIDDEN[what]
    index = Router("ledger")
    index.event(BooksClosed, subscription="index")(hear)
    async with MemoryBuses(clock=wall_clock) as buses:
        listener = await buses.bus("ledger", **deployment.of("ledger"))
        await buses.serve(listener, index)
        bus = await buses.bus(service, **deployment.of(service))
        subject = r"ledger\.\w+\.v1( \(job [0-9a-f-]{36}\))?"
        text = re.escape(told.format(deployment.grants))
        with pytest.raises(PermissionDenied, match=f"^{subject}: {text}$") as refused:
            await send(bus)
        assert not refused.value.maybe_executed
        assert buses.broker.depth(event_queue("ledger", contract_of(BooksClosed), "index")) == 0
    assert heard == []


heard: list[BooksClosed] = []


async def hear(event: BooksClosed) -> None:
    heard.append(event)


async def test_a_contract_that_came_after_the_start_counts(deployment: Deployment) -> None:
    """Declare the contract of an event after the start, and publish the event.

    The grants file does not name the owner of an event, so its permission takes effect when the
    contract is known.
    """
    async with MemoryBuses(clock=wall_clock) as buses:
        bus = await buses.bus("ledger", **deployment.of("ledger"))

        @contract("ledger.late", version=1)
        class ClosedLate(Event):
            year: int = 2026

        await bus.publish(ClosedLate())


async def test_who_knows_no_grants_leaves_it_to_the_receiver() -> None:
    """Send without a grants file, as in development."""
    async with MemoryBuses(clock=wall_clock) as buses:
        bus = await buses.bus(
            "ledger", auth="dev", key="a secret that all services of this test share"
        )
        await bus.publish(BooksClosed())
