"""What a conformance test sees: transports, buses, faults and inspection, with one meaning on every broker."""

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
from bus.messaging.topology.model import Binding, Queue, Topology
from bus.runtime.bus import Bus
from bus.runtime.router import Router
from bus.settings import Settings
from bus.transports.wire_format import AmqpMessage

PATIENCE = 40.0  # seconds on the loop's clock; what is waited for takes a fraction of one, and a loaded machine may take several
POLL = 0.02  # seconds between two looks; a thousandth of the patience where that is more


async def until(
    condition: Callable[[], object | Awaitable[object]], what: str, seconds: float = PATIENCE
) -> None:
    """Return once `condition()` is true; fail, naming what was waited for, when it has not become so. The only place that waits."""
    loop = asyncio.get_running_loop()
    ends = loop.time() + seconds
    while not await _value(condition()):
        assert loop.time() < ends, f"waited {seconds:g} s in vain for {what}"
        await asyncio.sleep(max(POLL, seconds / 1000))


async def _value(result: object) -> object:
    return await result if inspect.isawaitable(result) else result


async def stays(condition: Callable[[], object], what: str, seconds: float = 0.3) -> None:
    """Fail where `condition()` is not true all the time for `seconds`."""
    loop = asyncio.get_running_loop()
    ends = loop.time() + seconds
    while loop.time() < ends:
        assert condition(), f"it did not stay so: {what}"
        await asyncio.sleep(POLL)


@dataclass
class Ear:
    """An observer that remembers what it heard."""

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
    """One transport of the world, started, and what it heard."""

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
        """A consumer that is ready; what it gets piles up in its inbox."""
        inbox = Inbox()
        inbox.consumption = await self.transport.consume(
            queue, topology, prefetch=prefetch, on_delivery=inbox.take, acks=acks
        )
        await until(lambda: inbox.consumption.ready, f"a consumer of {queue.name}")
        return inbox


class Inbox:
    """Deliveries in the order in which they came."""

    consumption: ConsumerHandle

    def __init__(self) -> None:
        self.deliveries: list[Delivery] = []

    def take(self, delivery: Delivery) -> None:
        self.deliveries.append(delivery)

    @property
    def ids(self) -> list[str]:
        return [delivery.envelope.id for delivery in self.deliveries]

    async def holds(self, count: int, seconds: float = PATIENCE) -> list[Delivery]:
        """The deliveries, once there are `count`; more are a failure."""
        await until(
            lambda: len(self.deliveries) >= count,
            f"{count} deliveries, and there are {len(self.deliveries)}",
            seconds,
        )
        assert len(self.deliveries) == count, self.ids
        return self.deliveries

    async def next(self, seconds: float = PATIENCE) -> Delivery:
        """The oldest delivery that was not yet taken from here."""
        await until(lambda: self.deliveries, "a delivery", seconds)
        return self.deliveries.pop(0)


def message(id_: str | None = None, **attributes: Any) -> Envelope:
    """A message of no contract: the port moves any."""
    defaults = {
        "id": id_ or new_id(),
        "type": "desk.note.v1",
        "role": "job",
        "source": "desk",
        "body": b"{}",
    }
    return Envelope(**(defaults | attributes))


class World(ABC):
    """A broker of this test's own."""

    virtual: bool
    """Whether its time jumps, so that an hour costs nothing."""
    unkept: Mapping[str, str] = MappingProxyType({})
    """Promises that its transport does not keep: the test's name, and why. The fewer the better."""

    in_real_time: Mapping[str, str] = MappingProxyType({})
    """Tests for which its time does not jump, and why."""

    def __init__(self) -> None:
        self.closing = AsyncExitStack()
        self.jumps = True

    @abstractmethod
    def clock(self) -> float:
        """Seconds since the epoch, as everybody in this world has it."""

    @abstractmethod
    async def begin(self) -> None:
        """Called once, inside the test's loop."""

    @abstractmethod
    async def new_transport(self, name: str, settings: Settings) -> Transport:
        """A transport that is not started, with a way of its own to the broker."""

    async def connect(self, name: str = "desk") -> Side:
        """A transport that is started, and closed when the test ends."""
        side = Side(await self.new_transport(name, Settings()), Ear())
        await side.transport.start(side.ear, timeout=30)
        self.closing.push_async_callback(side.transport.close)
        return side

    async def bus(self, service: str, **settings: Any) -> Bus:
        """A bus that is connected, and closed when the test ends."""
        chosen = Settings(**settings)
        bus = Bus(
            service,
            settings=chosen,
            transport=await self.new_transport(service, chosen),
            clock=self.clock,
        )
        return await self.closing.enter_async_context(bus)

    async def serve(self, bus: Bus, router: Router) -> None:
        """Serve until the test ends."""
        await self.closing.enter_async_context(bus.serving(router))

    # --- faults ----------------------------------------------------------------------------------------------------

    @abstractmethod
    async def drop_connections(self, of: Side | Bus | None = None) -> None:
        """Cut the connections of one, or of all; they come back by themselves."""

    @abstractmethod
    async def stop_broker(self) -> None:
        """Cut all connections, and let nobody in."""

    @abstractmethod
    async def start_broker(self) -> None:
        """Let them in again."""

    @abstractmethod
    async def lose_confirms(self, of: Side) -> None:
        """The broker takes the next message that `of` sends, and its answer gets lost. `of` has sent one before: its channel is open."""

    @abstractmethod
    async def block(self) -> None:
        """An alarm: the broker takes no publishes."""

    @abstractmethod
    async def unblock(self) -> None:
        """The alarm is over."""

    @abstractmethod
    async def delete_queue(self, name: str) -> None:
        """Delete a queue and what is in it."""

    @abstractmethod
    async def unbind(self, binding: Binding) -> None:
        """Remove a binding."""

    @abstractmethod
    async def limit(self, queue: str, length: int | None) -> None:
        """Let a queue refuse more than `length` messages, roughly, by a policy; None: no policy any more."""

    # --- inspection ------------------------------------------------------------------------------------------------

    @abstractmethod
    async def exists(self, queue: str) -> bool:
        """Whether there is such a queue. It may count as a use of it."""

    @abstractmethod
    async def depth(self, queue: str) -> int:
        """Messages that are ready in a queue."""

    @abstractmethod
    async def consumers(self, queue: str) -> int:
        """Consumers that are registered at a queue. RabbitMQ counts one of a quorum queue until it has acked all, cancelled or not."""

    @abstractmethod
    async def peek(self, queue: str) -> Sequence[AmqpMessage]:
        """What is ready in a queue, left where it is."""

    @abstractmethod
    async def put(self, wire: AmqpMessage, address: Address) -> None:
        """Publish exactly this, as a client of another making might."""

    async def holds(
        self, queue: str, count: int, seconds: float = PATIENCE
    ) -> Sequence[AmqpMessage]:
        """What is in a queue, once it is `count`."""

        async def reached() -> bool:
            return await self.depth(queue) == count

        await until(reached, f"{count} messages in {queue}", seconds)
        return await self.peek(queue)
