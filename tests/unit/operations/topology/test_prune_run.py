"""The end of a run of `bus topology prune`: no queue stays unbound. No broker runs."""

import asyncio
from collections.abc import Callable, Iterable
from typing import Any, cast

import pytest

from bus.errors import Unavailable
from bus.messaging.topology.model import Binding
from bus.operations.topology import prune as prune_module
from bus.operations.topology import prune_model, prune_restore
from bus.operations.topology.old_objects import OldObjects, OldQueue
from bus.operations.topology.prune import PruneOptions, PruneRun
from bus.operations.topology.prune_model import Decision
from bus.settings import Settings
from bus.transports.rabbitmq.queue_depth import QueueDepth

OLD = "stock.events.shop.sold.v1"
BINDING = Binding(exchange="bus.events", queue=OLD, routing_key="shop.sold.v1")


class FakeBroker:
    """A broker with one old queue. The removal of its binding can have a further effect."""

    def __init__(self) -> None:
        self.bindings = {BINDING}
        self.exists = True
        self.on_unbind: Callable[[], None] = lambda: None
        self.is_up = True

    async def depth(self, _queue: str) -> QueueDepth | None:
        if not self.is_up:
            raise Unavailable("inspecting: the connection was closed")
        return QueueDepth() if self.exists else None

    async def unbind(self, bindings: Iterable[Binding]) -> None:
        self.bindings -= set(bindings)
        self.on_unbind()
        await asyncio.sleep(0)

    async def bind(self, bindings: Iterable[Binding]) -> None:
        self.bindings |= set(bindings)

    async def delete_idle(self, _queue: str, **_options: bool) -> bool:
        self.exists = False
        return True


@pytest.fixture
def broker(monkeypatch: pytest.MonkeyPatch) -> FakeBroker:
    broker = FakeBroker()

    async def bindings(_settings: Settings) -> frozenset[Binding]:
        return frozenset(broker.bindings)

    async def totals(_settings: Settings) -> dict[str, int]:
        return {}

    monkeypatch.setattr(prune_module, "queue_bindings", bindings)
    monkeypatch.setattr(prune_module, "queue_totals", totals)
    monkeypatch.setattr(prune_module, "POLL_INTERVAL_SECONDS", 0)
    monkeypatch.setattr(prune_module, "UNBOUND_POLL_INTERVAL_SECONDS", 0)
    monkeypatch.setattr(prune_model, "QUIET_SECONDS", 0)
    monkeypatch.setattr(prune_model, "UNBOUND_SECONDS", 60)
    return broker


def run_of(
    broker: FakeBroker, report: Callable[[Decision], None] = lambda _: None, **options: Any
) -> PruneRun:
    queue = OldQueue(name=OLD, service="stock", role="events", is_quorum=True)
    return PruneRun(
        cast("Any", broker),
        OldObjects(queues=(queue,)),
        Settings(),
        PruneOptions(**options),
        report,
    )


async def test_a_run_that_is_cancelled_binds_its_queues_again_and_reports_it(
    broker: FakeBroker,
) -> None:
    reported: list[str] = []
    run = run_of(broker, lambda each: reported.append(each.action))
    task = asyncio.create_task(run.finish())

    def interrupt() -> None:
        task.cancel()

    broker.on_unbind = interrupt
    with pytest.raises(asyncio.CancelledError):
        await task
    assert broker.bindings == {BINDING}
    assert reported[-1] == "bind"


async def test_a_run_that_ends_with_an_error_binds_its_queues_again(broker: FakeBroker) -> None:
    def fail() -> None:
        raise Unavailable("the management API does not answer")

    broker.on_unbind = fail
    with pytest.raises(Unavailable):
        await run_of(broker).finish()
    assert broker.bindings == {BINDING}


async def test_a_run_that_is_over_time_binds_its_queues_again(broker: FakeBroker) -> None:
    run = run_of(broker, timeout=0.05)
    (left,) = await run.finish()
    assert (left.name, left.action) == (OLD, "wait")
    assert broker.bindings == {BINDING}
    assert run.steps == []


async def test_a_queue_that_the_operator_named_stays_unbound(broker: FakeBroker) -> None:
    await run_of(broker, timeout=0, even_if_used=(OLD,)).finish()
    assert broker.bindings == set()


async def test_a_queue_that_is_deleted_is_not_bound_again(
    broker: FakeBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prune_model, "UNBOUND_SECONDS", 0)
    run = run_of(broker)
    assert await run.finish() == ()
    assert broker.bindings == set()
    assert [each.action for each in run.steps] == ["unbind", "delete"]


async def test_a_queue_that_cannot_be_bound_again_is_reported_with_its_remedy(
    broker: FakeBroker,
) -> None:
    def lose_connection() -> None:
        broker.is_up = False

    reported: list[str] = []
    broker.on_unbind = lose_connection
    with pytest.raises(Unavailable):
        await run_of(broker, lambda each: reported.append(str(each))).finish()
    reason = "inspecting: the connection was closed"
    assert reported[-1] == f"keep queue {OLD}: {prune_restore.FAILED.format(reason)}"
