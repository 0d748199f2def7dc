import asyncio
from math import inf, nan

import pytest

from bus.errors import InvalidArgument
from bus.messaging.context import Context, correlated, correlation, current, handling
from bus.messaging.envelope import MAX_TEXT_LENGTH, Progress
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


@pytest.mark.parametrize(
    "text", ["x" * (MAX_TEXT_LENGTH + 1), "\ud800"], ids=["too long", "no text"]
)
def test_a_correlation_id_that_no_receiver_takes_is_refused_before_anything_is_sent_with_it(
    text: str,
) -> None:
    """Without this check a job was confirmed, and then dead-lettered for its header.

    Such an id may come from the caller of an HTTP API.
    """
    with (
        pytest.raises(
            InvalidArgument, match="correlation id is not valid Unicode of at most 1024 characters"
        ),
        correlated(text),
    ):
        pass
    with correlated("x" * MAX_TEXT_LENGTH):
        pass


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


@virtual
async def test_progress_of_a_handler_is_sent_inside_its_bounds() -> None:
    heard: list[Progress] = []

    async def report(progress: Progress) -> None:
        heard.append(progress)

    context = Context(envelope=envelope(), bus=NoSender(), report=report)
    for value in (5, -1, nan, inf):
        await context.progress(value, "n" * 5000)
    assert [each.progress for each in heard] == [1, 0]
    assert {len(each.note) for each in heard} == {MAX_TEXT_LENGTH}
