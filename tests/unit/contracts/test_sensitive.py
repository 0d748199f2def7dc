"""Tests of a message's repr, which appears in logs and tracebacks."""

import pytest

from bus import Message, Sensitive
from bus.contracts.sensitive import sensitive_fields
from bus.testing import shown_values


class Address(Message):
    street: Sensitive[str]
    country: str


class Reader(Message):
    id: int
    name: Sensitive[str]
    birth: Sensitive[str] | None = None
    notes: tuple[Sensitive[str], ...] = ()
    address: Address


ADA = Reader(
    id=7,
    name="Ada",
    birth="1815-12-10",
    notes=("returns late",),
    address=Address(street="St James's Square 12", country="GB"),
)


def test_a_messages_repr_names_its_fields_and_shows_no_value() -> None:
    assert repr(ADA) == "Reader(id=…, name=…, birth=…, notes=…, address=…)"
    assert str(ADA) == "id=… name=… birth=… notes=… address=…"
    assert f"{[ADA]} {ADA!r:.9}" == "[Reader(id=…, name=…, birth=…, notes=…, address=…)] Reader(id"


def test_inside_a_block_tests_see_the_values_but_for_sensitive_ones() -> None:
    with shown_values():
        shown = repr(ADA)
    assert (
        shown == "Reader(id=7, name=…, birth=…, notes=…, address=Address(street=…, country='GB'))"
    )
    assert "Ada" not in repr(ADA)


def test_an_exception_that_carries_a_message_shows_nothing_of_it() -> None:
    known: dict[Message, int] = {}
    with pytest.raises(KeyError) as caught:
        _ = known[ADA]
    assert "Ada" not in f"{caught.value!r} {caught.value}"


def test_a_sensitive_field_is_a_value_like_any_other_but_for_that() -> None:
    assert ADA.name == "Ada"
    assert Reader.model_validate_json(ADA.model_dump_json()) == ADA
    assert sensitive_fields(Reader) == {"name", "birth", "notes"}


def test_the_json_schema_says_what_is_sensitive() -> None:
    properties = Reader.model_json_schema()["properties"]
    assert properties["name"]["x-sensitive"] is True
    assert "x-sensitive" not in properties["id"]
