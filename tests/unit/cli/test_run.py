import asyncio
import signal

import pytest

from bus.cli import run
from bus.cli.run import signals


async def test_a_second_signal_in_the_same_moment_ends_the_stop_that_the_first_began() -> None:
    stop, steps = asyncio.Event(), list[str]()

    async def serve() -> None:
        await stop.wait()
        steps.append("stopping")
        await asyncio.Event().wait()

    serving = asyncio.ensure_future(serve())
    with signals(stop, serving) as received:
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)
        await asyncio.wait([serving], timeout=5)

    assert serving.cancelled()
    assert steps == ["stopping"]
    assert received == [signal.SIGTERM, signal.SIGINT]


async def test_a_second_signal_ends_even_a_stop_that_begins_by_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(run, "CANCEL_AGAIN_SECONDS", 0.01)
    stop, steps = asyncio.Event(), list[str]()

    async def serve() -> None:
        try:
            await asyncio.Event().wait()  # the start does not check `stop`
        finally:
            steps.append("draining")
            await asyncio.Event().wait()

    serving = asyncio.ensure_future(serve())
    with signals(stop, serving):
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)
        await asyncio.wait([serving], timeout=5)

    assert serving.cancelled()
    assert steps == ["draining"]


async def test_one_signal_lets_the_stop_take_its_time() -> None:
    stop, go_on = asyncio.Event(), asyncio.Event()

    async def serve() -> None:
        await stop.wait()
        await go_on.wait()

    serving = asyncio.ensure_future(serve())
    with signals(stop, serving):
        signal.raise_signal(signal.SIGINT)
        await asyncio.wait_for(stop.wait(), 5)
        go_on.set()
        await asyncio.wait_for(serving, 5)
