"""Print an example of every message of wire format 1 as Markdown, read from a real broker.

usage: BUS_URL=amqp://… python scripts/wire_examples.py > docs/reference/wire-examples.md

Two services exchange messages, and an additional queue receives a copy of each message. The clock
is fixed, and readable numbers replace the random parts. Therefore each run prints the same page.
"""

import asyncio
import json
import os
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import aio_pika
from aio_pika.abc import AbstractChannel, AbstractIncomingMessage, AbstractQueue
from signed_examples import PREFACE as SIGNED
from signed_examples import decoded, key_blocks, signed_messages

from bus import (
    Bus,
    Context,
    Event,
    InvalidArgument,
    Job,
    Message,
    NotFound,
    Request,
    RetryPolicy,
    Router,
    Unavailable,
    contract,
)
from bus.messaging.topology.declarations import BASE_EXCHANGES
from bus.messaging.topology.names import (
    DEAD,
    REPLIES,
    UPDATES,
    reply_queue,
    retry_return_exchange,
    retry_tier,
)
from bus.settings import load_settings

URL = os.environ.get("BUS_URL", "amqp://guest:guest@localhost:5672/")
NOW = 1_798_794_000.0  # 2027-01-01T09:00:00Z
PATIENCE = 15.0  # seconds in which every message must arrive
SCAN_QUEUE = "library.jobs.scan.v1"

PREFACE = """# Wire format 1: every message

`scripts/wire_examples.py` reads these messages from a broker and prints this page.
A test compares the two.
The clock was fixed at 2027-01-01T09:00:00Z, and numbers replace the random parts (ids, traces).
[wire-format.md](wire-format.md) explains the parts.

The service `reader` sends two requests to `library`, for the locations of two books.
Then it submits two jobs: one fails once and succeeds, the other fails permanently.
A third job is returned to its queue until the broker dead-letters it.
The reply queue's name is shown as `reader.replies.host-4711-0a1b2c3d4e5f`."""

DEATH = """`time` is an AMQP timestamp, here in seconds since the epoch.
RabbitMQ adds further headers, such as `x-first-death-reason`, which depend on its version."""
TITLES = {
    "request": "Request",
    "reply": "Reply",
    "error reply": "Error reply",
    "event": "Event",
    "job": "Job",
    "progress": "Progress update",
    "retry copy": "Retry copy",
    "failed attempt": "Progress update about a failed attempt",
    "result": "Result",
    "dead letter": "Dead letter",
    "failure": "Failure of a job",
}
HERE = {
    "dead-host": "host-4711",
    "dead-trunkline": "0.1.0",
    "dead-where": "library/service.py:43 scan",
    "dead-frames": "bus/runtime/router.py:289 Router.__call__\nlibrary/service.py:43 scan",
}
"""Headers whose values depend on the machine or on the code.

The page shows these values instead.
"""
READABLE = (
    (
        re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"),
        "{n:08d}-1111-4111-8111-111111111111",
    ),
    (re.compile(r"(?<=00-)[0-9a-f]{32}(?=-)"), "{n:032x}"),
    (re.compile(r"(?<=-)[0-9a-f]{16}(?=-0[0-3]\b)"), "{n:016x}"),
)


class Place(Message):
    """The location of a book."""

    shelf: str


class Scan(Message):
    """The result of a scan."""

    pages: int


@contract("library.find", version=1, idempotent=True)
class FindBook(Request[Place]):
    """The request for the location of a book."""

    title: str


@contract("library.returned", version=1)
class BookReturned(Event):
    """The return of a book."""

    title: str


@contract("library.scan", version=1)
class ScanBook(Job[Scan]):
    """The job of making images of a book's pages."""

    title: str


router = Router("library")


@router.request(FindBook)
async def find(request: FindBook) -> Place:
    """Return the book's location, or raise `NotFound`."""
    if request.title != "Emma":
        raise NotFound("no such book")
    return Place(shelf="A3")


