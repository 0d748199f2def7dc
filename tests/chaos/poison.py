"""Random invalid messages, decoded in this process and sent to a worker through the broker."""

import asyncio
import json
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiormq
from aiormq.abc import AbstractChannel
from pamqp.commands import Basic
from pamqp.common import FieldTable

from bus.contracts.contract import contract_of, decode
from bus.errors import BusError
from bus.messaging.envelope import Envelope
from bus.messaging.topology.names import JOBS, dead_letter_queue, job_queue
from bus.transports.rabbitmq.amqp.properties import read_envelope, write_properties
from tests.chaos.contracts import SERVICE, Work
from tests.chaos.journal import EFFECT
from tests.chaos.node import ChaosNode
from tests.chaos.scene import Scene
from tests.chaos.sender import Order

__all__ = ["fuzzed", "poisons", "through_the_broker"]

CONTRACT = contract_of(Work)
GOOD = b'{"number": 1, "seconds": 0.0, "failures": 0, "hopeless": false}'
DEEPEST = 100_000
IN_FLIGHT = 200


def good_properties(message_id: str) -> Basic.Properties:
    """Return the properties of a valid message."""
    headers: FieldTable = {
        "correlation-id": "c",
        "attempt": 1,
        "expires": int((time.time() + 3600) * 1000),
    }
    return Basic.Properties(
        content_type="application/json",
        delivery_mode=2,
        message_id=message_id,
        message_type=CONTRACT.type,
        app_id=SERVICE,
        headers=headers,
    )


def bad_body(chance: random.Random) -> bytes:
    """Return a body that is not JSON, or does not match the contract."""
    value = chance.choice(
        [
            '"x"',
            "null",
            "[]",
            "{}",
            "1.5",
            "NaN",
            "Infinity",
            '"\\ud800"',
            "1e999",
            "-",
            "1" * 5000,
            "true false",
        ]
    )
    depth = chance.choice((10, 1000, DEEPEST))
    return chance.choice(
        (
            b"\xff" + chance.randbytes(chance.randrange(200)),
            GOOD[: chance.randrange(len(GOOD) - 1)],
            f'{{"number": {value}}}'.encode(),
            f'{{"number": 1, "seconds": "{chance.randbytes(8).hex()}x"}}'.encode(),
            b'{"number": ' + b"[" * depth + b"]" * chance.choice((0, depth)) + b"}",
            b'{"number": 1, "hopeless": "\xed\xa0\x80"}',
            json.dumps({chance.choice(("nummer", "Number", "")): chance.randrange(9)}).encode(),
        )
    )


def bad_properties(chance: random.Random, message_id: str) -> Basic.Properties:
    """Return properties in which a value of wire format 1 is missing or malformed."""
    properties = good_properties(message_id)
    headers: dict[str, Any] = dict(properties.headers or {})
    wrong = chance.choice(
        ["x", -1, 0, 2**62, 1.5, True, {"a": 1}, [1, "b"], bytearray(b"\xff\xfe"), "9" * 400]
    )
    match chance.randrange(6):
        case 0:
            # The message id cannot be missing, because aiormq then sets one.
            setattr(properties, chance.choice(("message_type", "app_id", "content_type")), None)
        case 1:
            properties.content_type = chance.choice(
                ("text/plain", "application/x-python-serialize", "application/json; charset=utf-16")
            )
        case 2:
            headers["attempt"] = wrong
        case 3:
            headers["expires"] = chance.choice([wrong, 1])
        case 4:
            # A wrong traceparent is ignored, so it does not make a message invalid.
            headers[chance.choice(("correlation-id", "causation-id"))] = chance.choice(
                [7, {"a": 1}, "x" * 5000]
            )
        case _:
            properties.message_type = chance.choice(
                ("chaos.work.v2", "chaos.happened.v1", "other.work.v1", "work", "é" * 100)
            )
    properties.headers = headers
    return properties


def poisons(count: int, seed: int) -> Iterator[tuple[bytes, Basic.Properties]]:
    """Yield bodies and properties, one of which is invalid; a seed always yields the same."""
    chance = random.Random(seed)
    for number in range(count):
        message_id = f"poison-{number}"
        if chance.random() < 0.5:
            yield bad_body(chance), good_properties(message_id)
        else:
            yield GOOD, bad_properties(chance, message_id)


