import io
from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from enum import Enum
from typing import Annotated, Literal, Optional
from uuid import UUID

import pytest
from pydantic import BaseModel, Field, HttpUrl
from rich.console import Console

from bus.cli.contract_output import show_all, table_row
from bus.cli.contract_schemas import to_json
from bus.cli.loading import Known
from bus.contracts.contract import Catalog, Message, Request, contract, contract_of
from bus.contracts.schema import fields_of, sample_of, schema_of
from bus.contracts.sensitive import Sensitive, sensitive_fields
from tests.unit.ledger import BooksClosed, CloseBooks, GetTotal


class Colour(Enum):
    RED = "red"


class Leaflet(Message):
    size: int


class Leaf(BaseModel):
    size: int = Field(gt=2)


class Tree(BaseModel):
    left: Optional["Tree"] = None
    leaves: tuple[Leaf, ...]
    pair: tuple[int, str]


class Everything(BaseModel):
    id: UUID
    at: datetime
    link: HttpUrl
    kind: Literal["a", "b"]
    colour: Colour
    code: str = Field(min_length=8, max_length=9)
    letter: str = Field(max_length=1)
    share: float = Field(gt=0, lt=1)
    below: int = Field(lt=0)
    dozens: int = Field(ge=30, multiple_of=12)
    upto: int = Field(le=-5)
    tens: int = Field(gt=5, multiple_of=10)
    price: Decimal
    yes: bool
    names: list[str] = Field(min_length=2)
    table: dict[str, int]
    either: int | str | None
    tree: Tree
    given: str = Field(examples=["like this"])
    usual: str = "usual"


class Told(Leaf):
    title: str
    """Title of the book,
    in one line."""
    pages: Annotated[int, Field(description="By the field itself.")] = 1
    """Not this."""
    other: str = Field(alias="otherName", default="x")
    """By its alias."""


@pytest.mark.parametrize("model", [Everything, Leaf, Tree, Told])
def test_a_sample_fits_its_model(model: type[BaseModel]) -> None:
    schema = schema_of(model)
    assert schema
    model.model_validate(sample_of(schema))


def test_a_sample_has_examples_and_defaults() -> None:
    value = sample_of(schema_of(Everything) or {})
    assert (value["given"], value["usual"], value["colour"]) == ("like this", "usual", "red")


def test_a_model_that_holds_itself_ends() -> None:
    class Endless(BaseModel):
        inner: list["Endless"]

    assert sample_of(schema_of(Endless) or {})["inner"]


def test_fields_have_the_words_below_them_in_the_source() -> None:
    told = {each.name: each.description for each in fields_of(Told)}
    assert told == {
        "size": None,
        "title": "Title of the book, in one line.",
        "pages": "By the field itself.",
        "otherName": "By its alias.",
    }


def test_a_type_is_told_in_a_few_words() -> None:
    types = {each.name: each.type for each in fields_of(Everything)}
    assert types["id"] == "uuid"
    assert types["kind"] == "a or b"
    assert types["names"] == "array of string"
    assert types["either"] == "integer or string or null"
    assert types["tree"] == "Tree"


class Limited(BaseModel):
    name: Sensitive[str] = Field(min_length=1, max_length=50)
    nickname: Sensitive[Annotated[str, Field(max_length=1)]] | None = None
    code: str = Field(pattern="^[A-Z]{2}$", min_length=2, max_length=2)
    share: float = Field(gt=0, lt=1)
    count: int = Field(ge=1, le=9)
    dozens: int = Field(ge=30, multiple_of=12)
    price: Decimal = Field(le=5)
    words: list[Annotated[str, Field(min_length=1)]] = Field(max_length=3)
    rooms: set[int]
    notes: dict[str, Sensitive[str]] = Field(min_length=1)
    either: Annotated[int, Field(ge=2)] | Annotated[str, Field(min_length=3)]
    leaf: Leaf
    plain: str = ""


def test_the_limits_of_a_field_are_told_in_a_few_words() -> None:
    assert {each.name: each.limits for each in fields_of(Limited)} == {
        "name": "1 to 50 characters",
        "nickname": "at most 1 character",
        "code": "2 characters, pattern ^[A-Z]{2}$",
        "share": "greater than 0, less than 1",
        "count": "1 to 9",
        "dozens": "at least 30, multiple of 12",
        "price": "number: at most 5",
        "words": "at most 3 items, each item: at least 1 character",
        "rooms": "each item once",
        "notes": "at least 1 entry",
        "either": "integer: at least 2, string: at least 3 characters",
        "leaf": "",
        "plain": "",
    }


def test_a_field_whose_type_contains_sensitive_is_marked() -> None:
    assert [each.name for each in fields_of(Limited) if each.sensitive] == [
        "name",
        "nickname",
        "notes",
    ]
    assert {*sensitive_fields(Limited)} == {"name", "nickname", "notes"}


def test_a_model_without_a_schema_has_none() -> None:
    class Odd(BaseModel):
        function: Callable[[], None]

    assert schema_of(Odd) is None
    assert fields_of(Odd) == []


@pytest.mark.parametrize("width", [40, 80, 200])
def test_contracts_are_listed_with_types_and_replies_that_are_never_cut(width: int) -> None:
    written = io.StringIO()
    found = tuple(contract_of(each) for each in (CloseBooks, GetTotal, BooksClosed))
    show_all(
        Known(contracts=found, modules=("tests.unit.ledger",)), Console(file=written, width=width)
    )
    lines = [line.strip() for line in written.getvalue().splitlines()]
    for each in found:
        assert any(line.split()[:1] == [each.type] for line in lines), "whole, to be copied"
    assert "…" not in written.getvalue()


def test_an_optional_reply_is_listed_as_optional() -> None:
    @contract("library.find", version=1, catalog=Catalog())
    class Find(Request[Leaflet | None]):
        title: str

    found = contract_of(Find)
    assert (to_json(found)["reply"], to_json(found)["reply_optional"]) == ("Leaflet", True)
    assert table_row(found)[2] == "Leaflet or null"
    assert to_json(contract_of(GetTotal))["reply_optional"] is False
