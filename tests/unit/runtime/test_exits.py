"""A handler that calls `sys.exit` fails its message, and never ends its worker."""

import asyncio
import logging
import signal
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import pytest

from bus import Depends
from bus.contracts.retry_policy import RetryPolicy
from bus.errors import Internal
from bus.messaging.context import Context, current
from bus.runtime.exits import (
    ContainingFactory,
    NamedTask,
    TaskExit,
    is_for_handler,
    raises_interrupts,
)
from bus.runtime.router import Router
from bus.testing import MemoryBuses
from tests.polling import until
from tests.unit.fakes import envelope
from tests.unit.ledger import BooksClosed, CloseBooks, GetTotal, Total

SECRET = "Jane-Doe"
CLOSE = "ledger.jobs.close.v1"


async def leave() -> None:
    sys.exit(SECRET)


async def in_its_own_code() -> None:
    await leave()


async def without_text() -> None:
    sys.exit()


async def in_a_task() -> None:
    await asyncio.create_task(leave())


async def in_a_task_of_a_task() -> None:
    await asyncio.create_task(in_a_task())


async def in_a_task_group() -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(leave())
        group.create_task(asyncio.sleep(60))


async def in_a_gather() -> None:
    await asyncio.gather(leave(), asyncio.sleep(0))


async def in_a_thread() -> None:
    await asyncio.to_thread(sys.exit, SECRET)


async def in_a_task_that_waits_for_a_thread() -> None:
    await asyncio.create_task(in_a_thread())


async def at_its_cancellation() -> None:
    async def stubborn() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            sys.exit(SECRET)

    task = asyncio.create_task(stubborn())
    await asyncio.sleep(0)
    task.cancel()
    await task


async def by_generator_exit() -> None:
    raise GeneratorExit(SECRET)


WAYS = (
    in_its_own_code,
    without_text,
    in_a_task,
    in_a_task_of_a_task,
    in_a_task_group,
    in_a_gather,
    in_a_thread,
    in_a_task_that_waits_for_a_thread,
    at_its_cancellation,
    by_generator_exit,
)
every_way = pytest.mark.parametrize("leave", WAYS, ids=lambda way: way.__name__)


def ledger(leave: Callable[[], Awaitable[None]]) -> Router:
    """Return a router whose account `b` and whose job leave."""
    router = Router("ledger")

    @router.request(GetTotal)
    async def total(request: GetTotal) -> Total:
        if request.account == "b":
            await leave()
        return Total(total=1)

    @router.job(CloseBooks, retry=RetryPolicy(attempts=2, delays=(0.001,)))
    async def close(job: CloseBooks) -> Total:
        await leave()
        return Total(total=1)

    return router


@every_way
async def test_an_exit_in_a_handler_is_an_error_of_its_message(
    leave: Callable[[], Awaitable[None]], caplog: pytest.LogCaptureFixture
) -> None:
    async with MemoryBuses() as buses:
        desk, client = await buses.bus("ledger"), await buses.bus("client")
        await buses.serve(desk, ledger(leave))
        with pytest.raises(Internal) as caught:
            await client.request(GetTotal(account="b"), timeout=5)
        assert (await client.request(GetTotal(), timeout=5)).total == 1, "the worker goes on"
        assert desk.ready
    assert SECRET not in f"{caught.value} {getattr(caught.value, '__notes__', [])}"
    assert SECRET not in said(caplog)
    assert any(record.levelno == logging.ERROR for record in caplog.records)


async def test_an_exit_in_a_job_is_retried_and_then_dead_lettered() -> None:
    async with MemoryBuses() as buses:
        desk, client = await buses.bus("ledger"), await buses.bus("client")
        await buses.serve(desk, ledger(in_its_own_code))
        job = await client.submit(CloseBooks())
        with pytest.raises(Internal):
            await job.result(timeout=20)
        (dead,) = await desk.dead_letters(CLOSE)
    assert dead.envelope.attempt == 2
    assert SECRET not in str(dead)
    assert "SystemExit" in str(dead)


async def test_an_exit_in_a_dependency_is_an_error_of_its_message() -> None:
    async def open_pool() -> AsyncIterator[str]:
        yield "pool"
        sys.exit(SECRET)

    def plain() -> str:
        sys.exit(SECRET)

    for dependency in (open_pool, plain):
        router = Router("ledger")

        @router.request(GetTotal)
        async def total(request: GetTotal, pool: str = Depends(dependency)) -> Total:
            return Total(total=len(pool))

        async with MemoryBuses() as buses:
            desk, client = await buses.bus("ledger"), await buses.bus("client")
            await buses.serve(desk, router)
            with pytest.raises(Internal):
                await client.request(GetTotal(), timeout=5)
            assert desk.ready


async def test_a_task_that_outlives_its_handler_does_not_end_the_worker() -> None:
    tasks = []

    async def start() -> None:
        async def later() -> None:
            await asyncio.sleep(0.01)
            sys.exit(SECRET)

        tasks.append(asyncio.create_task(later()))

    async with MemoryBuses() as buses:
        desk, client = await buses.bus("ledger"), await buses.bus("client")
        await buses.serve(desk, ledger(start))
        await client.request(GetTotal(account="b"), timeout=5)
        await until(tasks[0].done, "the task to end")
        assert desk.ready
    error = tasks[0].exception()
    assert isinstance(error, TaskExit)
    assert str(error) == "a task of a handler raised SystemExit"
    assert error.__context__ is None
    assert error.__traceback__ is not None


def said(caplog: pytest.LogCaptureFixture) -> str:
    """Return everything that was logged, with its extra fields and tracebacks."""
    return " ".join(
        f"{record.__dict__} {caplog.handler.format(record)}" for record in caplog.records
    )


