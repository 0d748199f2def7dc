"""A chain of services with one deadline: each of them stops at the deadline on RabbitMQ."""

import asyncio
import time

import pytest
from pydantic import SecretStr

from bus import (
    Bus,
    Context,
    DeadlineExceeded,
    Message,
    Request,
    Router,
    ServiceConfig,
    Settings,
    contract,
)
from tests.polling import until
from tests.stolen_time import TICK, StolenTime

DEADLINE_SECONDS = 2.0
ALLOWED_SECONDS = 0.1
"""Seconds after the deadline in which all services return, without the time of other programs."""
CHAIN = ("chain-front", "chain-middle", "chain-back")


class Done(Message):
    pass


@contract("chain-front.run", version=1, idempotent=True)
class RunFront(Request[Done]):
    pass


@contract("chain-middle.run", version=1, idempotent=True)
class RunMiddle(Request[Done]):
    pass


@contract("chain-back.run", version=1, idempotent=True)
class RunBack(Request[Done]):
    pass


class Work:
    """The runs of all handlers, with their ends in seconds since the call."""

    def __init__(self) -> None:
        self.began = time.perf_counter()
        self.running = 0
        self.ends: list[float] = []

    def __enter__(self) -> None:
        self.running += 1

    def __exit__(self, *_: object) -> None:
        self.running -= 1
        self.ends.append(self.elapsed())

    def elapsed(self) -> float:
        return time.perf_counter() - self.began


def chain(work: Work) -> list[Router]:
    """Return the routers of the chain. The handler of the last one hangs."""
    front, middle, back = map(Router, CHAIN)

    @front.request(RunFront)
    async def run_front(_request: RunFront, context: Context) -> Done:
        with work:
            return await context.bus.request(RunMiddle())

    @middle.request(RunMiddle)
    async def run_middle(_request: RunMiddle, context: Context) -> Done:
        with work:
            return await context.bus.request(RunBack())

    @back.request(RunBack)
    async def run_back(_request: RunBack) -> Done:
        with work:
            await asyncio.Event().wait()
        return Done()

    return [front, middle, back]


@pytest.mark.parametrize(
    ("attempt_timeout", "runs"), [(None, 3), (0.6, 4)], ids=["one attempt", "attempts"]
)
async def test_all_services_of_a_chain_return_at_its_deadline_and_none_works_on(
    vhost_url: str, attempt_timeout: float | None, runs: int
) -> None:
    settings = Settings(
        url=SecretStr(vhost_url),
        stop_grace=0,
        services=[ServiceConfig("chain-back", attempt_timeout=attempt_timeout)],
    )
    work = Work()
    async with (
        StolenTime() as stolen,
        Bus("chain-caller", settings=settings) as caller,
        Bus(CHAIN[0], settings=settings) as front,
        Bus(CHAIN[1], settings=settings) as middle,
        Bus(CHAIN[2], settings=settings) as back,
        front.serving(chain(work)[0]),
        middle.serving(chain(work)[1]),
        back.serving(chain(work)[2]),
    ):
        work.began = time.perf_counter()
        with pytest.raises(DeadlineExceeded):
            await caller.request(RunFront(), timeout=DEADLINE_SECONDS)
        returned = work.elapsed()
        await until(lambda: not work.running, "the end of all handlers")
        await asyncio.sleep(2 * TICK)  # the last look at the stolen time
        nearly = work.began + DEADLINE_SECONDS - ALLOWED_SECONDS
        late = stolen.between(nearly, work.began + max(returned, *work.ends))
        assert returned <= DEADLINE_SECONDS + ALLOWED_SECONDS + late
        assert max(work.ends) <= DEADLINE_SECONDS + ALLOWED_SECONDS + late, work.ends
        assert len(work.ends) >= runs
