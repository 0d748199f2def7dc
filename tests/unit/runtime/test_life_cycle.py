"""The life cycle of a bus: which operations are possible when, and in which event loop."""

import asyncio
import multiprocessing
import os
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from typing_extensions import override

from bus.errors import BusError, ConnectionLost, FailedPrecondition, Unavailable
from bus.messaging.context import Context
from bus.messaging.ports.transport import ReturnListener
from bus.operations.dead_letters import EVERYTHING
from bus.runtime.bus import Bus
from bus.runtime.router import Router
from bus.settings import Settings
from bus.testing import MemoryBroker, MemoryTransport
from tests.unit.ledger import BooksClosed, CloseBooks, GetTotal, Total

SETTINGS = Settings(auth="off", request_timeout=5)
Verb = Callable[[Bus], Awaitable[object]]


async def _serving(bus: Bus) -> None:
    async with bus.serving(Router("ledger")):
        pass


VERBS: dict[str, Verb] = {
    "request": lambda bus: bus.request(GetTotal()),
    "publish": lambda bus: bus.publish(BooksClosed()),
    "submit": lambda bus: bus.submit(CloseBooks()),
    "serving": _serving,
    "serve": lambda bus: bus.serve(Router("ledger")),
    "dead_letters": lambda bus: bus.dead_letters("ledger.jobs.close.v1"),
    "replay": lambda bus: bus.replay("ledger.jobs.close.v1"),
    "purge": lambda bus: bus.purge("ledger.jobs.close.v1", EVERYTHING),
}
every_verb = pytest.mark.parametrize("verb", VERBS.values(), ids=VERBS)


def ledger() -> Bus:
    return Bus("ledger", settings=SETTINGS, transport=MemoryTransport(MemoryBroker()))


async def failure_of(operation: Awaitable[object]) -> BusError:
    """Return the error that an operation raises at once, without a wait for the broker."""
    with pytest.raises(BusError) as caught:
        async with asyncio.timeout(1):
            await operation
    return caught.value


def in_other_loop(operation: Callable[[], Awaitable[object]]) -> Awaitable[BusError]:
    """Run an operation in an event loop of another thread, and return its error."""
    return asyncio.to_thread(lambda: asyncio.run(failure_of(operation())))


def answering() -> Router:
    router = Router("ledger")

    @router.request(GetTotal)
    async def total(request: GetTotal) -> Total:
        return Total(total=7)

    return router


@every_verb
async def test_a_bus_that_was_not_entered_says_so(verb: Verb) -> None:
    error = await failure_of(verb(ledger()))
    assert isinstance(error, Unavailable)
    assert str(error) == (
        "the bus of 'ledger' is not open. "
        "Enter it before you use it: `async with Bus('ledger') as bus:`."
    )


@every_verb
async def test_a_bus_that_was_closed_says_so(verb: Verb) -> None:
    async with ledger() as bus:
        pass
    assert not bus.ready
    error = await failure_of(verb(bus))
    assert isinstance(error, Unavailable)
    assert str(error) == (
        "the bus of 'ledger' was closed. "
        "Enter it again with `async with bus:`, or use it before its block ends."
    )


@every_verb
async def test_a_bus_of_another_event_loop_says_so(verb: Verb) -> None:
    async with ledger() as bus:
        error = await in_other_loop(lambda: verb(bus))
    assert isinstance(error, FailedPrecondition)
    assert str(error).startswith("the bus of 'ledger' belongs to another event loop. ")


@every_verb
async def test_a_bus_that_is_still_connecting_says_so(verb: Verb) -> None:
    broker = MemoryBroker()
    broker.stop()
    bus = Bus("ledger", settings=SETTINGS, transport=MemoryTransport(broker))
    entering = asyncio.create_task(bus.__aenter__())
    await asyncio.sleep(0)
    error = await failure_of(verb(bus))
    assert str(error).startswith("the bus of 'ledger' is still connecting. ")
    broker.start()
    await entering
    await bus.__aexit__(None, None, None)


async def test_a_bus_is_entered_again_after_it_was_closed() -> None:
    bus = ledger()
    names = set()
    for _ in range(3):
        async with bus, bus.serving(answering()):
            names.add(bus.instance)
            assert (await bus.request(GetTotal())).total == 7
    assert len(names) == 3, "each connection has its own reply queue"


def test_a_bus_is_entered_again_in_another_event_loop() -> None:
    """With its own model broker in each loop, because the timers of one belong to a loop."""
    bus = Bus("ledger", settings=SETTINGS, transport=MovingTransport())

    async def ask() -> int:
        async with bus, bus.serving(answering()):
            return (await bus.request(GetTotal())).total

    assert [asyncio.run(ask()), asyncio.run(ask())] == [7, 7]


class MovingTransport(MemoryTransport):
    """A transport whose broker is there in every event loop, as a real broker is."""

    def __init__(self) -> None:
        super().__init__(MemoryBroker())

    @override
    async def start(self, observer: ReturnListener, *, timeout: float) -> None:
        self._broker = MemoryBroker()
        await super().start(observer, timeout=timeout)


