"""FastStream with its own publishing, subscribing and `request`; its log of each message is off."""

import asyncio
import sys
from contextlib import AsyncExitStack

from faststream import AckPolicy
from faststream.rabbit import (
    Channel,
    ExchangeType,
    QueueType,
    RabbitBroker,
    RabbitExchange,
    RabbitQueue,
)

from benchmarks.actors.stage import (
    REPLY_TIMEOUT,
    URL,
    Gathering,
    Order,
    Result,
    WrongReply,
    closed_loop,
    obey,
    published,
)
from benchmarks.payload import Payload, fields, numbers

PREFETCH = 200
FLOW = RabbitQueue("faststream.flow", durable=True, queue_type=QueueType.QUORUM)
FANOUT = RabbitExchange("faststream.fanout", type=ExchangeType.FANOUT)


def broker(*, confirms: bool) -> RabbitBroker:
    """Return a broker with one connection and one channel."""
    return RabbitBroker(
        URL,
        default_channel=Channel(prefetch_count=PREFETCH, publisher_confirms=confirms),
        logger=None,
    )


async def serve() -> None:
    """Answer requests."""
    server = broker(confirms=False)

    @server.subscriber(RabbitQueue("faststream.echo", auto_delete=True), ack_policy=AckPolicy.ACK)
    async def echo(asked: Payload) -> Payload:
        return asked

    async with server:
        await server.start()
        await obey()


async def ask() -> None:
    """Send requests; `request` holds a lock, so a broker object has one call in flight."""
    sequence = numbers()
    async with broker(confirms=False) as client:

        async def call() -> None:
            number = next(sequence)
            message = Payload.model_validate(fields(number))
            reply = await client.request(message, "faststream.echo", timeout=REPLY_TIMEOUT * 6)
            if Payload.model_validate_json(reply.body).number != number:
                raise WrongReply(str(number))

        await obey(rpc=lambda order: closed_loop(call, order))


async def publish() -> None:
    """Publish with confirms, persistent."""
    sequence = numbers()
    async with broker(confirms=True) as sender:
        await sender.declare_queue(FLOW)
        await sender.declare_exchange(FANOUT)

        async def one(number: int) -> None:
            await sender.publish(Payload.model_validate(fields(number)), FLOW, persist=True)

        async def many(number: int) -> None:
            await sender.publish(
                Payload.model_validate(fields(number)), exchange=FANOUT, persist=True
            )

        await obey(
            publish=lambda order: published(one, sequence, order),
            fanout=lambda order: published(many, sequence, order),
        )


async def consume(name: str | None = None) -> None:
    """Handle the messages in the queue, on each order."""
    queue = FLOW if name is None else RabbitQueue(name, declare=False)
    gathering = Gathering()

    async def told(order: Order) -> Result:
        gathering.expect(order)
        receiver = broker(confirms=False)

        @receiver.subscriber(queue, ack_policy=AckPolicy.ACK)
        async def handle(event: Payload) -> None:
            gathering.saw(event.number)

        async with receiver:
            await receiver.start()
            result = await gathering.complete()
            await asyncio.sleep(0.1)  # time for the last acks
        return result

    async with broker(confirms=False) as first:
        if name is None:
            await first.declare_queue(FLOW)
    await obey(consume=told)


async def subscribe(subscribers: int) -> None:
    """Handle events continuously, from `subscribers` quorum queues with a channel each."""
    gathering = Gathering()
    receiver = broker(confirms=False)
    for number in range(subscribers):
        queue = RabbitQueue(
            f"faststream.fanout.{number}", durable=True, queue_type=QueueType.QUORUM
        )

        @receiver.subscriber(
            queue, FANOUT, channel=Channel(prefetch_count=PREFETCH), ack_policy=AckPolicy.ACK
        )
        async def handle(event: Payload) -> None:
            gathering.saw(event.number)

    async with AsyncExitStack() as stack:
        await stack.enter_async_context(receiver)
        await receiver.start()
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