# --- The tasks of handlers ---


async def test_a_task_that_is_cancelled_before_its_start_leaves_no_warning() -> None:
    """pytest turns the warning of a coroutine that was never awaited into an error."""

    async def cancel() -> None:
        asyncio.create_task(leave()).cancel()
        await asyncio.sleep(0)

    async with MemoryBuses() as buses:
        desk, client = await buses.bus("ledger"), await buses.bus("client")
        await buses.serve(desk, ledger(cancel))
        assert (await client.request(GetTotal(account="b"), timeout=5)).total == 1


async def test_only_the_tasks_of_handlers_are_contained() -> None:
    kinds = {}

    async def look() -> None:
        task = asyncio.create_task(asyncio.sleep(0), name="mine")
        kinds["handler"] = type(task.get_coro()).__name__
        kinds["name"] = task.get_name()
        await task

    async with MemoryBuses() as buses:
        desk, client = await buses.bus("ledger"), await buses.bus("client")
        await buses.serve(desk, ledger(look))
        await client.request(GetTotal(account="b"), timeout=5)
        task = asyncio.create_task(asyncio.sleep(0))
        kinds["other"] = type(task.get_coro()).__name__
        await task
    assert kinds == {"handler": "ContainedCoroutine", "name": "mine", "other": "coroutine"}


async def test_the_task_factory_of_the_program_is_used_and_restored() -> None:
    loop, made, listening = asyncio.get_running_loop(), [], Router("client")

    @listening.event(BooksClosed)
    async def on_closed(event: BooksClosed) -> None:
        """Do nothing."""

    def factory(loop: asyncio.AbstractEventLoop, coro: object, **options: object) -> object:
        made.append(coro)
        return asyncio.Task(coro, loop=loop, **options)  # type: ignore[arg-type]

    loop.set_task_factory(factory)  # type: ignore[arg-type]
    try:
        async with MemoryBuses() as buses:
            desk, other = await buses.bus("ledger"), await buses.bus("client")
            await buses.serve(desk, ledger(leave))
            await buses.serve(other, listening)
            installed = loop.get_task_factory()
            assert isinstance(installed, ContainingFactory)
            assert installed.inner is factory, "two served routers share one factory"
            await asyncio.create_task(mine := asyncio.sleep(0))
            assert mine in made
        assert loop.get_task_factory() is factory
    finally:
        loop.set_task_factory(None)


def eager_factory(constructor: Callable[..., asyncio.Task[Any]]) -> Any:
    """Return a task factory such as `asyncio.eager_task_factory` of Python 3.12."""

    def factory(loop: asyncio.AbstractEventLoop, coro: Any, **options: Any) -> Any:
        return constructor(coro, loop=loop, **options)

    return factory


async def test_a_library_finds_the_eager_task_factory_of_the_program_and_its_constructor() -> None:
    loop, inner, kinds = asyncio.get_running_loop(), eager_factory(asyncio.Task), list[str]()

    async def construct_task() -> None:
        factory: Any = loop.get_task_factory()
        assert factory.__code__ is inner.__code__
        constructor = factory.__closure__[0].cell_contents  # as anyio does
        task = constructor(asyncio.sleep(0), loop=loop, name="mine")
        kinds.append(type(task.get_coro()).__name__)
        await task

    async def leave_later() -> None:
        await construct_task()

    loop.set_task_factory(inner)
    try:
        async with MemoryBuses() as buses:
            desk, client = await buses.bus("ledger"), await buses.bus("client")
            await buses.serve(desk, ledger(leave_later))
            await client.request(GetTotal(account="b"), timeout=5)
            await construct_task()
    finally:
        loop.set_task_factory(None)
    assert kinds == ["ContainedCoroutine", "coroutine"]


# --- Ctrl-C and closed coroutines ---


@contextmanager
def handling_sigint(handler: Callable[[int, FrameType | None], object]) -> Iterator[None]:
    before = signal.signal(signal.SIGINT, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def context() -> Context:
    return Context(envelope=envelope(), bus=None)  # type: ignore[arg-type]


def test_ctrl_c_is_never_an_error_of_a_message() -> None:
    with handling_sigint(signal.default_int_handler):
        assert raises_interrupts()
        assert not is_for_handler(KeyboardInterrupt(), context())


async def test_a_keyboard_interrupt_without_ctrl_c_is_an_error_of_its_message() -> None:
    """`bus run` handles SIGINT without `KeyboardInterrupt`, so a handler has raised it."""
    loop = asyncio.get_running_loop()
    before = signal.getsignal(signal.SIGINT)
    loop.add_signal_handler(signal.SIGINT, lambda: None)
    try:
        assert not raises_interrupts()
        assert is_for_handler(KeyboardInterrupt(), context())
    finally:
        loop.remove_signal_handler(signal.SIGINT)
        signal.signal(signal.SIGINT, before)


def test_ctrl_c_raises_nothing_in_another_thread() -> None:
    seen = []
    with handling_sigint(signal.default_int_handler):
        thread = threading.Thread(target=lambda: seen.append(raises_interrupts()))
        thread.start()
        thread.join()
    assert seen == [False]


async def test_a_coroutine_that_is_closed_does_not_become_a_result() -> None:
    message = context()
    assert not is_for_handler(GeneratorExit(), message), "closed outside of its context"
    token = current.set(message)
    assert is_for_handler(GeneratorExit(), message), "raised by code of the handler"
    current.reset(token)


async def test_a_task_without_a_name_keeps_its_default_name() -> None:
    task = NamedTask(asyncio.sleep(0))
    name = task.get_name()
    task.set_name(None)  # as the event loop of Python 3.13 does
    assert task.get_name() == name
    task.set_name("mine")
    assert task.get_name() == "mine"
    await task
