"""Fixtures that run each test of this package once per world, whose name is in the test's id."""

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


# A new transport needs one line.
WORLDS: Mapping[str, Make] = {
    "memory": lambda _: MemoryWorld(),
    "rabbitmq": _on_rabbitmq(RabbitMQWorld),
    "rabbitmq-plain": _on_rabbitmq(PlainRabbitMQWorld),
    "faststream": _on_rabbitmq(FastStreamWorld),
}
CLOSE_TIMEOUT = 60.0
"""Seconds to close everything that a test left open."""


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Return a loop that runs in real time until a world switches it to virtual time."""
    return {"virtual": VirtualLoop}


@pytest.fixture(
    params=[
        pytest.param(name, marks=[] if name == "memory" else pytest.mark.broker) for name in WORLDS
    ]
)
def new_world(request: pytest.FixtureRequest) -> World:
    """Create a world.

    The fixture is not asynchronous, because it may start a broker. It requests other fixtures by
    name, so that the world in memory needs none of them.
    """
    world = WORLDS[request.param](request)
    if request.node.originalname in world.unkept:
        pytest.skip(world.unkept[request.node.originalname])
    world.jumps = request.node.originalname not in world.in_real_time
    return world


@pytest.fixture
async def world(new_world: World) -> AsyncIterator[World]:
    await new_world.begin()
    yield new_world
    async with asyncio.timeout(CLOSE_TIMEOUT):
        await new_world.closing.aclose()


@pytest.fixture
async def virtual_world() -> AsyncIterator[MemoryWorld]:
    """Yield a world in memory, for tests that would take minutes of real time."""
    world = MemoryWorld()
    await world.begin()
    yield world
    async with asyncio.timeout(CLOSE_TIMEOUT):
        await world.closing.aclose()
