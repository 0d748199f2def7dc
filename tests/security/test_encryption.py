"""Encrypted payloads on complete buses: no message at the broker shows its payload."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from bus import Bus, Context, Event, Job, Message, Request, RetryPolicy, Router, contract
from bus.contracts.contract import contract_of
from bus.errors import (
    ConfigurationError,
    DeadlineExceeded,
    FailedPrecondition,
    InvalidArgument,
    Unavailable,
)
from bus.messaging.topology.addresses import Address
from bus.messaging.topology.names import dead_letter_queue, job_queue
from bus.security.jwe import new_encryption_key
from bus.testing import MemoryBuses
from bus.transports.wire_format import AmqpMessage
from tests.polling import until

CANARY = "Ada-Lovelace-1815"
RING = json.dumps({"keys": [new_encryption_key("one")]})
OTHER = json.dumps({"keys": [new_encryption_key("two")]})


class Chart(Message):
    text: str


@contract("clinic.ask", version=1, encrypted=True, idempotent=True)
class Ask(Request[Chart]):
    text: str


@contract("clinic.copy", version=1, encrypted=True)
class CopyChart(Job[Chart]):
    text: str
    fails: bool = False


@contract("clinic.copied", version=1, encrypted=True)
class Copied(Event):
    text: str


@contract("clinic.count", version=1)
class Count(Request[Chart]):
    text: str = CANARY


class Ward:
    """A service that returns and publishes the text of each message."""

    def __init__(self) -> None:
        self.handled: list[str] = []
        self.router = Router("clinic")

        @self.router.request(Ask)
        async def ask(request: Ask) -> Chart:
            self.handled.append(request.text)
            return Chart(text=request.text)

        @self.router.request(Count)
        async def count(request: Count) -> Chart:
            return Chart(text=request.text)

        @self.router.job(CopyChart, retry=RetryPolicy(attempts=1))
        async def copy(job: CopyChart, context: Context) -> Chart:
            await context.progress(0.5, f"copying {job.text}")
            if job.fails:
                raise InvalidArgument("not this one")
            await context.bus.publish(Copied(text=job.text))
            return Chart(text=job.text)

        @self.router.event(Copied)
        async def copied(event: Copied) -> None:
            self.handled.append(event.text)


@asynccontextmanager
async def ward(**settings: Any) -> AsyncIterator[tuple[MemoryBuses, Ward, Bus, list[AmqpMessage]]]:
    """Serve with these settings, and yield a list that collects all messages at the broker."""
    async with MemoryBuses() as buses:
        crossed: list[AmqpMessage] = []
        publish = buses.broker.publish

        def listening(wire: AmqpMessage, address: Any) -> Any:
            crossed.append(wire)
            return publish(wire, address)

        # The wrapper records each message.
        buses.broker.publish = listening  # type: ignore[method-assign]
        service, bus = Ward(), await buses.bus("clinic", **settings)
        await buses.serve(bus, service.router)
        yield buses, service, bus, crossed


def shown(crossed: list[AmqpMessage]) -> list[str | None]:
    """Return the types of the messages that show the canary."""
    return [wire.type for wire in crossed if CANARY in f"{wire.body!r} {wire.headers}"]


async def test_no_request_event_or_job_shows_its_payload_in_transit() -> None:
    async with ward(encryption_keys=RING) as (buses, service, _, crossed):
        office = await buses.bus("office", encryption_keys=RING)
        assert (await office.request(Ask(text=CANARY))).text == CANARY
        job = await office.submit(CopyChart(text=CANARY))
        assert [update.note async for update in job.updates()] == [f"copying {CANARY}"]
        assert (await job.result(timeout=5)).text == CANARY
        await until(lambda: service.handled == [CANARY, CANARY], "the event to be handled")

        crossed_types = {wire.type for wire in crossed} - {"bus.control.announcement.v1"}
        assert crossed_types == {
            *("clinic.ask.v1", "clinic.ask.v1.reply", "clinic.copied.v1"),
            *("clinic.copy.v1", "clinic.copy.v1.progress", "clinic.copy.v1.reply"),
        }
        assert shown(crossed) == []
        await office.request(Count())
    # The unencrypted messages show the canary, so the recording works.
    assert shown(crossed) == ["clinic.count.v1", "clinic.count.v1.reply"]


async def test_everything_is_encrypted_where_the_setting_says_so() -> None:
    async with ward(encryption_keys=RING, encrypt="everything") as (buses, _, _, crossed):
        office = await buses.bus("office", encryption_keys=RING, encrypt="everything")
        assert (await office.request(Count())).text == CANARY
    assert crossed
    assert shown(crossed) == []


async def test_a_dead_letter_lies_encrypted_and_works_when_it_is_replayed() -> None:
    queue = job_queue(contract_of(CopyChart))
    async with ward(encryption_keys=RING) as (buses, _, bus, crossed):
        job = await bus.submit(CopyChart(text=CANARY, fails=True))
        with pytest.raises(InvalidArgument, match="not this one"):
            await job.result(timeout=5)
        await until(lambda: buses.broker.depth(dead_letter_queue(queue)) == 1, "the dead letter")
        assert shown(buses.broker.peek(dead_letter_queue(queue))) == []
        assert (await bus.replay(queue)).replayed == 1
        await until(
            lambda: buses.broker.depth(dead_letter_queue(queue)) == 1, "it to die again, read again"
        )
        [letter] = await bus.dead_letters(queue)
        assert (letter.record.code, letter.envelope.body[:12]) == (
            "invalid_argument",
            b'{"protected"',
        )
    assert shown(crossed) == []


async def test_what_came_plain_is_dead_lettered_and_its_handler_never_called() -> None:
    queue = job_queue(contract_of(CopyChart))
    async with ward(encryption_keys=RING) as (buses, service, bus, crossed):
        await bus.submit(CopyChart(text="sealed"))
        await until(lambda: service.handled == ["sealed"], "the sealed one to be handled")
        sealed = next(wire for wire in crossed if wire.type == "clinic.copy.v1")
        plain = b'{"text": "plain", "fails": false}'
        headers = {name: value for name, value in sealed.headers.items() if name != "encryption"}
        address = Address(exchange="", routing_key=queue)
        buses.broker.publish(
            AmqpMessage(body=plain, headers=headers, **_properties(sealed, "another-id")), address
        )
        buses.broker.publish(
            AmqpMessage(
                body=sealed.body, headers=sealed.headers, **_properties(sealed, "a-third-id")
            ),
            address,
        )
        await until(lambda: buses.broker.depth(dead_letter_queue(queue)) == 2, "both to be refused")
        codes = [letter.record.code for letter in await bus.dead_letters(queue)]
    assert codes == ["invalid_argument", "invalid_argument"]
    assert service.handled == ["sealed"]


async def test_without_the_key_a_caller_receives_the_reason_at_its_deadline() -> None:
    async with ward(encryption_keys=OTHER) as (buses, service, _, _):
        office = await buses.bus("office", encryption_keys=RING)
        with pytest.raises(Unavailable, match="encrypted with an unknown key"):
            await office.request(Ask(text=CANARY), timeout=5)
        assert service.handled == []


async def test_an_answer_that_cannot_be_read_is_refused_by_name_at_the_deadline() -> None:
    both = json.dumps({"keys": json.loads(OTHER)["keys"] + json.loads(RING)["keys"]})
    async with ward(encryption_keys=both) as (buses, _, _, _):
        office = await buses.bus("office", encryption_keys=RING)
        with pytest.raises(DeadlineExceeded, match="encrypted with an unknown key"):
            await office.request(Ask(text=CANARY), timeout=0.3)


async def test_an_encrypted_contract_is_neither_served_nor_sent_without_keys() -> None:
    async with MemoryBuses() as buses:
        bus = await buses.bus("clinic")
        with pytest.raises(
            ConfigurationError,
            match=r"clinic\.ask\.v1 is encrypted, but there is no key .*BUS_ENCRYPTION_KEYS",
        ):
            async with bus.serving(Ward().router):
                pytest.fail("served")
        with pytest.raises(FailedPrecondition, match="BUS_ENCRYPTION_KEYS"):
            await bus.submit(CopyChart(text=CANARY))


async def test_keys_come_from_a_file_that_nobody_else_can_read(tmp_path: Path) -> None:
    file = tmp_path / "ring.json"
    file.write_text(RING)
    file.chmod(0o640)
    async with MemoryBuses() as buses:
        with pytest.raises(ConfigurationError, match=r"BUS_ENCRYPTION_KEYS: .*chmod 600"):
            await buses.bus("clinic", encryption_keys=str(file))
        with pytest.raises(
            ConfigurationError, match="BUS_ENCRYPT=everything requires encryption keys"
        ):
            await buses.bus("clinic", encrypt="everything")
        file.chmod(0o600)
        await buses.bus("clinic", encryption_keys=str(file))


def _properties(wire: AmqpMessage, message_id: str) -> dict[str, Any]:
    return {
        "message_id": message_id,
        "type": wire.type,
        "app_id": wire.app_id,
        "timestamp": wire.timestamp,
    }
