"""Tests of the sources of a trace, with an asker and queues in memory."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from typer.testing import CliRunner
from typing_extensions import override

from bus import Settings
from bus.cli import build
from bus.cli.errors import Reporter
from bus.cli.trace import sources
from bus.cli.trace.commands import describe_search
from bus.cli.trace.sources import Broker, Reading, SourceOptions, read_trace
from bus.errors import InvalidArgument, PermissionDenied, Unavailable
from bus.messaging.control import Answer, FindMessages, Ping
from bus.messaging.envelope import Envelope
from bus.messaging.fault_record import FaultRecord
from bus.messaging.service_info import InstanceState, RememberedMessages
from bus.operations.dead_letters import DeadLetter
from bus.operations.message_trace.identify import Identified
from bus.operations.queue_inspection import QueueStatus
from bus.runtime.discovery.asker import Asker
from tests.unit.cli.trace.records import LIBRARY, ORDER, QUEUE, SCAN, SHOP, memory, remembered

OPTIONS = SourceOptions(scan=10, window=0.1)


class FakeAsker:
    """An asker with the memories of some instances."""

    def __init__(self, memories: Sequence[RememberedMessages], silent: Sequence[str] = ()) -> None:
        self.memories = memories
        self.silent = silent
        """Names of instances that answer only PING."""
        self.asked: list[str] = []

    async def ask(self, question: Any, target: object = None, **_options: Any) -> list[Answer[Any]]:
        states = [
            InstanceState(service="stock", instance=name, started=1, state="ready")
            for name in self.silent
        ]
        if isinstance(question, Ping):
            return [Answer(record, 0.01) for record in (*self.memories, *states)]
        assert isinstance(question, FindMessages)
        self.asked.append(question.correlation_id)
        return [Answer(self.find(each, question.correlation_id), 0.01) for each in self.memories]

    def find(self, record: RememberedMessages, text: str) -> RememberedMessages:
        found = tuple(
            message
            for message in record.messages
            if message.id.startswith(text) or message.correlation_id.startswith(text)
        )
        return record.model_copy(update={"messages": found})

    def announcements(self) -> Any:
        raise AssertionError("a trace needs no announcements")


def opened(asker: Asker) -> Callable[[Settings], Any]:
    @asynccontextmanager
    async def open_(_settings: Settings) -> AsyncIterator[Asker]:
        yield asker

    return open_


@pytest.fixture(autouse=True)
def _empty_broker(monkeypatch: pytest.MonkeyPatch) -> None:
    async def read(*_: object) -> Broker:
        return Broker(letters=[], queues=())

    monkeypatch.setattr(sources, "read_broker", read)


async def read(text: str, asker: FakeAsker) -> Reading:
    return await read_trace(Settings(), text, OPTIONS, asker=opened(asker))


async def test_a_full_correlation_id_is_asked_once() -> None:
    asker = FakeAsker([SHOP, LIBRARY])
    reading = await read(ORDER, asker)
    assert reading.identified == Identified(correlation_id=ORDER)
    assert asker.asked == [ORDER]
    assert reading.notes == ()


async def test_after_the_id_of_a_message_its_correlation_id_is_asked() -> None:
    asker = FakeAsker([SHOP, LIBRARY])
    reading = await read(SCAN[:8], asker)
    assert reading.identified == Identified(correlation_id=ORDER, message_id=SCAN)
    assert asker.asked == [SCAN[:8], ORDER]
    assert reading.sources.memories is not None
    assert sum(len(each.messages) for each in reading.sources.memories) == 3


async def test_an_instance_without_an_answer_is_named() -> None:
    reading = await read(ORDER, FakeAsker([SHOP, LIBRARY], silent=["vm-9-ef"]))
    assert reading.alive == 3
    [note] = reading.notes
    assert note == (
        "2 of 3 instances answered within 0.1 s, and these did not: stock vm-9-ef. "
        "Ask for longer with --window."
    )


async def test_without_the_right_to_ask_the_dead_letters_are_shown() -> None:
    class Refused(FakeAsker):
        @override
        async def ask(self, *_: Any, **__: Any) -> list[Answer[Any]]:
            raise PermissionDenied("ida may not ask services")

    reading = await read(ORDER, Refused([]))
    assert reading.sources.memories is None
    assert reading.sources.letters == []
    assert reading.notes == ("instances were not asked: ida may not ask services",)


async def test_without_any_source_the_first_error_is_raised(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def fail(*_: object) -> Broker:
        return Broker(notes=("queues and dead letters were not read: no broker",))

    @asynccontextmanager
    async def refuse(_settings: Settings) -> AsyncIterator[Asker]:
        if not _settings.debug:
            raise Unavailable("no broker")
        yield FakeAsker([])

    monkeypatch.setattr(sources, "read_broker", fail)
    with pytest.raises(Unavailable, match="no broker"):
        await read_trace(Settings(), ORDER, OPTIONS, asker=refuse)


async def test_an_ambiguous_beginning_is_refused() -> None:
    other = memory(
        *(each.model_copy(update={"correlation_id": ORDER[:8]}) for each in SHOP.messages)
    )
    with pytest.raises(InvalidArgument, match="ambiguous"):
        await read(ORDER[:6], FakeAsker([SHOP, other]))


async def test_an_unknown_id_names_the_places_of_the_search() -> None:
    reading = await read("eeee", FakeAsker([SHOP, LIBRARY]))
    assert reading.identified is None
    text = describe_search("eeee", reading)
    assert text.startswith(
        "no message with the id 'eeee' was found in the memory of 2 instances, with messages since "
    )
    assert text.endswith(
        ". No dead letters were found. Check the id, or search the logs of the services for it."
    )


@pytest.mark.parametrize(
    ("count", "sentence"),
    [(1, "1 dead letter at the broker has"), (2, "2 dead letters at the broker have")],
)
async def test_the_dead_letters_of_a_search_are_not_those_of_instances(
    count: int, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    letter = DeadLetter(
        envelope=Envelope(id="ffff", type="library.scan.v1", role="job", source="desk"),
        record=FaultRecord(by="worker", code="internal", queue=QUEUE, attempts=2),
        dead_queue=f"{QUEUE}.dead",
    )

    async def read_letters(*_: object) -> Broker:
        return Broker(letters=[letter] * count, queues=())

    monkeypatch.setattr(sources, "read_broker", read_letters)
    text = describe_search("eeee", await read("eeee", FakeAsker([])))
    assert f"in the memory of 0 instances. {sentence} another id." in text


async def test_the_dead_letters_are_read_again_if_a_remembered_one_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    letter = DeadLetter(
        envelope=Envelope(id=SCAN, type="library.scan.v1", role="job", source="shop"),
        record=FaultRecord(by="worker", code="internal", queue=QUEUE, attempts=2),
        dead_queue=f"{QUEUE}.dead",
    )
    found = [[], [letter], [letter]]  # just after another command, the queue seems empty

    async def read_letters(*_: object) -> Broker:
        return Broker(letters=found.pop(0), queues=())

    monkeypatch.setattr(sources, "read_broker", read_letters)
    monkeypatch.setattr(sources, "READ_AGAIN_SECONDS", 0)
    dead = memory(remembered("dead-lettered", outcome="internal"))
    assert (await read(ORDER, FakeAsker([dead]))).sources.letters == [letter]
    assert (await read(ORDER, FakeAsker([dead]))).sources.letters == [letter]
    assert found == []  # it was not read again without need


async def test_a_text_of_two_characters_is_refused_with_the_minimum() -> None:
    with pytest.raises(InvalidArgument, match=r"'zz' is too short\. Write at least 4 characters"):
        await read("zz", FakeAsker([SHOP, LIBRARY]))


async def test_an_unknown_id_names_the_queues_that_were_not_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def read_queues(*_: object) -> Broker:
        waiting = QueueStatus(name=QUEUE, service="library", role="jobs", ready=1, consumers=0)
        return Broker(letters=[], queues=(waiting,))

    monkeypatch.setattr(sources, "read_broker", read_queues)
    text = describe_search("eeee", await read("eeee", FakeAsker([])))
    assert f"Not read: {QUEUE} (1 ready, no consumer)." in text


def test_an_invalid_window_is_refused() -> None:
    app = build(["trace"], Reporter(debug=False))
    assert CliRunner().invoke(app, ["trace", "x", "--window", "nan"]).exit_code == 2
    assert CliRunner().invoke(app, ["trace", "x", "--window", "61"]).exit_code == 2
