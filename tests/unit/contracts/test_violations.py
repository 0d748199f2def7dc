"""Sentences about payloads that do not match their class."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from functools import partial
from ipaddress import IPv4Address
from typing import Annotated, Any, Literal, get_args
from uuid import UUID

import pytest
from pydantic import (
    AfterValidator,
    AliasChoices,
    AliasPath,
    AwareDatetime,
    BeforeValidator,
    ConfigDict,
    Field,
    HttpUrl,
    RootModel,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError, PydanticKnownError
from pydantic_core.core_schema import ErrorType
from typing_extensions import TypedDict

from bus.contracts.contract import Message, decode
from bus.contracts.violation_texts import SENTENCES
from bus.errors import ContractViolation

SECRET = "Eleonora Quist"  # no error's text may contain it


class Line(Message):
    price: Decimal = Field(gt=0, max_digits=6, decimal_places=2)
    amount: int = Field(default=1, ge=1, le=99)


class Voucher(Message):
    kind: Literal["voucher"]
    code: str = Field(max_length=8)


class Card(Message):
    kind: Literal["card"]
    number: str


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


@dataclass
class Size:
    width: int


class Stamp(TypedDict):
    at: int


def check_vat(value: str) -> str:
    raise ValueError(f"{value} is not ours")


def check_digits(value: str) -> str:
    raise PydanticCustomError(SECRET, "who is {who}", {"who": value})


class Quote(Message):
    model_config = ConfigDict(extra="forbid")
    customer_id: UUID | None = None
    lines: list[Line] = Field(default=[])
    coupon: str = Field(default="", max_length=1, pattern="^[a-z]*$")
    by_ward: dict[int, Line] = Field(default={})
    either: int | Line | None = None
    short: Annotated[int, Field(gt=3)] | bool = True
    paid_by: Annotated[Voucher | Card, Field(discriminator="kind")] | None = None
    colour: Colour = Colour.RED
    urgent: Literal[True, "later", 3] = True
    vat: Annotated[str, AfterValidator(check_vat)] = ""
    checked: Annotated[str, BeforeValidator(check_digits), AfterValidator(check_vat)] = ""
    size: Size | None = None
    stamp: Stamp | None = None
    renamed: int = Field(default=1, validation_alias=AliasChoices("new", AliasPath("old", "deep")))
    pair: tuple[int, str] | None = None
    numbers: set[int] = Field(default=set())
    inner: "Quote | None" = None
    due: date | None = None
    sent: AwareDatetime | None = None
    at: datetime | None = None
    wait: timedelta | None = None
    link: HttpUrl | None = None
    host: IPv4Address | None = None
    ratio: float = 1
    yes: bool = True
    few: list[int] = Field(default=[], min_length=2)


class Sum(Message):
    first: int = 0

    @model_validator(mode="after")
    def check_total(self) -> "Sum":
        raise ValueError(f"{self.first} is too much")


class Numbers(RootModel[list[int]]):
    """Has no fields."""


def violation(model: type[Any], payload: object) -> str:
    body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    with pytest.raises(ContractViolation) as caught:
        decode(model, body, subject="billing.quote.v1")
    assert SECRET not in str(caught.value)
    assert caught.value.__context__ is None
    return str(caught.value).removeprefix("billing.quote.v1: ")


@pytest.mark.parametrize(
    ("payload", "sentence"),
    [
        (
            {"customer_id": SECRET, "couponn": SECRET},
            "customer_id: must be a UUID; unknown field couponn, did you mean coupon?",
        ),
        ({"lines": [{"price": 1}, {"price": 1}, {}]}, "lines[2].price: is missing."),
        ({"lines": [{"price": 0}]}, "lines[0].price: must be greater than 0."),
        ({"lines": [{"price": "1.234"}]}, "lines[0].price: must have at most 2 decimal places."),
        ({"lines": [{"price": SECRET}]}, "lines[0].price: must be a decimal number."),
        ({"lines": [{"price": 1, "amount": 0}]}, "lines[0].amount: must be at least 1."),
        ({"lines": SECRET}, "lines: must be an array."),
        ({"coupon": "ab"}, "coupon: must have at most 1 character."),
        ({"coupon": "A"}, "coupon: must match the pattern '^[a-z]*$'."),
        ({"coupon": 7}, "coupon: must be a string."),
        ({"by_ward": {SECRET: {"price": 1}}}, "by_ward: a key must be an integer."),
        ({"by_ward": {"7": {"price": SECRET}}}, "by_ward[*].price: must be a decimal number."),
        (
            {"by_ward": {"7": SECRET, "8": SECRET}},
            "by_ward[*]: must be an object (2 times).",
        ),
        ({"paid_by": {"kind": SECRET}}, "paid_by.kind: must be 'voucher' or 'card'."),
        ({"paid_by": {}}, "paid_by.kind: is missing."),
        ({"paid_by": {"kind": "card"}}, "paid_by.number: is missing."),
        (
            {"paid_by": {"kind": "voucher", "code": SECRET}},
            "paid_by.code: must have at most 8 characters.",
        ),
        ({"colour": SECRET}, "colour: must be 'red' or 'blue'."),
        ({"urgent": SECRET}, "urgent: must be true, 'later' or 3."),
        ({"size": {}}, "size.width: is missing."),
        ({"stamp": {}}, "stamp.at: is missing."),
        ({"new": SECRET}, "new: must be an integer."),
        ({"old": {"deep": SECRET}}, "old.deep: must be an integer."),
        ({"pair": [SECRET]}, "pair[0]: must be an integer; pair[1]: is missing."),
        ({"pair": [1, "a", 2]}, "pair: has too many items."),
        ({"numbers": [SECRET]}, "numbers[0]: must be an integer."),
        ({"inner": {"inner": {"coupon": 1}}}, "inner.inner.coupon: must be a string."),
        ({"due": SECRET}, "due: must be a date, such as 2026-01-31."),
        ({"due": "2026-01-31T10:00:00"}, "due: must be a date without a time."),
        ({"sent": "2026-01-31T10:00:00"}, "sent: must have a time zone."),
        ({"at": SECRET}, "at: must be a date with a time, such as 2026-01-31T13:45:00Z."),
        ({"wait": SECRET}, "wait: must be a duration, such as PT30S."),
        ({"link": SECRET}, "link: must be a URL."),
        ({"link": "ftp://x"}, "link: must have one of the permitted URL schemes."),
        ({"host": SECRET}, "host: must be an IPv4 address."),
        ({"ratio": SECRET}, "ratio: must be a number."),
        ({"yes": SECRET}, "yes: must be true or false."),
        ({"few": [1]}, "few: must have at least 2 items."),
        ([SECRET], "the payload must be an object."),
        (b'{"coupon": ', "the payload is not valid JSON (line 1 column 11)."),
        (b"[" * 202, "the payload is nested too deeply (line 1 column 202)."),
    ],
)
def test_a_violation_is_a_sentence_without_a_value(payload: object, sentence: str) -> None:
    assert violation(Quote, payload) == sentence


@pytest.mark.parametrize(
    ("payload", "sentence"),
    [
        ({"either": SECRET}, "either: must be an integer or an object."),
        ({"short": 2}, "short: must be greater than 3 or true or false."),
        (
            {"either": {"price": SECRET, "amount": 0}},
            (
                "either: matches none of its types (must be an integer; or Line: price: must be a "
                "decimal number; or Line: amount: must be at least 1)."
            ),
        ),
    ],
)
def test_the_errors_of_a_union_are_one_finding(payload: object, sentence: str) -> None:
    assert violation(Quote, payload) == sentence


@pytest.mark.parametrize(
    ("model", "payload", "sentence"),
    [
        (Quote, {"vat": SECRET}, "vat: is not accepted by the validator check_vat."),
        (
            Quote,
            {"checked": SECRET},
            "checked: is not accepted by one of the validators check_vat, check_digits.",
        ),
        (Sum, {"first": 7}, "the payload is not accepted by the validator check_total."),
    ],
)
def test_the_refusal_of_a_validator_names_the_validator_and_not_its_text(
    model: type[Message], payload: object, sentence: str
) -> None:
    assert violation(model, payload) == sentence


def test_a_validator_without_a_name_is_called_the_validator_of_its_field() -> None:
    class Odd(Message):
        vat: Annotated[str, AfterValidator(partial(check_vat))]

    assert violation(Odd, {"vat": SECRET}) == "vat: is not accepted by its validator."


def test_a_compiled_pattern_is_shown_as_it_was_written() -> None:
    class Odd(Message):
        name: str = Field(pattern=re.compile("^[a-z]+$"))

    assert violation(Odd, {"name": "7"}) == "name: must match the pattern '^[a-z]+$'."


def test_a_limit_that_a_validator_invents_is_not_shown() -> None:
    class Odd(Message):
        age: int

        @field_validator("age")
        @classmethod
        def _look(cls, age: int) -> int:
            raise PydanticKnownError("greater_than", {"gt": 4711})

    assert violation(Odd, {"age": 4711}) == "age: is too small."


@pytest.mark.parametrize(
    "name",
    [SECRET, "coupon 4711", "coupon4711", "patron", "Quist", "coupo\nn", "😀", "coupon" * 50_000],
    ids=lambda name: ascii(name[:12]),
)
def test_an_unknown_field_that_may_be_data_is_not_named(name: str) -> None:
    class Order(Message):
        model_config = ConfigDict(extra="forbid")
        coupon: str = ""
        customer_id: int = 0

    sentence = violation(Order, {name: 1})
    assert sentence == "unknown field, whose name is not shown (known fields: coupon, customer_id)."


@pytest.mark.parametrize("name", ["dya", "ady", "DAY", "Day", "Dya"])
def test_a_short_name_with_two_letters_exchanged_is_named_with_the_field(name: str) -> None:
    class Visit(Message):
        model_config = ConfigDict(extra="forbid")
        day: str = ""

    assert violation(Visit, {name: 1}) == f"unknown field {name}, did you mean day?"


@pytest.mark.parametrize("name", ["may", "yda", "dat", "da1"])
def test_a_short_name_with_other_letters_may_be_data_and_is_not_named(name: str) -> None:
    class Visit(Message):
        model_config = ConfigDict(extra="forbid")
        day: str = ""

    assert name not in violation(Visit, {name: 1})


def test_an_unknown_field_is_compared_with_the_fields_of_its_own_object() -> None:
    class Item(Message):
        model_config = ConfigDict(extra="forbid")
        price: int = 0

    class Order(Message):
        model_config = ConfigDict(extra="forbid")
        items: list[Item]
        total: int = Field(default=0, alias="sumTotal")

    text = violation(Order, {"items": [{"pric": 1}, {"totl": 1}], "sumtotal": 1})
    # The versions of pydantic do not report the errors in the same order.
    assert set(text.removesuffix("?").split("; ")) == {
        "items[1]: unknown field, whose name is not shown (known fields: price)",
        "items[0]: unknown field pric, did you mean price",
        "unknown field sumtotal, did you mean sumTotal",
    }


def test_a_payload_that_is_an_array_has_findings_by_index() -> None:
    assert violation(Numbers, [1, SECRET]) == "[1]: must be an integer."


def test_a_violation_has_at_most_five_findings_and_a_bounded_length() -> None:
    class Many(Message):
        numbers: list[int]

    few = violation(Many, {"numbers": [SECRET] * 12})
    assert few.startswith("numbers[0]: must be an integer; numbers[1]: must be an integer; ")
    assert few.endswith("numbers[4]: must be an integer; and 7 more.")
    assert violation(Many, {"numbers": [SECRET] * 1000}).endswith("; and 995 more.")

    deep: dict[str, Any] = {"coupon": 1}
    for _ in range(60):
        deep = {"inner": deep}
    text = violation(Quote, deep)
    assert text.endswith("inner.inner.coupon: must be a string.")
    assert len(text) < 150


def test_most_rules_of_pydantic_have_a_sentence_of_their_own() -> None:
    """Find out when pydantic adds rules: a generic text is shown for a rule that is not here."""
    without = set(get_args(ErrorType)) - set(SENTENCES)
    assert without <= {
        # Have a function of their own.
        "assertion_error",
        "enum",
        "extra_forbidden",
        "json_invalid",
        "literal_error",
        "unexpected_keyword_argument",
        "union_tag_invalid",
        "union_tag_not_found",
        "value_error",
        # Cannot be caused by JSON.
        "callable_type",
        "default_factory_not_called",
        "ellipsis_error",
        "frozen_field",
        "frozen_instance",
        "get_attribute_error",
        "is_instance_of",
        "is_subclass_of",
        "iteration_error",
        "missing_sentinel_error",
        "needs_python_object",
        "no_such_attribute",
    }


def test_a_rule_without_a_sentence_is_named() -> None:
    class Odd(Message):
        call: Callable[[], None]

    assert violation(Odd, {"call": SECRET}) == "call: violates the rule 'callable type'."
