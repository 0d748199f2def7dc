import asyncio

import pytest

from bus.runtime.jobs.job_polls import AFTER_PUSHES, JobPolls, PollSchedule
from tests.polling import until


async def never() -> None:
    raise AssertionError("no question is due")


async def test_a_reader_waits_for_a_pushed_update_without_a_task_of_its_own() -> None:
    changed = asyncio.Event()
    others = asyncio.all_tasks()
    reader = asyncio.create_task(JobPolls(never, AFTER_PUSHES).wait(changed))
    await asyncio.sleep(0)
    assert asyncio.all_tasks() - others == {reader}
    changed.set()
    await reader


async def test_a_reader_asks_if_no_update_is_pushed_in_time() -> None:
    changed, questions = asyncio.Event(), list[str]()

    async def look() -> None:
        questions.append("asked")

    schedule = PollSchedule(first=0.01, longest=60, needs_answers=False)
    reader = asyncio.create_task(JobPolls(look, schedule).wait(changed))
    await until(lambda: questions == ["asked"], "the first question")
    assert not reader.done()
    changed.set()
    await reader


async def test_a_reader_that_is_cancelled_before_the_first_question_ends() -> None:
    reader = asyncio.create_task(JobPolls(never, AFTER_PUSHES).wait(asyncio.Event()))
    await asyncio.sleep(0)
    reader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reader
