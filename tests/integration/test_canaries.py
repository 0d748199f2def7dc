"""Tests with marked values that are sent along every path and into every failure.

The marked values must appear only in payloads.
"""

import asyncio
import json
import logging
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from pydantic import SecretStr
from typing_extensions import override

from bus import Bus, Context, Event, Job, Message, Request, RetryPolicy, Router, Settings, contract
from bus.contracts.contract import contract_of
from bus.errors import BusError, InvalidArgument
from bus.messaging.envelope import Envelope
from bus.messaging.ports.transport import Transport
from bus.messaging.topology.addresses import Address
from bus.messaging.topology.names import dead_letter_queue, job_queue
from bus.operations.brokers.private_node import PrivateNode
from bus.operations.dead_letters import EVERYTHING
from bus.security.jwe import new_encryption_key
from tests.broker import queues_to_disk
from tests.polling import until

NOTHING: dict[str, str] = {}
DEAD = 9
"""Number of dead letters: five jobs that failed, and four messages that are not valid jobs."""


class Chart(Message):
    text: str


@contract("canaries.ask", version=1, idempotent=True)
class Ask(Request[Chart]):
    text: str
    fails: str = ""


@contract("canaries.copy", version=1)
class CopyChart(Job[Chart]):
    text: str
    fails: str = ""


@contract("canaries.copied", version=1)
class Copied(Event):
    text: str


def failing(how: str, text: str) -> None:
    """Fail as a careless handler does, with message contents in the error."""
    if how == "value":
        raise ValueError(f"cannot read {text}")
    if how == "chained":
        try:
            _ = NOTHING[text]
        except KeyError as error:
            raise RuntimeError(text) from error
    if how == "validation":
        Chart.model_validate({"text": {"inner": text}})
    if how == "meant":
        raise InvalidArgument("not this one")


class Ward:
    """A service that fails in many ways."""

    def __init__(self) -> None:
        self.heard: list[str] = []
        self.router = Router("canaries")

        @self.router.request(Ask)
        async def ask(request: Ask) -> Chart:
            failing(request.fails, request.text)
            return Chart(text=request.text)

        @self.router.job(CopyChart, retry=RetryPolicy(attempts=2, delays=(1,)))
        async def copy(job: CopyChart, context: Context) -> Chart:
            await context.progress(0.5, job.text)
            failing(job.fails, job.text)
            await context.bus.publish(Copied(text=job.text))
            return Chart(text=job.text)

        @self.router.event(Copied)
        async def copied(event: Copied) -> None:
            self.heard.append(event.text)


class Heard(logging.Handler):
    """A log handler that records all lines as text, with tracebacks and extras."""

    def __init__(self) -> None:
        super().__init__(level=logging.DEBUG)
        self.lines: list[str] = []

    @override
    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(f"{self.format(record)} {record.__dict__!r}")


@pytest.fixture
def logged() -> Iterator[Heard]:
    heard, root = Heard(), logging.getLogger()
    level = root.level
    root.addHandler(heard)
    root.setLevel(logging.DEBUG)
    ours = logging.getLogger("bus")
    was, ours.level = ours.level, logging.DEBUG
    yield heard
    ours.level = was
    root.setLevel(level)
    root.removeHandler(heard)


async def spread(settings: Settings, canaries: list[str]) -> list[str]:
    """Send the canaries along every path.

    Return the texts of all results, exceptions and dead letters.
    """
    ward, said = Ward(), list[str]()
    queue = job_queue(contract_of(CopyChart))
    async with (
        Bus("canaries", settings=settings) as bus,
        bus.serving(ward.router),
        Bus("desk", settings=settings) as desk,
    ):
        # The node is shared, and may have the dead letters of an earlier test.
        await bus.purge(queue, EVERYTHING)
        for canary, how in zip(
            canaries[:8],
            ("", "", "value", "chained", "validation", "meant", "value", ""),
            strict=True,
        ):
            try:
                said.append(repr(await desk.request(Ask(text=canary, fails=how), timeout=20)))
            except BusError as error:
                said.append(f"{error!r} {error} {error.__cause__!r} {error.__context__!r}")
        for canary, how in zip(
            canaries[8:16],
            ("", "", "value", "chained", "validation", "meant", "value", ""),
            strict=True,
        ):
            job = await desk.submit(CopyChart(text=canary, fails=how))
            try:
                said.append(repr(await job.result(timeout=40)))
            except BusError as error:
                said.append(f"{error!r} {error} {error.__cause__!r} {error.__context__!r}")
        await until(lambda: len(ward.heard) == 3, "the events of what went well")
        await broken(desk._transport, canaries[16:])
        async with asyncio.timeout(60):
            # The broker sends no event for a dead letter, so the depth of the queue is polled.
            while await bus._transport.depth(dead_letter_queue(queue)) < DEAD:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        for letter in await bus.dead_letters(queue):
            said.append(f"{letter!r} {letter.envelope.headers} {letter.record!r}")
    return said


async def broken(transport: Transport, canaries: list[str]) -> None:
    """Send messages that violate the contract.

    Each has a canary in a location that a careless error would show.
    """
    for number, canary in enumerate(canaries):
        body = json.dumps(
            [{"text": [canary]}, {canary: 1}, canary, {"text": "ok", "fails": {canary: canary}}][
                number
            ]
        ).encode()
        type_ = contract_of(CopyChart).type
        message = Envelope(
            id=f"broken-{number}",
            type=type_,
            role="job",
            source="desk",
            body=body,
            timestamp=int(time.time()),
        )
        await transport.send(message, Address(exchange="bus.jobs", routing_key=type_), timeout=10)


def on_disk(directory: Path, canaries: list[str]) -> set[str]:
    """Return the canaries that are in any file of the node."""
    found: set[str] = set()
    for path in directory.rglob("*"):
        if path.is_file():
            with suppress(OSError):
                content = path.read_bytes()
                found |= {canary for canary in canaries if canary.encode() in content}
    return found


@pytest.mark.parametrize("encrypted", [True, False], ids=["encrypted", "control"])
async def test_no_canary_is_in_logs_errors_headers_or_reprs_nor_on_disk_if_payloads_are_encrypted(
    private_node: PrivateNode, logged: Heard, *, encrypted: bool
) -> None:
    ring = json.dumps({"keys": [new_encryption_key("one")]})
    secret = {"encryption_keys": SecretStr(ring), "encrypt": "everything"} if encrypted else {}
    # mypy cannot check the settings in a dictionary.
    settings = Settings(url=SecretStr(private_node.url), **secret)  # type: ignore[arg-type]
    # Each run has its own canaries, because payloads of the other run may still be on the disk.
    canaries = [
        f"canary-{number:02}-{'encrypted' if encrypted else 'control'}-of-a-patient"
        for number in range(20)
    ]
    said = await spread(settings, canaries)
    await queues_to_disk(private_node)
    written = await asyncio.to_thread(on_disk, private_node.directory, canaries)

    assert len(said) == 25
    assert logged.lines
    everything = "\n".join([*said, *logged.lines])
    assert [canary for canary in canaries if canary in everything] == []
    assert json.loads(ring)["keys"][0]["k"] not in everything
    if encrypted:
        assert written <= set(canaries[16:]), (
            "what a stranger sent in the clear, and nothing of ours"
        )
    else:
        assert written >= set(canaries[8:16]), "the search finds what is there"
