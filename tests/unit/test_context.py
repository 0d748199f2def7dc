import asyncio

import pytest

from bus.context import Context, correlated, correlation, current, handling
from bus.envelope import Progress
from tests.unit.fakes import NoSender, envelope, virtual


def context(deadline: int | None = None) -> Context:
    return Context(envelope=envelope(), bus=NoSender(), deadline=deadline)


def test_handling_nests_and_ends() -> None:
    outer, inner = context(), context()
    with handling(outer):
        with handling(inner):
            assert current.get() is inner
        assert current.get() is outer
    assert current.get() is None


def test_handling_ends_where_the_handler_fails() -> None:
    with pytest.raises(ValueError, match="no"), handling(context()):
        raise ValueError("no")
    assert current.get() is None


def test_correlated_nests_and_ends() -> None:
    with correlated("a") as given:
        with correlated("b"):
            assert correlation.get() == "b"
        assert (given, correlation.get()) == ("a", "a")
    assert correlation.get() is None


@virtual
async def test_a_task_that_outlives_the_handling_keeps_its_cause_and_not_its_deadline() -> None:
    go, seen = asyncio.Event(), []

    async def background() -> None:
        await go.wait()
        seen.append(current.get())

    with handling(context(deadline=5)) as mine:
        task = asyncio.create_task(background())
        assert mine.deadline == 5
    go.set()
    await task
    assert seen == [mine]
    assert mine.deadline is None


@virtual
async def test_progress_goes_to_whoever_listens() -> None:
    heard: list[Progress] = []

    async def report(progress: Progress) -> None:
        heard.append(progress)

    await Context(envelope=envelope(), bus=NoSender()).progress(0.1)
    await Context(envelope=envelope(), bus=NoSender(), report=report).progress(0.4, "decoding")
    assert heard == [Progress(progress=0.4, note="decoding")]
