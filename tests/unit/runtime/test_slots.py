"""The slots of one endpoint, whose limit can change while messages run."""

import asyncio

import pytest

from bus.runtime.slots import Slots
from tests.unit.fakes import settle_down, virtual


def taken(slots: Slots, number: int) -> None:
    for _ in range(number):
        assert slots.try_acquire()


async def waiting(slots: Slots, number: int) -> list[asyncio.Task[bool]]:
    tasks = [asyncio.create_task(slots.acquire()) for _ in range(number)]
    await settle_down()
    return tasks


@virtual
async def test_a_lower_limit_takes_no_slot_from_a_running_message() -> None:
    slots = Slots(4)
    taken(slots, 4)
    slots.resize(2)
    assert (slots.used, slots.free, slots.try_acquire()) == (4, 0, False)
    slots.release()
    slots.release()
    assert (slots.used, slots.try_acquire()) == (2, False)
    slots.release()
    assert slots.try_acquire()


@virtual
async def test_a_slot_that_is_released_above_the_limit_is_given_to_no_waiting_message() -> None:
    slots = Slots(3)
    taken(slots, 3)
    (turn,) = await waiting(slots, 1)
    slots.resize(1)
    slots.release()
    slots.release()
    await settle_down()
    assert (turn.done(), slots.used) == (False, 1)
    slots.release()
    assert await turn
    assert slots.used == 1


@virtual
async def test_a_higher_limit_lets_the_messages_run_that_have_waited_longest() -> None:
    slots = Slots(1)
    taken(slots, 1)
    first, second, third = await waiting(slots, 3)
    slots.resize(3)
    await settle_down()
    assert (first.done(), second.done(), third.done(), slots.used) == (True, True, False, 3)
    slots.release()
    assert await third


@virtual
async def test_a_cancelled_wait_takes_no_slot() -> None:
    slots = Slots(1)
    taken(slots, 1)
    first, second = await waiting(slots, 2)
    first.cancel()
    slots.release()
    assert await second
    with pytest.raises(asyncio.CancelledError):
        await first
    slots.release()
    assert (slots.used, slots.free) == (0, 1)


@virtual
async def test_a_wait_that_is_cancelled_after_it_got_a_slot_returns_the_slot() -> None:
    slots = Slots(1)
    taken(slots, 1)
    (turn,) = await waiting(slots, 1)
    slots.release()
    turn.cancel()
    with pytest.raises(asyncio.CancelledError):
        await turn
    assert slots.free == 1


@virtual
async def test_slots_tell_since_when_one_is_free() -> None:
    now, since = 10.0, []
    slots = Slots(2, timer=lambda: now)
    taken(slots, 2)
    since.append(slots.free_since)
    slots.release()
    now = 12.0
    slots.release()
    since.append(slots.free_since)
    taken(slots, 2)
    now = 15.0
    slots.resize(3)
    since.append(slots.free_since)
    slots.resize(2)
    since.append(slots.free_since)
    assert since == [None, 10.0, 15.0, None]
