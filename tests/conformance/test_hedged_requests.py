"""Tests of hedged requests: two copies with one id, and a lost connection under both."""

import asyncio

from bus.runtime.bus import Bus
from bus.runtime.router import Router
from bus.settings import ServiceConfig
from tests.conformance.contracts import Look, Word
from tests.conformance.world import World, until
from tests.polling import BRIEF

AFTER = 0.05


class Workers:
    """Two processes of a service. The first one that gets a request is slow in this round."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str]] = []
        """Names of the workers, and ids of the requests that they handle."""
        self.released = asyncio.Event()

    def router(self, name: str) -> Router:
        router = Router("desk")

        @router.request(Look, concurrency=16)
        async def look(request: Look) -> Word:
            self.seen.append((name, request.text))
            if sum(text == request.text for _, text in self.seen) == 1:
                await self.released.wait()
            return Word(text=name)

        return router


async def system(world: World) -> tuple[Workers, Bus]:
    workers = Workers()
    for name in ("one", "two"):
        await world.serve(await world.bus("desk"), workers.router(name))
    config = ServiceConfig("desk", hedge_after=AFTER, retry_budget="off")
    return workers, await world.bus("client", services=[config])


def hedged(client: Bus) -> float:
    series = client.report.stats().series
    return sum(each.value for each in series if each.name == "calls.hedged")


async def test_the_second_copy_of_a_late_request_is_answered_by_the_other_worker(
    world: World,
) -> None:
    workers, client = await system(world)
    for number in range(5):
        reply = await client.request(Look(text=str(number)), timeout=30)
        (first, _), (second, _) = workers.seen[-2:]
        assert first != second
        assert reply == Word(text=second)
    assert hedged(client) == 5
    workers.released.set()
    replies = client._client.replies
    await until(lambda: replies.late == 5, "the late replies")
    assert not replies._calls
    assert (await client.request(Look(text="0"), timeout=30)).text in {"one", "two"}


async def test_a_request_whose_two_copies_lose_their_connection_is_answered_once(
    world: World,
) -> None:
    workers, client = await system(world)
    asking = asyncio.create_task(client.request(Look(text="a"), timeout=60))
    await until(lambda: workers.seen, "the first copy")
    await world.drop_connections(client)
    await until(lambda: not client.ready, "the loss to be noticed", poll=BRIEF)
    assert (await asking).text in {"one", "two"}
    assert not client._client.replies._calls
    workers.released.set()
