"""The interface of the conformance tests: transports, buses, faults and inspection.

It has the same meaning on every broker.
"""

import asyncio
import inspect
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from bus.errors import BusError
from bus.messaging.envelope import Envelope, new_id
from bus.messaging.ports.transport import ConsumerHandle, Delivery, PublishOutcome, Transport
from bus.messaging.topology.addresses import Address
from bus.messaging.topology.consumer_spec import ConsumerSpec
from bus.messaging.topology.model import Binding, Queue, Topology
from bus.runtime.bus import Bus
from bus.runtime.router import Router
from bus.settings import Settings
from bus.transports.wire_format import AmqpMessage

PATIENCE = 40.0
"""Seconds to wait for a condition on the loop's clock.

It takes a fraction of a second, or several seconds on a loaded machine.
"""
POLL = 0.02
"""Seconds between two checks of a condition, or a thousandth of the timeout if that is longer."""


async def until(
    condition: Callable[[], object | Awaitable[object]],
    what: str,
    seconds: float = PATIENCE,
    *,
    poll: float | None = None,
) -> None:
    """Wait until `condition()` is true, and fail with `what` after `seconds`.

    All waits of the conformance tests use this function. The condition is checked every `poll`
    seconds, by default every thousandth part of `seconds`.
    """
    loop = asyncio.get_running_loop()
    ends = loop.time() + seconds
    while not await _value(condition()):
        assert loop.time() < ends, f"waited {seconds:g} s in vain for {what}"
        await asyncio.sleep(max(POLL, seconds / 1000) if poll is None else poll)


async def _value(result: object) -> object:
    return await result if inspect.isawaitable(result) else result


async def stays(condition: Callable[[], object], what: str, seconds: float = 0.3) -> None:
    """Fail if `condition()` is not true for the whole of `seconds`."""
    loop = asyncio.get_running_loop()
    ends = loop.time() + seconds
    while loop.time() < ends:
        assert condition(), f"it did not stay so: {what}"
        await asyncio.sleep(POLL)


@dataclass
class Ear:
    """An observer that records its calls."""

    returns: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    losses: int = 0

    def on_return(self, message_id: str, reason: str) -> None:
        assert reason
        self.returns.append(message_id)

    def on_publish_failed(self, message_id: str, error: BusError) -> None:
        assert str(error)
        self.failures.append(message_id)

    def on_connection_lost(self) -> None:
        self.losses += 1


@dataclass(eq=False)
class Side:
    """A started transport of the world, and its observer."""

    transport: Transport
    ear: Ear

    async def send(
        self,
        envelope: Envelope,
        address: Address,
        *,
        timeout: float = 30,
        via: Delivery | None = None,
    ) -> PublishOutcome:
        return await self.transport.send(envelope, address, timeout=timeout, via=via)

    async def consume(
        self, queue: Queue, topology: Topology, *, prefetch: int = 0, acks: bool = True
    ) -> "Inbox":
        """Start a consumer, and return the inbox for its deliveries when it is ready."""
        inbox = Inbox()
        spec = ConsumerSpec(queue=queue, topology=topology, prefetch=prefetch, acks=acks)
        inbox.consumption = await self.transport.consume(spec, inbox.take)
        await until(lambda: inbox.consumption.ready, f"a consumer of {queue.name}")
        return inbox


class Inbox:
    """The deliveries of a consumer, in the order of their arrival."""

    consumption: ConsumerHandle

    def __init__(self) -> None:
        self.deliveries: list[Delivery] = []

    def take(self, delivery: Delivery) -> None:
        self.deliveries.append(delivery)

    @property
    def ids(self) -> list[str]:
        return [delivery.envelope.id for delivery in self.deliveries]

    async def holds(self, count: int, seconds: float = PATIENCE) -> list[Delivery]:
        """Wait for `count` deliveries, and return them. Fail if there are more."""
        await until(
            lambda: len(self.deliveries) >= count,
            f"{count} deliveries, and there are {len(self.deliveries)}",
            seconds,
        )
        assert len(self.deliveries) == count, self.ids
        return self.deliveries

    async def next(self, seconds: float = PATIENCE) -> Delivery:
        """Wait for a delivery, remove the oldest one, and return it."""
        await until(lambda: self.deliveries, "a delivery", seconds)
        return self.deliveries.pop(0)


