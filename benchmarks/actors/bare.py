"""Bare aio-pika, like its RPC tutorial: one channel, direct reply-to, futures by correlation id."""

import asyncio
import sys
from asyncio import Future
from itertools import count

import aio_pika
from aio_pika.abc import AbstractChannel, AbstractIncomingMessage, AbstractQueue
from pamqp.common import FieldTable

from benchmarks.actors.stage import (
    REPLY_TIMEOUT,
    URL,
    Gathering,
    Order,
    Result,
    WrongReply,
    closed_loop,
    obey,
    open_loop,
    published,
)
from benchmarks.payload import Payload, fields, numbers

PREFETCH = 200
NAP = 0.01
"""Seconds that a handler waits, as in the bus's actor."""
REPLY_TO = "amq.rabbitmq.reply-to"
ECHO, NAPS, FLOW, FANOUT = "bare.echo", "bare.nap", "bare.flow", "bare.fanout"
QUORUM: FieldTable = {"x-queue-type": "quorum"}


async def opened(*, confirms: bool, prefetch: int = PREFETCH) -> AbstractChannel:
    """Open a channel on a new connection."""
    connection = await aio_pika.connect_robust(URL)
    channel = await connection.channel(publisher_confirms=confirms)
    await channel.set_qos(prefetch)
    return channel


async def serve() -> None:
    """Answer requests: validate, reply, ack."""
    channel, napping = await opened(confirms=False), await opened(confirms=False, prefetch=4)
    echoes = await channel.declare_queue(ECHO, auto_delete=True)
    naps = await napping.declare_queue(NAPS, auto_delete=True)

    async def handle(message: AbstractIncomingMessage) -> None:
        asked = Payload.model_validate_json(message.body)
        reply = aio_pika.Message(
            asked.model_dump_json().encode(),
            correlation_id=message.correlation_id,
            content_type="application/json",
        )
        await channel.default_exchange.publish(reply, message.reply_to or "", mandatory=False)
        await message.ack()

    async def nap(message: AbstractIncomingMessage) -> None:
        await asyncio.sleep(NAP)
        await handle(message)

    await echoes.consume(handle)
    await naps.consume(nap)
    await obey()


async def ask() -> None:
    """Send requests, many at a time on one channel."""
    channel = await opened(confirms=False)
    waiting: dict[str, Future[AbstractIncomingMessage]] = {}
    sequence, ids, loop = numbers(), count(), asyncio.get_running_loop()

    async def take(message: AbstractIncomingMessage) -> None:
        future = waiting.pop(message.correlation_id or "", None)
        if future is not None:
            future.set_result(message)

    replies = await channel.get_queue(REPLY_TO, ensure=False)
    await replies.consume(take, no_ack=True)

    async def call(queue: str = ECHO) -> None:
        number, correlation_id = next(sequence), str(next(ids))
        waiting[correlation_id] = future = loop.create_future()
        body = Payload.model_validate(fields(number)).model_dump_json().encode()
        message = aio_pika.Message(
            body, correlation_id=correlation_id, reply_to=REPLY_TO, content_type="application/json"
        )
        await channel.default_exchange.publish(message, queue, mandatory=False)
        async with asyncio.timeout(REPLY_TIMEOUT):
            reply = await future
        if Payload.model_validate_json(reply.body).number != number:
            raise WrongReply(str(number))

    async def nap() -> None:
        await call(NAPS)

    await obey(
        rpc=lambda order: closed_loop(call, order),
        paced=lambda order: open_loop(call, order),
        nap=lambda order: closed_loop(nap, order),
    )


async def publish() -> None:
    """Publish with confirms, persistent."""
    channel = await opened(confirms=True)
    fanout = await channel.declare_exchange(FANOUT, aio_pika.ExchangeType.FANOUT)
    await channel.declare_queue(FLOW, durable=True, arguments=QUORUM)
    sequence = numbers()

    def message(number: int) -> aio_pika.Message:
        body = Payload.model_validate(fields(number)).model_dump_json().encode()
        return aio_pika.Message(
            body, delivery_mode=aio_pika.DeliveryMode.PERSISTENT, content_type="application/json"
        )

    async def one(number: int) -> None:
        await channel.default_exchange.publish(message(number), FLOW)

    async def many(number: int) -> None:
        await fanout.publish(message(number), "")

    await obey(
        publish=lambda order: published(one, sequence, order),
        fanout=lambda order: published(many, sequence, order),
    )


async def consume(name: str = FLOW) -> None:
    """Validate and ack the messages in the queue, on each order."""
    channel = await opened(confirms=False)
    mine = name == FLOW
    queue: AbstractQueue = await channel.declare_queue(
        name, durable=True, arguments=QUORUM if mine else None, passive=not mine
    )
    gathering = Gathering()

    async def handle(message: AbstractIncomingMessage) -> None:
        event = Payload.model_validate_json(message.body)
        await message.ack()
        gathering.saw(event.number)

    async def told(order: Order) -> Result:
        gathering.expect(order)
        tag = await queue.consume(handle)
        result = await gathering.complete()
        await queue.cancel(tag)
        return result

    await obey(consume=told)


async def subscribe(subscribers: int) -> None:
    """Handle events continuously, from `subscribers` quorum queues with a channel each."""
    gathering = Gathering()

    async def handle(message: AbstractIncomingMessage) -> None:
        event = Payload.model_validate_json(message.body)
        await message.ack()
        gathering.saw(event.number)

    first = await opened(confirms=False)
    connection = await aio_pika.connect_robust(URL)
    await first.declare_exchange(FANOUT, aio_pika.ExchangeType.FANOUT)
    for number in range(subscribers):
        channel = await connection.channel(publisher_confirms=False)
        await channel.set_qos(PREFETCH)
        queue = await channel.declare_queue(f"{FANOUT}.{number}", durable=True, arguments=QUORUM)
        await queue.bind(FANOUT, "")
        await queue.consume(handle)
    await gathering.obey()


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["subscribe", number]:
            asyncio.run(subscribe(int(number)))
        case ["consume", queue]:
            asyncio.run(consume(queue))
        case [role]:
            asyncio.run(
                {"serve": serve, "ask": ask, "publish": publish, "consume": consume}[role]()
            )
