"""Every test here runs once in each world; its id says in which."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping

import pytest

from bus.transports.memory import VirtualLoop
from tests.conformance.faststream_world import FastStreamWorld
from tests.conformance.memory_world import MemoryWorld
from tests.conformance.rabbitmq_world import PlainRabbitMQWorld, RabbitMQWorld
from tests.conformance.world import World

Make = Callable[[pytest.FixtureRequest], World]


def _on_rabbitmq(kind: type[RabbitMQWorld]) -> Make:
    return lambda request: kind(
        request.getfixturevalue("shared_broker"), request.getfixturevalue("vhost_url")
    )


# One line a transport.
WORLDS: Mapping[str, Make] = {
    "memory": lambda _: MemoryWorld(),
    "rabbitmq": _on_rabbitmq(RabbitMQWorld),
    "rabbitmq-plain": _on_rabbitmq(PlainRabbitMQWorld),
    "faststream": _on_rabbitmq(FastStreamWorld),
}
CLOSE_TIMEOUT = 60.0  # seconds; everything a test leaves open closes within this


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """A loop whose time is real until a world makes it jump."""
    return {"virtual": VirtualLoop}


@pytest.fixture(
    params=[
        pytest.param(name, marks=[] if name == "memory" else pytest.mark.broker) for name in WORLDS
    ]
)
def made(request: pytest.FixtureRequest) -> World:
    """Not asynchronous: it may start a broker, and asks for fixtures by name, so that memory needs none."""
    world = WORLDS[request.param](request)
    if request.node.originalname in world.unkept:
        pytest.skip(world.unkept[request.node.originalname])
    world.jumps = request.node.originalname not in world.in_real_time
    return world


@pytest.fixture
async def world(made: World) -> AsyncIterator[World]:
    await made.begin()
    yield made
    async with asyncio.timeout(CLOSE_TIMEOUT):
        await made.closing.aclose()


@pytest.fixture
async def virtual_world() -> AsyncIterator[MemoryWorld]:
    """For what would take minutes of real time."""
    world = MemoryWorld()
    await world.begin()
    yield world
    async with asyncio.timeout(CLOSE_TIMEOUT):
        await world.closing.aclose()
