"""Tests of signed messages over a real RabbitMQ, with the fast lane and without it.

They include a forged message from a client that has a broker account and no key.
"""

import asyncio
import time
from dataclasses import replace
from pathlib import Path

import aio_pika
import pytest
from pydantic import SecretStr

from bus import Bus, Router, Settings
from bus.contracts.contract import contract_of
from bus.errors import PermissionDenied
from bus.messaging.envelope import Envelope, new_id
from bus.messaging.topology.names import JOBS, job_queue
from bus.transports.rabbitmq.amqp.pamqp_codec import to_properties
from bus.transports.wire_format import encode
from tests.conformance.world import until
from tests.security.deployment import Deployment
from tests.unit.ledger import Add, CloseBooks, Total


def bus(deployment: Deployment, service: str, url: str, *, fastlane: bool) -> Bus:
    return Bus(
        service, settings=Settings(url=SecretStr(url), fastlane=fastlane, **deployment.of(service))
    )


@pytest.mark.parametrize("fastlane", [True, False], ids=["lane", "plain"])
async def test_what_is_signed_arrives_and_what_is_not_is_dead_lettered(
    vhost_url: str, tmp_path: Path, *, fastlane: bool
) -> None:
    deployment = Deployment(tmp_path)
    router, closed = Router("ledger"), list[int]()

    @router.request(Add)
    async def add(request: Add) -> Total:
        return Total(total=request.amount)

    @router.job(CloseBooks)
    async def close(job: CloseBooks) -> Total:
        closed.append(job.year)
        return Total(total=job.year)

    async with (
        bus(deployment, "ledger", vhost_url, fastlane=fastlane) as ledger,
        ledger.serving(router),
    ):
        async with (
            bus(deployment, "office", vhost_url, fastlane=fastlane) as office,
            bus(deployment, "mail", vhost_url, fastlane=True) as mail,
        ):
            assert (await office.request(Add(amount=7), timeout=10)).total == 7
            assert (
                await (await office.submit(CloseBooks(year=1999))).result(timeout=10)
            ).total == 1999
            with pytest.raises(PermissionDenied):
                await mail.request(Add(amount=7), timeout=10)
        await forge(vhost_url)
        queue = job_queue(contract_of(CloseBooks))

        assert await until_dead(ledger, queue) == ["unauthenticated"]
    assert closed == [1999]


async def until_dead(ledger: Bus, queue: str) -> list[str]:
    found: list[str] = []

    async def one() -> bool:
        found[:] = [letter.record.code for letter in await ledger.dead_letters(queue)]
        return bool(found)

    await until(one, "a dead letter")
    return found


async def forge(url: str) -> None:
    """Publish a job in the name of the office, with a broker account and without a key."""
    job = Envelope(
        id=new_id(),
        type="ledger.close.v1",
        role="job",
        source="office",
        body=b'{"year": 2000}',
        expires=int((time.time() + 60) * 1000),
    )
    wire = replace(encode(job), reply_to=None)
    connection = await aio_pika.connect(url)
    async with connection:
        channel = await connection.channel()
        underlying = await channel.get_underlay_channel()
        await underlying.basic_publish(
            wire.body, exchange=JOBS, routing_key=job.type, properties=to_properties(wire)
        )
    await asyncio.sleep(0)
