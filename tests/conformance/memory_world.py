"""The world on the model broker, in virtual time."""

import asyncio
from collections.abc import Sequence
from types import MappingProxyType

from typing_extensions import override

from bus.messaging.ports.transport import Transport
from bus.messaging.topology.addresses import Address
from bus.messaging.topology.model import Binding
from bus.runtime.bus import Bus
from bus.settings import Settings
from bus.transports.memory import MemoryBroker, MemoryTransport, VirtualLoop, wall_clock
from bus.transports.wire_format import AmqpMessage
from tests.conformance.world import Side, World


class MemoryWorld(World):
    virtual = True
    in_real_time = MappingProxyType(
        {
            "test_requests_jobs_and_events_get_what_they_depend_on": (
                "the virtual clock does not wait for threads of anyio"
            )
        }
    )

    def __init__(self) -> None:
        super().__init__()
        self.broker = MemoryBroker(clock=wall_clock)

    @override
    def clock(self) -> float:
        return wall_clock()

    @override
    async def begin(self) -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        if self.jumps:
            loop.skip_waits()

    @override
    async def new_transport(self, name: str, settings: Settings) -> Transport:
        return MemoryTransport(self.broker, max_body_bytes=settings.max_message)

    @override
    async def drop_connections(self, of: Side | Bus | None = None) -> None:
        if of is None:
            self.broker.drop_all()
        else:
            transport = of.transport if isinstance(of, Side) else of._transport
            assert isinstance(transport, MemoryTransport)
            transport.drop()

    @override
    async def stop_broker(self) -> None:
        self.broker.stop()

    @override
    async def start_broker(self) -> None:
        self.broker.start()

    @override
    async def lose_confirms(self, of: Side) -> None:
        self.broker.swallow_confirms(1)

    @override
    async def block(self) -> None:
        self.broker.block()

    @override
    async def unblock(self) -> None:
        self.broker.unblock()

    @override
    async def delete_queue(self, name: str) -> None:
        self.broker.delete_queue(name)

    @override
    async def unbind(self, binding: Binding) -> None:
        self.broker.unbind(binding)

    @override
    async def limit(self, queue: str, length: int | None) -> None:
        self.broker.limit(queue, length)

    @override
    async def exists(self, queue: str) -> bool:
        return queue in self.broker

    @override
    async def depth(self, queue: str) -> int:
        return self.broker.depth(queue)

    @override
    async def consumers(self, queue: str) -> int:
        return self.broker.consumers(queue)

    @override
    async def peek(self, queue: str) -> Sequence[AmqpMessage]:
        return self.broker.peek(queue)

    @override
    async def put(self, wire: AmqpMessage, address: Address) -> None:
        self.broker.publish(wire, address)