def test_a_bus_whose_event_loop_ended_before_it_was_closed_is_entered_again() -> None:
    bus = Bus("ledger", settings=SETTINGS, transport=MovingTransport())

    async def forget() -> None:
        await bus.__aenter__()

    async def ask() -> int:
        error = await failure_of(bus.publish(BooksClosed()))
        assert "was opened in an event loop that has ended" in str(error)
        async with bus, bus.serving(answering()):
            return (await bus.request(GetTotal())).total

    asyncio.run(forget())
    assert asyncio.run(ask()) == 7


def _publish_in_child(bus: Bus) -> None:
    try:
        # asyncio has no running event loop in this process.
        bus.publish(BooksClosed()).send(None)
    except FailedPrecondition as error:
        os._exit(0 if "the bus of 'ledger' was opened by a parent process. " in str(error) else 2)
    finally:
        os._exit(1)


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
async def test_a_forked_child_reads_that_the_bus_belongs_to_its_parent() -> None:
    async with ledger() as bus:
        process: Any = multiprocessing.get_context("fork").Process(
            target=_publish_in_child, args=(bus,)
        )
        process.start()
        await asyncio.to_thread(process.join, 30)
        assert process.exitcode == 0
        await bus.publish(BooksClosed())


def test_a_model_broker_says_that_it_belongs_to_another_event_loop() -> None:
    bus = ledger()

    async def enter() -> None:
        async with bus:
            pass

    asyncio.run(enter())
    with pytest.raises(FailedPrecondition, match="Create a MemoryBroker in each event loop"):
        asyncio.run(enter())


async def test_a_bus_that_is_open_is_not_entered_twice() -> None:
    bus = ledger()
    results = await asyncio.gather(bus.__aenter__(), bus.__aenter__(), return_exceptions=True)
    assert results[0] is bus
    assert isinstance(results[1], FailedPrecondition)
    assert "is still connecting, so it cannot be entered again now" in str(results[1])
    with pytest.raises(FailedPrecondition, match="is open, so it cannot be entered again now"):
        await bus.__aenter__()
    assert bus.ready, "the refused attempts did not disturb the open bus"
    await bus.__aexit__(None, None, None)
    await bus.__aexit__(None, None, None)  # a second exit changes nothing
    assert not bus.ready


async def test_a_bus_whose_start_failed_is_entered_again() -> None:
    broker = MemoryBroker()
    broker.stop()
    chosen = SETTINGS.model_copy(update={"connect_timeout": 0.05})
    bus = Bus("ledger", settings=chosen, transport=MemoryTransport(broker))
    with pytest.raises(Unavailable, match="accepted no connection"):
        await bus.__aenter__()
    broker.start()
    async with bus:
        assert bus.ready


async def test_a_bus_is_not_closed_in_another_event_loop() -> None:
    async with ledger() as bus:
        error = await in_other_loop(lambda: bus.__aexit__(None, None, None))
        assert "belongs to another event loop" in str(error)
        assert bus.ready


async def test_a_job_handle_of_another_event_loop_says_so_until_the_job_has_ended() -> None:
    router, release = Router("ledger"), asyncio.Event()

    @router.job(CloseBooks)
    async def close(job: CloseBooks) -> Total:
        await release.wait()
        return Total(total=1)

    async with ledger() as bus, bus.serving(router):
        handle = await bus.submit(CloseBooks())
        for read in (handle.result, lambda: anext(handle.updates())):
            error = await in_other_loop(read)
            assert isinstance(error, FailedPrecondition)
            subject = f"ledger.close.v1 (job {handle.id})"
            assert str(error).startswith(f"{subject} belongs to another event loop. ")
        release.set()
        assert (await handle.result(timeout=5)).total == 1
        assert (await asyncio.to_thread(asyncio.run, handle.result())).total == 1


async def test_a_job_handle_of_a_closed_bus_says_so() -> None:
    router = Router("ledger")

    @router.job(CloseBooks)
    async def close(job: CloseBooks) -> Total:
        return Total(total=1)

    async with ledger() as bus:
        async with bus.serving(router):
            pass  # the queue exists now, and no handler runs
        handle = await bus.submit(CloseBooks())
    for read in (handle.result(), anext(handle.updates())):
        error = await failure_of(read)
        assert isinstance(error, ConnectionLost)
        assert "the bus was closed before the result arrived" in str(error)


async def test_progress_from_another_event_loop_is_refused() -> None:
    router, errors = Router("ledger"), []

    @router.job(CloseBooks)
    async def close(job: CloseBooks, context: Context) -> Total:
        with ThreadPoolExecutor() as pool:
            running = pool.submit(lambda: asyncio.run(failure_of(context.progress(0.5))))
            errors.append(await asyncio.wrap_future(running))
        return Total(total=1)

    async with ledger() as bus, bus.serving(router):
        await (await bus.submit(CloseBooks())).result(timeout=5)
    assert str(errors[0]).startswith("the context of ledger.close.v1 belongs to another event loop")
