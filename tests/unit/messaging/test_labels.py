import pytest

from bus.messaging.labels import (
    drop_type,
    failure_label,
    message_facts,
    message_label,
    one_line,
    short_id,
)
from tests.unit.fakes import envelope

UUID = "a067102e-7f0b-4c39-9a3c-2f6d4c0f9a11"


@pytest.mark.parametrize(
    ("type_", "id_", "label"),
    [
        ("billing.quote.v1", UUID, "billing.quote.v1 a067102e"),
        ("billing.quote.v1", "order-2026-000017", "billing.quote.v1 order-2026-000017"),
        ("billing.quote.v1\nforged", "m\x1b[2J", "billing.quote.v1 forged m\\u001b[2J"),
        ("", UUID, "message without type a067102e"),
    ],
)
def test_a_label_has_the_type_and_the_short_id(type_: str, id_: str, label: str) -> None:
    assert message_label(envelope(type_, id=id_)) == label


def test_an_id_that_is_not_a_uuid_is_not_shortened_to_a_part_that_many_share() -> None:
    assert short_id("order-2026-000017") == "order-2026-000017"
    assert len(short_id("x" * 1000)) == 64


@pytest.mark.parametrize("text", ["a\nb", "a\r\nb", "a\x85b", "a\u2028b"])
def test_no_text_continues_on_another_line(text: str) -> None:
    assert one_line(text) == "a b"


def test_the_facts_of_a_message_have_its_ids_and_further_fields() -> None:
    assert message_facts(envelope(queue="ledger.requests"), why="gone") == {
        "type": "ledger.add.v1",
        "queue": "ledger.requests",
        "message_id": "m-1",
        "correlation_id": "c-1",
        "why": "gone",
    }


def test_a_failure_without_a_place_has_only_its_class() -> None:
    assert failure_label({"error": "KeyError", "where": None}) == "KeyError"


def test_a_failure_has_its_class_and_its_text_and_its_place() -> None:
    facts = {"error": "NotFound", "where": "a.py:3 f"}
    assert failure_label(facts) == "NotFound at a.py:3 f"
    assert failure_label(facts, "NotFound") == "NotFound at a.py:3 f"
    assert failure_label(facts, "NotFound: no\nbook") == "NotFound: no book (a.py:3 f)"


def test_a_reason_in_a_line_about_a_message_does_not_repeat_its_type() -> None:
    message = envelope()
    about = "DeadlineExceeded: ledger.add.v1: the handler took too long"
    assert drop_type(about, message) == "DeadlineExceeded: the handler took too long"
    other = "Internal: ledger.add.v10: ledger.add.v1: failed"
    assert drop_type(other, message) == other
    assert drop_type("NotFound", message) == "NotFound"
