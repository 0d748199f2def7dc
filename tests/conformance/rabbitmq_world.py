"""The world on RabbitMQ, with a virtual host for each test and a proxy for each client."""

import asyncio
import base64
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from urllib.parse import quote, unquote, urlsplit, urlunsplit

import aio_pika
import pytest
from aiormq.abc import AbstractChannel
from pydantic import SecretStr
from typing_extensions import override

from bus.messaging.ports.transport import Transport
from bus.messaging.topology.addresses import Address
from bus.messaging.topology.model import Binding
from bus.operations.brokers.broker import Broker
from bus.operations.brokers.container import ContainerBroker
from bus.operations.brokers.node_files import DEFAULTS
from bus.operations.brokers.private_node import PrivateNode
from bus.operations.management_api import Management
from bus.runtime.bus import Bus
from bus.settings import Settings
from bus.transports.rabbitmq import RabbitMQTransport
from bus.transports.rabbitmq.amqp.pamqp_codec import from_message, to_properties
from bus.transports.rabbitmq.queue_depth import QueueDepth, depth_by
from bus.transports.wire_format import AmqpMessage
from tests.broker import management_url, set_watermark
from tests.conformance.proxy import Proxy
from tests.conformance.world import Side, World

WATERMARK = DEFAULTS["vm_memory_high_watermark.absolute"]
PORT = 5672


class RabbitMQWorld(World):
    virtual = False

    def __init__(self, broker: Broker, vhost_url: str) -> None:
        super().__init__()
        self._broker, self._url = broker, vhost_url
        self._management = Management(management_url(broker), broker.url)
        self._vhost = quote(unquote(urlsplit(vhost_url).path[1:]), safe="")
        self._proxies: dict[int, Proxy] = {}
        self._admin: aio_pika.abc.AbstractConnection | None = None

    @override
    def clock(self) -> float:
        return time.time()

    @override
    async def begin(self) -> None:
        self._admin = await self.closing.enter_async_context(await aio_pika.connect(self._url))

    @override
    async def new_transport(self, name: str, settings: Settings) -> Transport:
        parts = urlsplit(self._url)
        proxy = Proxy(parts.hostname or "localhost", parts.port or PORT)
        await proxy.open()
        self.closing.push_async_callback(proxy.close)
        credentials = parts.netloc.rpartition("@")[0]
        through = urlunsplit(parts._replace(netloc=f"{credentials}@127.0.0.1:{proxy.port}"))
        transport = self.make(settings.model_copy(update={"url": SecretStr(through)}), name)
        self._proxies[id(transport)] = proxy
        return transport

    def make(self, settings: Settings, name: str) -> Transport:
        """Return the transport. Variants of this world override only this method."""
        return RabbitMQTransport(settings, name=name)

    def _proxies_of(self, of: Side | Bus | None) -> list[Proxy]:
        if of is None:
            return [*self._proxies.values()]
        return [self._proxies[id(of.transport if isinstance(of, Side) else of._transport)]]

    @override
    async def drop_connections(self, of: Side | Bus | None = None) -> None:
        for proxy in self._proxies_of(of):
            proxy.cut()

    @override
    async def stop_broker(self) -> None:
        for proxy in self._proxies.values():
            await proxy.close()

    @override
    async def start_broker(self) -> None:
        for proxy in self._proxies.values():
            await proxy.open()

    @override
    async def lose_confirms(self, of: Side) -> None:
        for proxy in self._proxies_of(of):
            proxy.mute()

    @override
    async def block(self) -> None:
        await self._watermark("1")

    @override
    async def unblock(self) -> None:
        await self._watermark(WATERMARK)

    async def _watermark(self, memory: str) -> None:
        if isinstance(self._broker, PrivateNode):
            await set_watermark(self._broker, memory)
        elif isinstance(self._broker, ContainerBroker):
            await self._broker.ctl("set_vm_memory_high_watermark", "absolute", memory)
        else:
            pytest.skip("raises an alarm, which needs a RabbitMQ of our own")

    @override
    async def delete_queue(self, name: str) -> None:
        async with self._channel() as channel:
            await channel.queue_delete(name)

    @override
    async def unbind(self, binding: Binding) -> None:
        async with self._channel() as channel:
            await channel.queue_unbind(binding.queue, binding.exchange, binding.routing_key)

    @override
    async def limit(self, queue: str, length: int | None) -> None:
        definition = {"max-length": length, "overflow": "reject-publish"}
        policy = {
            "pattern": f"^{queue}$",
            "definition": definition,
            "apply-to": "queues",
            "priority": 1,
        }
        path = f"policies/{self._vhost}/{quote(queue, safe='')}"
        await self._management.call(
            *(("DELETE", path) if length is None else ("PUT", path, policy))
        )

    @override
    async def exists(self, queue: str) -> bool:
        return not (await self._depth(queue)).missing

    @override
    async def depth(self, queue: str) -> int:
        depth = await self._depth(queue)
        assert not depth.missing, queue
        return depth.ready

    @override
    async def consumers(self, queue: str) -> int:
        depth = await self._depth(queue)
        assert not depth.missing, queue
        return depth.consumers

    async def _depth(self, queue: str) -> QueueDepth:
        async with self._channel() as channel:
            return await depth_by(channel, queue)

    @override
    async def peek(self, queue: str) -> Sequence[AmqpMessage]:
        found = []
        async with self._channel() as channel:
            while (message := await channel.basic_get(queue)).delivery_tag:
                found.append(from_message(message))
            await channel.basic_nack(0, multiple=True, requeue=True)
        return found

    @override
    async def put(self, wire: AmqpMessage, address: Address) -> None:
        if wire.message_id is None:
            await self._put_without_id(wire, address)
            return
        async with self._channel() as channel:
            await channel.basic_publish(
                wire.body,
                exchange=address.exchange,
                routing_key=address.routing_key,
                properties=to_properties(wire),
                timeout=5,
            )

    async def _put_without_id(self, wire: AmqpMessage, address: Address) -> None:
        """Publish by the management API, because aiormq adds an id to a message without one."""
        names = ("type", "app_id", "content_type", "delivery_mode")
        properties = {name: value for name in names if (value := getattr(wire, name)) is not None}
        content = {"payload": base64.b64encode(wire.body).decode(), "payload_encoding": "base64"}
        routing = {
            "routing_key": address.routing_key,
            "properties": properties | {"headers": dict(wire.headers)},
        }
        await self._management.call(
            "POST", f"exchanges/{self._vhost}/{address.exchange}/publish", content | routing
        )

    @asynccontextmanager
    async def _channel(self) -> AsyncIterator[AbstractChannel]:
        """Open a channel for one operation, because an error closes the channel."""
        assert self._admin is not None
        assert self._admin.transport is not None
        channel = await self._admin.transport.connection.channel(publisher_confirms=True)
        try:
            async with asyncio.timeout(30):
                yield channel
        finally:
            if not channel.is_closed:
                await channel.close()


class PlainRabbitMQWorld(RabbitMQWorld):
    """The world without the fast lane, which must keep the same promises."""

    @override
    def make(self, settings: Settings, name: str) -> Transport:
        return RabbitMQTransport(settings.model_copy(update={"fastlane": False}), name=name)
