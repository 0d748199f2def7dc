"""Tests of values that are nested more deeply than a receiver can decode."""

from typing import Any

import pytest
from pydantic import Field, JsonValue
from pydantic_core import to_json

from bus.contracts.contract import Event, Message, decode, encode
from bus.contracts.depth import is_too_deep
from bus.errors import ContractViolation


class Parcel(Event):
    label: str = ""
    content: Any = None


class Tree(Message):
    kids: list["Tree"] = Field(default_factory=list)
    name: str = ""


class Grown(Event):
    tree: Tree


class Noted(Event):
    note: JsonValue


def nested_lists(count: int, inside: object = None) -> Any:
    value = inside
    for _ in range(count):
        value = [value]
    return value


def nested_trees(count: int) -> Tree:
    tree = Tree()
    for _ in range(count):
        tree = Tree(kids=[tree], name='a "[{" b')
    return tree


def test_a_value_with_as_many_levels_as_the_receiver_accepts_is_sent() -> None:
    parcel = Parcel(content=nested_lists(199))
    assert decode(Parcel, encode(parcel)) == parcel


@pytest.mark.parametrize("count", [200, 240])
def test_a_value_with_too_many_levels_is_refused_by_the_sender(count: int) -> None:
    with pytest.raises(ContractViolation, match="Parcel: the field `content` is nested too deeply"):
        encode(Parcel(content=nested_lists(count)))


def test_a_model_that_contains_itself_too_often_is_refused_by_the_sender() -> None:
    grown = Grown(tree=nested_trees(98))
    assert decode(Grown, encode(grown)) == grown
    with pytest.raises(ContractViolation, match="Grown: the field `tree` is nested too deeply"):
        encode(Grown(tree=nested_trees(100)))


def test_a_json_value_with_too_many_levels_is_refused_by_the_sender() -> None:
    with pytest.raises(ContractViolation, match="Noted: the field `note` is nested too deeply"):
        encode(Noted.model_construct(note=nested_lists(200)))


def test_an_additional_field_with_too_many_levels_is_refused_without_its_name() -> None:
    class Open(Event, extra="allow"):
        pass

    with pytest.raises(ContractViolation, match="Open: an additional field is nested too deeply"):
        encode(Open.model_validate({"Eleonora Quist": nested_lists(200)}))


@pytest.mark.parametrize(
    "content",
    ["[" * 300, ['"[', "]\\"] * 300, [{"a": [{}]}] * 300, nested_lists(150, ["[{"] * 200)],
)
def test_brackets_that_do_not_nest_are_no_levels(content: object) -> None:
    parcel = Parcel(content=content)
    assert decode(Parcel, encode(parcel)) == parcel


@pytest.mark.parametrize("text", ["]", "}", '"]', "]\\", '\\"]"', "", "[]"])
def test_texts_with_brackets_do_not_hide_the_depth(text: str) -> None:
    value: Any = text
    for _ in range(210):
        value = [text, value, text]
    assert is_too_deep(to_json({"content": value}))
