"""Tests of the correlation id that a user means."""

import pytest

from bus.errors import InvalidArgument
from bus.messaging.service_info import RememberedMessage, RememberedMessages
from bus.operations.message_trace.identify import Identified, identify
from bus.operations.message_trace.model import TraceSources

IDS = [
    ("aaaa1111-root", "aaaa1111-root"),
    ("bbbb2222-effect", "aaaa1111-root"),
    ("bbbb2222-other", "cccc3333-own"),
    ("dddd4444", "cccc3333-own"),
]


def sources() -> TraceSources:
    messages = tuple(
        RememberedMessage(
            action="sent", id=id_, type="a.b.v1", source="desk", at=1, correlation_id=correlation
        )
        for id_, correlation in IDS
    )
    memory = RememberedMessages(
        service="desk", instance="1", started=1, state="ready", since=1, messages=messages
    )
    return TraceSources(memories=[memory])


@pytest.mark.parametrize(
    ("text", "correlation_id", "message_id"),
    [
        ("aaaa1111-root", "aaaa1111-root", None),
        ("aaaa", "aaaa1111-root", None),
        ("cccc", "cccc3333-own", None),
        ("dddd4444", "cccc3333-own", "dddd4444"),
        ("dddd", "cccc3333-own", "dddd4444"),
        ("bbbb2222-e", "aaaa1111-root", "bbbb2222-effect"),
    ],
)
def test_a_correlation_id_can_be_full_abbreviated_or_the_one_of_a_message(
    text: str, correlation_id: str, message_id: str | None
) -> None:
    expected = Identified(correlation_id=correlation_id, message_id=message_id)
    assert identify(text, sources()) == expected


def test_a_long_correlation_id_means_the_beginning_that_an_instance_remembers() -> None:
    long = "harvest-" + 10 * "0123456789"
    remembered = RememberedMessage(
        action="sent", id="eeee", type="a.b.v1", source="desk", at=1, correlation_id=long[:64]
    )
    memory = RememberedMessages(
        service="desk", instance="1", started=1, state="ready", since=1, messages=(remembered,)
    )
    expected = Identified(correlation_id=long)
    assert identify(long, TraceSources(memories=[memory])) == expected


def test_an_unknown_id_means_nothing() -> None:
    assert identify("eeee", sources()) is None


def test_a_beginning_of_two_correlation_ids_is_refused() -> None:
    with pytest.raises(InvalidArgument, match=r"ambiguous.*aaaa1111-root, cccc3333-own"):
        identify("bbbb2222", sources())


def test_three_characters_are_refused() -> None:
    with pytest.raises(InvalidArgument, match="at least 4 characters"):
        identify("aaa", sources())