def message(id_: str | None = None, **attributes: Any) -> Envelope:
    """Return a message without a contract, because the port moves any message."""
    defaults = {
        "id": id_ or new_id(),
        "type": "desk.note.v1",
        "role": "job",
        "source": "desk",
        "body": b"{}",
    }
    return Envelope(**(defaults | attributes))


class World(ABC):
    """A broker that belongs to one test."""

    virtual: bool
    """True if the world has virtual time, in which an hour takes no real time."""
    unkept: Mapping[str, str] = MappingProxyType({})
    """Promises that the transport does not keep: the names of their tests, and the reasons."""

    in_real_time: Mapping[str, str] = MappingProxyType({})
    """Tests that run in real time in a world with virtual time, and the reasons."""

    def __init__(self) -> None:
        self.closing = AsyncExitStack()
        self.jumps = True

    @abstractmethod
    def clock(self) -> float:
        """Return the seconds since the epoch on the clock of this world."""

    @abstractmethod
    async def begin(self) -> None:
        """Prepare the world. It is called once, in the test's loop."""

    @abstractmethod
    async def new_transport(self, name: str, settings: Settings) -> Transport:
        """Return a transport that is not started, with its own connection to the broker."""

    async def connect(self, name: str = "desk") -> Side:
        """Start a transport, which is closed when the test ends."""
        side = Side(await self.new_transport(name, Settings()), Ear())
        await side.transport.start(side.ear, timeout=30)
        self.closing.push_async_callback(side.transport.close)
        return side

    async def bus(self, service: str, **settings: Any) -> Bus:
        """Connect a bus, which is closed when the test ends."""
        chosen = Settings(**settings)
        bus = Bus(
            service,
            settings=chosen,
            transport=await self.new_transport(service, chosen),
            clock=self.clock,
        )
        return await self.closing.enter_async_context(bus)

    async def serve(self, bus: Bus, router: Router) -> None:
        """Serve a router until the test ends."""
        await self.closing.enter_async_context(bus.serving(router))

    # --- Faults ---

    @abstractmethod
    async def drop_connections(self, of: Side | Bus | None = None) -> None:
        """Reset the connections of one client, or of all. They reconnect by themselves."""

    @abstractmethod
    async def stop_broker(self) -> None:
        """Reset all connections, and refuse new ones."""

    @abstractmethod
    async def start_broker(self) -> None:
        """Accept connections again."""

    @abstractmethod
    async def lose_confirms(self, of: Side) -> None:
        """Lose the broker's confirm for the next message of a client.

        The broker accepts the message. The client must have sent one before, so that its channel is
        open.
        """

    @abstractmethod
    async def block(self) -> None:
        """Raise an alarm, during which the broker accepts no publishes."""

    @abstractmethod
    async def unblock(self) -> None:
        """Clear the alarm."""

    @abstractmethod
    async def delete_queue(self, name: str) -> None:
        """Delete a queue with its messages."""

    @abstractmethod
    async def unbind(self, binding: Binding) -> None:
        """Remove a binding."""

    @abstractmethod
    async def limit(self, queue: str, length: int | None) -> None:
        """Set a policy with which a queue refuses more than about `length` messages.

        None removes the policy.
        """

    # --- Inspection ---

    @abstractmethod
    async def exists(self, queue: str) -> bool:
        """Return True if a queue exists. The check may count as a use of the queue."""

    @abstractmethod
    async def depth(self, queue: str) -> int:
        """Return the number of ready messages in a queue."""

    @abstractmethod
    async def consumers(self, queue: str) -> int:
        """Return the number of consumers that are registered at a queue.

        RabbitMQ counts a cancelled consumer of a quorum queue until it has acked all deliveries.
        """

    @abstractmethod
    async def peek(self, queue: str) -> Sequence[AmqpMessage]:
        """Return the ready messages of a queue, and leave them there."""

    @abstractmethod
    async def put(self, wire: AmqpMessage, address: Address) -> None:
        """Publish exactly this message, as any other client could."""

    async def holds(
        self, queue: str, count: int, seconds: float = PATIENCE
    ) -> Sequence[AmqpMessage]:
        """Wait until a queue has `count` messages, and return them."""

        async def reached() -> bool:
            return await self.depth(queue) == count

        await until(reached, f"{count} messages in {queue}", seconds)
        return await self.peek(queue)
