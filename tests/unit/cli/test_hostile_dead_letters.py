"""`bus dead export` and `bus dead import`: dead letters with headers that any client can write."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import pytest

from bus.cli.dead.export_file import ExportedLetter, ExportReader, write
from bus.cli.dead.imports import Import
from bus.messaging.envelope import Envelope
from bus.messaging.fault_record import read_record
from bus.messaging.ports.transport import Accepted, Transport
from bus.messaging.topology.addresses import Address
from bus.messaging.topology.names import work_queue
from bus.operations.dead_letters import DeadLetter
from bus.transports.wire_format import AmqpMessage, decode


class Broker:
    """A transport that accepts each message, and keeps the address."""

    def __init__(self) -> None:
        self.addresses: list[Address] = []

    async def send(self, _message: Envelope, address: Address, *, timeout: float) -> Accepted:
        assert timeout > 0
        self.addresses.append(address)
        return Accepted()


def to_dead_letter(wire: AmqpMessage, notes: dict[str, Any], queue: str) -> DeadLetter:
    sent = decode(wire, role="job", queue=queue, received=0)
    record = read_record(sent, notes, work_queue=work_queue(queue))
    return DeadLetter(envelope=sent, record=record, dead_queue=queue, notes=notes)


def exported(
    tmp_path: Path, queue: str, broker: dict[str, Any] | None = None, **properties: Any
) -> tuple[DeadLetter, ExportedLetter]:
    """Return a dead letter that arrived in a queue, and the same letter read from an export."""
    wire = AmqpMessage(
        **{"body": b"{}", "message_id": "m", "type": "a.b.v1", "timestamp": 1, **properties}
    )
    read = to_dead_letter(wire, broker or {}, queue)
    write(tmp_path / "hostile", [read])
    with ExportReader(tmp_path / "hostile") as letters:
        [imported] = letters
    return read, imported


HOSTILE_HEADERS: dict[str, dict[str, str | int]] = {
    "far first failure": {"first-failed-at": 2**60},
    "name": {"": 1, "n" * 255: ""},
    "attempts": {"dead-code": "x", "dead-attempts": 2**60, "dead-at": 2**60},
    "negative": {"dead-code": "x", "dead-attempts": -1, "dead-at": -(2**63), "first-failed-at": -1},
    "long code": {"dead-code": "\U0001f4a5" * 7_000},
    "long reason": {"dead-code": "x", "dead-reason": "ä" * 15_000},
    "long place": {"dead-code": "x", "dead-where": "w" * 9_000, "dead-frames": "f\n" * 9_000},
    "long worker": {"dead-code": "x", "dead-error": "e" * 9_000, "dead-host": "h" * 9_000},
    "long queue": {"dead-code": "x", "dead-queue": "q" * 9_000, "dead-by": "b" * 9_000},
    "many": {str(number): "" for number in range(4_000)},
}


@pytest.mark.parametrize("queue", ["a.jobs.b.v1.dead", "a.unroutable.dead"])
@pytest.mark.parametrize("headers", HOSTILE_HEADERS.values(), ids=[*HOSTILE_HEADERS])
def test_a_dead_letter_with_hostile_headers_is_exported_and_imported_as_it_was(
    headers: dict[str, str | int], queue: str, tmp_path: Path
) -> None:
    read, imported = exported(tmp_path, queue, headers=headers)
    assert imported.queue == queue.removesuffix(".dead")
    assert imported.message.headers == read.envelope.headers


@pytest.mark.parametrize("queue", ["a.jobs.b.v1.dead", "a.unroutable.dead"])
@pytest.mark.parametrize(
    "death",
    [
        {"reason": "r" * 30_000, "queue": "q" * 30_000},
        {"reason": "expired", "routing-keys": ["k" * 30_000]},
        {"reason": "expired", "routing-keys": [], "time": 2**60},
        {"reason": "expired", "time": datetime(1900, 1, 1, tzinfo=UTC)},
        {"reason": "expired", "time": 2**53 - 1, "weight": float("nan"), "w": float("inf")},
    ],
    ids=["long texts", "long key", "far time", "old time", "NaN"],
)
def test_a_dead_letter_with_hostile_notes_of_a_broker_is_exported_and_imported(
    death: dict[str, Any], queue: str, tmp_path: Path
) -> None:
    assert exported(tmp_path, queue, {"x-death": [death]})[1].message.id == "m"


def test_a_dead_letter_with_the_last_time_of_the_calendar_is_exported_and_imported(
    tmp_path: Path,
) -> None:
    last = int(datetime.max.replace(tzinfo=UTC).timestamp()) - 1
    assert exported(tmp_path, "q.jobs.b.v1.dead", timestamp=last)[1].message.timestamp == last


async def test_an_unroutable_message_is_put_back_into_the_queue_of_unroutable_messages(
    tmp_path: Path,
) -> None:
    broker = Broker()
    for queue in ("a.jobs.b.v1.dead", "a.unroutable.dead"):
        path = tmp_path / queue
        path.mkdir()
        await Import(1).send(cast("Transport", broker), [exported(path, queue)[1]])
    jobs, unroutable = broker.addresses
    assert (jobs.exchange, jobs.routing_key) == ("bus.dead", "a.jobs.b.v1")
    # No work queue has this name, so the alternate exchange of the return exchange routes it.
    assert (unroutable.exchange, unroutable.routing_key) == ("a.return", "a.unroutable")
