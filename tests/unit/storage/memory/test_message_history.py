"""The history of the last messages: what it finds, and the memory and the time that it takes."""

import tracemalloc
from time import perf_counter
from typing import Any

import pytest

from bus.messaging.envelope import Envelope
from bus.messaging.ids import uuid4_factory
from bus.messaging.ports.history import History
from bus.messaging.service_info import MAX_COUNT, RememberedMessage
from bus.storage.memory.message_history import MAX_UNVERIFIED, MessageHistory
from tests.unit.fakes import NOW, envelope

new_id = uuid4_factory()
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
MEGABYTE = 1024 * 1024


def message(**attributes: Any) -> Envelope:
    return envelope(**{"id": new_id(), "correlation_id": new_id(), **attributes})


def ids(history: MessageHistory, text: str) -> list[str]:
    return [each.id for each in history.find(text)]


def test_messages_are_found_by_their_correlation_id_the_oldest_first() -> None:
    history = MessageHistory(10)
    history.remember("handled", message(id="m-2", correlation_id="c-1"), NOW + 1)
    history.remember("sent", message(id="m-1", correlation_id="c-1"), NOW)
    history.remember("sent", message(id="m-3", correlation_id="c-2"), NOW)
    assert ids(history, "c-1") == ["m-1", "m-2"]


def test_messages_are_found_by_their_own_id() -> None:
    history = MessageHistory(10)
    history.remember("sent", message(id="m-1", correlation_id="c-1"), NOW)
    history.remember("sent", message(id="m-2", correlation_id=""), NOW)
    assert (ids(history, "m-1"), ids(history, "m-2")) == (["m-1"], ["m-2"])
    assert history.find("m-2")[0].correlation_id == "m-2"


def test_the_begin_of_an_id_finds_the_message_if_it_has_four_characters() -> None:
    history = MessageHistory(10)
    sent = message()
    history.remember("sent", sent, NOW)
    assert ids(history, sent.id[:4]) == ids(history, sent.correlation_id[:8]) == [sent.id]
    assert ids(history, sent.id[:3]) == ids(history, "") == []


def test_an_entry_has_all_that_is_known_of_a_message_but_no_payload() -> None:
    history = MessageHistory(10)
    sent = message(
        id="m-1",
        correlation_id="c-1",
        causation_id="m-0",
        traceparent=TRACE,
        body=b"secret",
        attempt=2,
    )
    history.remember("retried", sent, NOW, 0.5, "internal", queue="q", tier="5s")
    (found,) = history.find("c-1")
    assert found.model_dump() == {
        "action": "retried",
        "id": "m-1",
        "type": "ledger.add.v1",
        "source": "office",
        "at": int(NOW * 1000),
        "seconds": 0.5,
        "attempt": 2,
        "outcome": "internal",
        "correlation_id": "c-1",
        "causation_id": "m-0",
        "traceparent": TRACE,
        "queue": "q",
        "tier": "5s",
        "lost_deliveries": 0,
    }


def test_the_oldest_messages_are_dropped_first() -> None:
    history = MessageHistory(2)
    assert history.complete_since is None
    for number in range(3):
        history.remember("sent", message(id=f"m-{number}", correlation_id="c-1"), NOW + number)
    assert ids(history, "c-1") == ["m-1", "m-2"]
    assert history.complete_since == NOW + 1


def test_a_full_history_is_not_complete_for_the_time_in_which_its_oldest_handler_ran() -> None:
    history = MessageHistory(2)
    history.remember("handled", message(id="short", correlation_id="c-1"), NOW + 8, 1)
    history.remember("handled", message(id="long", correlation_id="c-1"), NOW, 10)
    history.remember("handled", message(id="last", correlation_id="c-1"), NOW + 11, 1)
    assert ids(history, "c-1") == ["long", "last"]
    assert history.complete_since == NOW + 10


def test_messages_of_unverified_senders_drop_only_each_other() -> None:
    history = MessageHistory(2)
    history.remember("handled", message(id="m-1", correlation_id="c-1"), NOW)
    for _ in range(MAX_UNVERIFIED + 50):
        history.remember("refused", message(), NOW, 0, "unauthenticated", verified=False)
    history.remember("refused", message(id="m-2", correlation_id="c-1"), NOW, verified=False)
    assert ids(history, "c-1") == ["m-1", "m-2"]
    assert len(history) == MAX_UNVERIFIED + 1


def test_texts_that_no_encoder_accepts_do_no_harm() -> None:
    history = MessageHistory(2)
    history.remember("sent", message(correlation_id="c-1", source="\ud800"), NOW)
    (found,) = history.find("c-1")
    found.model_dump_json()
    assert found.source == "?"


def filled(make: Any) -> tuple[MessageHistory, float]:
    """Return a full history, and the bytes that it takes."""
    tracemalloc.start()
    history = MessageHistory(10_000)
    before = tracemalloc.get_traced_memory()[0]
    for number in range(11_000):
        history.remember("handled", make(), NOW + number, 0.001 * number, queue="q")
    used = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    return history, used


def test_a_message_with_a_hostile_header_does_not_hide_the_others() -> None:
    history = MessageHistory(10)
    history.remember("sent", message(correlation_id="c-1"), NOW)
    forged = message(correlation_id="c-1", attempt=2**63 - 1, source="a\x1b[2J\n" * 5_000)
    history.remember("handled", forged, NOW + 1, -5)
    good, bad = history.find("c-1")
    assert (good.action, bad.attempt, bad.seconds) == ("sent", MAX_COUNT, 0)
    assert RememberedMessage.model_validate_json(bad.model_dump_json()) == bad


def test_ten_thousand_messages_take_less_than_seven_megabytes() -> None:
    history, used = filled(
        # Each message on the wire brings a text of its own.
        lambda: message(causation_id=new_id(), traceparent=f"00-{new_id()[4:]}-{new_id()[20:]}-01")
    )
    assert len(history) == 10_000
    assert used < 7 * MEGABYTE, f"{used} bytes"


def test_ten_thousand_messages_with_the_longest_headers_take_less_than_twelve_megabytes() -> None:
    def longest() -> Envelope:
        long = new_id() + "x" * 988
        return message(
            id=f"{long[:254]}1",  # AMQP limits the id and the sender to 255 bytes
            correlation_id=f"{long}2",
            causation_id=f"{long}3",
            traceparent=f"{long}4",
            tracestate=long,
            source=f"{long[:254]}5",
            body=b"x" * 1000,
        )

    history, used = filled(longest)
    assert len(history) == 10_000
    assert used < 12 * MEGABYTE, f"{used} bytes"


@pytest.mark.parametrize("prefix", [4, 36])
def test_a_search_in_ten_thousand_messages_takes_a_few_milliseconds(prefix: int) -> None:
    history = MessageHistory(10_000)
    for number in range(10_000):
        history.remember("sent", message(), NOW + number)
    wanted = message()
    history.remember("sent", wanted, NOW)

    def seconds() -> float:
        begin = perf_counter()
        assert wanted.id in ids(history, wanted.id[:prefix])
        return perf_counter() - begin

    # The fastest of several searches, because other processes use the processor as well.
    assert min(seconds() for _ in range(5)) < 0.02


def test_the_memory_history_is_a_history() -> None:
    history: History = MessageHistory(1)
    history.remember("sent", message(), NOW)
