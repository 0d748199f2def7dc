"""The connection for the notifications of PostgreSQL."""

import asyncio

from bus.storage.sqlalchemy.notifications import NotifyingDatabase


def test_a_store_that_is_opened_again_in_another_event_loop_connects_again() -> None:
    connects: list[asyncio.AbstractEventLoop] = []

    async def connect() -> None:
        connects.append(asyncio.get_running_loop())
        await asyncio.get_running_loop().create_future()

    notifications = NotifyingDatabase(connect)
    for number in (1, 2):

        async def use() -> None:
            notifications.reset()
            assert not await notifications.wait("q", 0.01)

        asyncio.run(use())
        assert len(connects) == number
