import asyncio

import pytest

from bus.messaging.timers import SharedTimer, TimeoutScope, TimerExpired, format_seconds
from tests.unit.fakes import virtual


@virtual
async def test_each_expires_once_in_its_time() -> None:
    loop, expired = asyncio.get_running_loop(), list[tuple[str, float]]()
    deadlines = SharedTimer()
    start = loop.time()
    for name, after in {"b": 2.0, "a": 1.0, "now": 0.0}.items():

        def expire(name: str = name) -> None:
            expired.append((name, loop.time() - start))

        deadlines.add(loop, name, start + after, expire)
    await asyncio.sleep(5)
    assert [name for name, _ in expired] == ["now", "a", "b"]
    assert all(
        after <= at <= after + 0.05 for (_, at), after in zip(expired, (0, 1, 2), strict=True)
    )
    assert not deadlines


@virtual
async def test_what_was_met_does_not_expire() -> None:
    deadlines, expired = SharedTimer(), list[str]()
    loop = asyncio.get_running_loop()
    deadlines.add(loop, "met", loop.time() + 1, lambda: expired.append("met"))
    deadlines.discard(loop, "met")
    deadlines.discard(loop, "never added")
    await asyncio.sleep(2)
    assert not expired


@virtual
async def test_one_that_is_added_after_all_were_met_expires_too() -> None:
    loop, deadlines, expired = asyncio.get_running_loop(), SharedTimer(), list[str]()
    deadlines.add(loop, "first", loop.time(), lambda: expired.append("first"))
    await asyncio.sleep(1)
    deadlines.add(loop, "second", loop.time() + 1, lambda: expired.append("second"))
    await asyncio.sleep(2)
    assert expired == ["first", "second"]


@virtual
async def test_what_expires_may_end_or_start_others() -> None:
    loop, deadlines, expired = asyncio.get_running_loop(), SharedTimer(), list[str]()

    def first() -> None:
        deadlines.discard(loop, "second")
        deadlines.add(loop, "third", loop.time(), lambda: expired.append("third"))
        expired.append("first")

    deadlines.add(loop, "first", loop.time() + 1, first)
    deadlines.add(loop, "second", loop.time() + 2, lambda: expired.append("second"))
    await asyncio.sleep(4)
    assert expired == ["first", "third"]


@virtual
async def test_without_any_there_is_no_timer() -> None:
    loop, deadlines = asyncio.get_running_loop(), SharedTimer()
    deadlines.add(loop, "met", loop.time() + 1, lambda: None)
    deadlines.discard(loop, "met")
    await asyncio.sleep(1)
    assert not loop._scheduled  # type: ignore[attr-defined]  # what asyncio would wake for


@virtual
async def test_one_that_raises_takes_no_other_with_it() -> None:
    loop, deadlines, expired = asyncio.get_running_loop(), SharedTimer(), list[str]()
    loop.set_exception_handler(lambda *_: None)
    deadlines.add(loop, "bad", loop.time() + 1, lambda: 1 / 0)
    deadlines.add(loop, "good", loop.time() + 2, lambda: expired.append("good"))
    await asyncio.sleep(3)
    assert expired == ["good"]


@virtual
async def test_work_in_time_returns_and_work_that_takes_longer_is_cancelled() -> None:
    deadlines = SharedTimer()
    with deadlines.limit(1):
        await asyncio.sleep(0.5)
    with pytest.raises(TimerExpired), deadlines.limit(1):
        await asyncio.sleep(5)
    task = asyncio.current_task()
    assert task is not None
    assert not task.cancelling()
    assert not deadlines


@virtual
async def test_who_cancels_from_outside_is_obeyed_whether_or_not_the_time_is_up_too() -> None:
    loop, deadlines = asyncio.get_running_loop(), SharedTimer()

    async def work(limit: TimeoutScope) -> None:
        with limit:
            await asyncio.sleep(20)

    for time_is_up in (False, True):
        limit = deadlines.limit(10)
        task = loop.create_task(work(limit))
        loop.call_later(1, task.cancel)
        if time_is_up:
            loop.call_later(1, limit._expire)
        with pytest.raises(asyncio.CancelledError):
            await task
    assert not deadlines


def test_loops_that_came_one_after_the_other_leave_nothing_behind() -> None:
    deadlines = SharedTimer()

    async def begun() -> None:
        loop = asyncio.get_running_loop()
        deadlines.add(loop, "never looked at", loop.time() + 100, lambda: None)

    for _ in range(3):
        asyncio.run(begun())
    assert len(deadlines) == 1


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(2, "2 s"), (0.9994, "1 s"), (1.25, "1.25 s"), (0.0012, "0.0012 s"), (2_678_400, "2678400 s")],
)
def test_a_duration_in_a_text_is_short_and_has_no_exponent(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text