@router.job(ScanBook, retry=RetryPolicy(attempts=2, first_delay=1))
async def scan(job: ScanBook, context: Context) -> Scan:
    """Fail permanently for the title Sand. For other titles, fail once and then succeed."""
    if job.title == "Sand":
        raise InvalidArgument("a book of sand has no first page")
    if context.envelope.attempt == 1:
        await context.progress(0.5, "page 2 of 4")
        raise Unavailable("the scanner is busy")
    await context.bus.publish(BookReturned(title=job.title))
    return Scan(pages=4)


def name_of(message: AbstractIncomingMessage) -> str:
    """Return the message's key in `TITLES`."""
    exchange, kind = message.exchange or "", message.type or ""
    if exchange == UPDATES and kind.endswith(".progress"):
        return "failed attempt" if b'"error":"' in message.body else "progress"
    if exchange == UPDATES:
        return "failure" if kind == "bus.error.v1" else "result"
    if exchange == REPLIES:
        return "error reply" if kind == "bus.error.v1" else "reply"
    if exchange == DEAD:
        return "dead letter"
    return {"bus.requests": "request", "bus.events": "event", "bus.jobs": "job"}.get(
        exchange, "retry copy"
    )


def shown(message: AbstractIncomingMessage) -> dict[str, Any]:
    """Return the parts of the message that the page shows, as a JSON value."""
    raw = message.properties
    properties = {
        "message_id": raw.message_id,
        "type": raw.message_type,
        "app_id": raw.app_id,
        "content_type": raw.content_type,
        "timestamp": int(raw.timestamp.timestamp()) if raw.timestamp else None,
        "delivery_mode": raw.delivery_mode,
        "reply_to": raw.reply_to,
        "correlation_id": raw.correlation_id,
        "expiration": raw.expiration,
    }
    return {
        "exchange": message.exchange,
        "routing_key": message.routing_key,
        "properties": {name: value for name, value in properties.items() if value is not None},
        "headers": {
            name: HERE.get(name, value)
            for name, value in sorted(message.headers.items())
            if not name.startswith("x-")
        },
        "body": json.loads(message.body),
    }


async def lose_job() -> dict[str, Any]:
    """Submit a job, return it to its queue until the broker dead-letters it, and read the copy."""
    async with await aio_pika.connect(URL) as connection:
        channel = await connection.channel()
        await channel.set_qos(prefetch_count=1)
        dead = await channel.declare_queue(exclusive=True)
        await dead.bind(DEAD, SCAN_QUEUE)
        work = await channel.get_queue(SCAN_QUEUE)

        async def give_back(message: AbstractIncomingMessage) -> None:
            await message.reject(requeue=True)

        await work.consume(give_back)
        job = aio_pika.Message(
            b'{"title":"Emma"}',
            headers={"attempt": 1, "expires": int((NOW + 7 * 24 * 3600) * 1000)},
            message_id="00000012-1111-4111-8111-111111111111",
            type="library.scan.v1",
            app_id="reader",
            content_type="application/json",
            timestamp=int(NOW),
            delivery_mode=2,
        )
        await channel.default_exchange.publish(job, SCAN_QUEUE)
        async with asyncio.timeout(PATIENCE), dead.iterator(no_ack=True) as incoming:
            async for message in incoming:
                letter = shown(message)
                (death,) = cast("list[dict[str, Any]]", message.headers["x-death"])
                letter["headers"]["x-death"] = [{**death, "time": int(NOW)}]
                return letter
    raise TimeoutError


def readable(text: str, instance: str) -> str:
    """Replace each random part by a number, in the order of their first appearance."""
    text = text.replace(instance, "host-4711-0a1b2c3d4e5f")
    for pattern, form in READABLE:
        numbers: dict[str, int] = {}
        for found in pattern.findall(text):
            numbers.setdefault(found, len(numbers) + 1)
        for found, number in numbers.items():
            text = text.replace(found, form.format(n=number))
    return text


