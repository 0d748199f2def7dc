"""Pauses of consumers by operators, on a real RabbitMQ."""

import asyncio
from collections import Counter

from pydantic import SecretStr

from bus import Bus, Context, Event, Router, Settings, contract
from bus.messaging.control import Target
from bus.messaging.orders import PauseConsumers, ResumeConsumers
from tests.polling import until

COUNT = 300


@contract("quarry.blasted", version=1)
class Blasted(Event):
    number: int


async def test_pauses_under_load_lose_no_event_and_no_message_is_handled_twice(
    vhost_url: str, patience: None
) -> None:
    settings = Settings(auth="off", url=SecretStr(vhost_url))
    handled: Counter[int] = Counter()
    router = Router("rail")

    @router.event(Blasted, concurrency=5)
    async def load(event: Blasted, _: Context) -> None:
        await asyncio.sleep(0.005)
        handled[event.number] += 1

    async with (
        Bus("rail", settings=settings) as rail,
        Bus("quarry", settings=settings) as quarry,
        rail.serving(router),
    ):

        async def order(kind: type[PauseConsumers] | type[ResumeConsumers]) -> None:
            until_ = int((quarry._clock() + 600) * 1000)
            asked = kind(reason="the track is blocked", operator="ida", until=until_)
            answers = await quarry.discovery.ask(asked, Target("rail"), window=20, expected=1)
            assert [each.record.outcome for each in answers] == ["applied"]

        publishing = asyncio.gather(*(quarry.publish(Blasted(number=n)) for n in range(COUNT)))
        for _ in range(3):
            await order(PauseConsumers)
            await until(lambda: not rail.report.stats().handlers[0].in_flight, "an idle consumer")
            assert (rail.ready, rail.report.pauses) == (True, frozenset({"operator"}))
            await order(ResumeConsumers)
        await publishing
        await until(lambda: len(handled) == COUNT, "all events")
    assert set(handled.values()) == {1}