# --- In this process ---


def fuzzed(count: int, *, seed: int) -> dict[str, float]:
    """Decode messages with random changes in valid bytes.

    Each message must be decoded or refused, without another exception.
    """
    chance, refused, slowest = random.Random(seed), 0, 0.0
    envelope = Envelope(
        id="m",
        type=CONTRACT.type,
        role="job",
        source=SERVICE,
        body=GOOD,
        timestamp=1,
        correlation_id="c",
        headers={"k": "v"},
    )
    raw = write_properties(envelope)
    for _ in range(count):
        properties = mutated(chance, raw) if chance.random() < 0.5 else raw
        body = chance.choice((GOOD, GOOD, mutated(chance, GOOD), bad_body(chance)))
        began = time.perf_counter()
        refused += not readable(properties, body)
        slowest = max(slowest, time.perf_counter() - began)
    return {"count": count, "refused": refused, "slowest ms": round(slowest * 1e3, 1)}


def mutated(chance: random.Random, data: bytes) -> bytes:
    """Return the data with some bytes changed, removed or inserted."""
    result = bytearray(data)
    for _ in range(chance.randrange(1, 5)):
        place = chance.randrange(len(result) or 1)
        match chance.randrange(3):
            case 0:
                result[place : place + 1] = bytes((chance.randrange(256),))
            case 1:
                del result[place : place + chance.randrange(1, 8)]
            case _:
                result[place:place] = chance.randbytes(chance.randrange(1, 8))
    return bytes(result)


def readable(properties: bytes, body: bytes) -> bool:
    """Return True if a worker would call its handler; any error must be the bus's own."""
    envelope = read_envelope(properties, body, role="job", queue="q", received=0)
    if envelope.fault or envelope.type != CONTRACT.type:
        return False
    try:
        decode(Work, envelope.body)
    except BusError:
        return False
    return True


# --- Through the broker ---


async def through_the_broker(
    node: ChaosNode, directory: Path, count: int, *, seed: int = 1
) -> dict[str, Any]:
    """Send invalid messages to a worker, and a valid one after them."""
    dead = dead_letter_queue(job_queue(CONTRACT))
    async with Scene(node, directory) as scene, await aiormq.connect(scene.url) as connection:
        await scene.add_worker()
        channel = await connection.channel()
        await published(channel, count, seed)
        found, patience = 0, time.monotonic() + 60
        while found < count and time.monotonic() < patience:
            before, found = (
                found,
                (await channel.queue_declare(dead, passive=True)).message_count or 0,
            )
            patience = time.monotonic() + 60 if found > before else patience
            await asyncio.sleep(0.1)
        reasons = sum(
            bool(letter.headers.get("dead-code") and letter.headers.get("dead-reason"))
            for letter in await scene.dead_letters()
        )
        sender = await scene.start_sender(Order(count=1, kinds="jobs", failing=0, hopeless=0))
        sender.enough()
        await sender.ended()
        alive = scene.workers[0].running and await handled(scene)
    return {"sent": count, "dead": found, "with a reason": reasons, "restarts": 0 if alive else 1}


async def published(channel: AbstractChannel, count: int, seed: int) -> None:
    """Publish invalid messages with confirms and a limited number in flight."""
    places = asyncio.Semaphore(IN_FLIGHT)

    async def one(body: bytes, properties: Basic.Properties) -> None:
        async with places:
            await channel.basic_publish(
                body, exchange=JOBS, routing_key=CONTRACT.type, properties=properties
            )

    async with asyncio.TaskGroup() as group:
        for number, (body, properties) in enumerate(poisons(count, seed)):
            group.create_task(one(body, properties))
            if number % IN_FLIGHT == 0:
                await asyncio.sleep(0)


async def handled(scene: Scene) -> bool:
    """Return True if the valid message had its effect."""
    try:
        async with asyncio.timeout(60):
            while not any(entry.mark == EFFECT for entry in scene.work.news()):
                await asyncio.sleep(0.05)
    except TimeoutError:
        return False
    return True