async def tap(channel: AbstractChannel, instance: str) -> AbstractQueue:
    """Declare a queue that receives a copy of every message."""
    queue = await channel.declare_queue(exclusive=True)
    for exchange in BASE_EXCHANGES.exchanges:
        if exchange.kind == "topic":
            # A question about a job must find no queue, as without this script.
            is_for_requests = exchange.name == "bus.requests"
            await queue.bind(exchange.name, "library.find.#" if is_for_requests else "#")
    for exchange_name in (REPLIES, UPDATES):
        await queue.bind(exchange_name, reply_queue("reader", instance))
    await queue.bind(DEAD, SCAN_QUEUE)
    await queue.bind(retry_tier("library", "1s"))
    parked = await channel.declare_exchange(retry_tier("library", "30s"), "fanout", durable=True)
    await queue.bind(parked)
    await queue.bind(retry_return_exchange("library"), SCAN_QUEUE)
    return queue


@asynccontextmanager
async def listening(instance: str) -> AsyncIterator[AbstractQueue]:
    """Yield a queue that receives a copy of every message. Close its connection at the end."""
    async with await aio_pika.connect(URL) as connection:
        yield await tap(await connection.channel(), instance)


async def talk(reader: Bus) -> None:
    """Make requests and jobs that cause at least one message of each kind."""
    await reader.request(FindBook(title="Emma"), timeout=5)
    try:
        await reader.request(FindBook(title="Emmma"), timeout=5)
    except NotFound:
        job = await reader.submit(ScanBook(title="Emma"))
        await job.result(timeout=PATIENCE)
    try:
        await (await reader.submit(ScanBook(title="Sand"))).result(timeout=PATIENCE)
    except InvalidArgument:
        return


async def heard(queue: AbstractQueue) -> dict[str, dict[str, Any]]:
    """Receive messages, and return the first message of each kind."""
    messages: dict[str, dict[str, Any]] = {}
    async with asyncio.timeout(PATIENCE), queue.iterator(no_ack=True) as incoming:
        async for message in incoming:
            messages.setdefault(name_of(message), shown(message))
            if messages.keys() == TITLES.keys():
                break
    return messages


async def main() -> None:
    """Let the services exchange messages, and print the page."""
    library, reader = (
        Bus(name, settings=load_settings(auth="off"), clock=lambda: NOW)
        for name in ("library", "reader")
    )
    async with library, library.serving(router), reader, listening(reader.instance) as queue:
        await talk(reader)
        messages = await heard(queue)
    blocks = [block(title, messages[name]) for name, title in TITLES.items()]
    blocks.append(f"{block('Dead letter of the broker', await lose_job())}\n\n{DEATH}")
    print(readable("\n\n".join([PREFACE, *blocks]), reader.instance), end="\n\n")
    async with listening("host-4711-0a1b2c3d4e5f") as queue:
        signed = await signed_messages(
            queue,
            find=FindBook(title="Emma"),
            place=Place(shelf="A3"),
            scan=ScanBook(title="Emma"),
            pages=Scan(pages=4),
            returned=BookReturned(title="Emma"),
            now=NOW,
        )
    print(
        "\n\n".join(
            [
                SIGNED,
                *(block(*each, "###") for each in key_blocks()),
                *(signed_block(*each) for each in signed),
            ]
        )
    )


def block(title: str, value: Any, level: str = "##") -> str:
    """Return a heading and a block of JSON."""
    return f"{level} {title}\n\n```json\n{json.dumps(value, indent=2)}\n```"


def signed_block(title: str, message: AbstractIncomingMessage) -> str:
    """Return a block with the message, and a block with the content of its token or proof."""
    parts = [block(title, shown(message), "###")]
    for name in ("authorization", "proof", "counter-proof"):
        if name in message.headers:
            said = decoded(str(message.headers[name]).removeprefix("Bearer "))
            parts.append(f"Its `{name}` contains:\n\n```json\n{json.dumps(said, indent=2)}\n```")
    return "\n\n".join(parts)


if __name__ == "__main__":
    asyncio.run(main())
