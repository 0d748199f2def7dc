"""Tests of the search for a value that pydantic cannot encode."""

from collections.abc import Callable
from time import process_time
from typing import Any

import pytest
from pydantic import Field

from bus.contracts.contract import Event, encode
from bus.errors import ContractViolation

MAX_SECONDS = 0.5
"""Limit of the search. A search in quadratic time takes several seconds."""


class Recorded(Event):
    note: str = ""
    raw: Any = None
    parts: list[bytes] = Field(default_factory=list)
    texts: list[str] = Field(default_factory=list)
    by_name: dict[str, Any] = Field(default_factory=dict)


def refusal(**values: Any) -> str:
    """Return the text of the refusal of a message whose values were not validated."""
    with pytest.raises(ContractViolation) as caught:
        encode(Recorded().model_copy(update=values))
    return str(caught.value)


def itself_in_dictionary() -> Any:
    value: dict[str, Any] = {}
    value["self"] = value
    return value


def itself_in_list() -> Any:
    value: list[Any] = [1]
    value.append(value)
    return value


def itself_through_message() -> Any:
    value: dict[str, Any] = {}
    value["a"] = [Recorded(raw=value)]
    return value


@pytest.mark.parametrize(
    "build",
    [itself_in_dictionary, itself_in_list, itself_through_message],
    ids=lambda x: x.__name__,
)
def test_a_value_that_contains_itself_is_refused_by_its_field(build: Callable[[], Any]) -> None:
    assert refusal(raw=build()) == (
        "Recorded: the field `raw` contains itself, which JSON cannot express. Remove the "
        "reference to itself."
    )


def test_a_value_that_is_nested_too_deeply_is_refused_by_its_field() -> None:
    value: Any = 1
    for _ in range(100_000):
        value = [value]
    assert refusal(raw=value).startswith(
        "Recorded: the field `raw` has a value that cannot be encoded, more than 12 levels inside "
        "the field. "
    )


def test_a_fault_below_the_longest_path_is_named_by_its_field() -> None:
    value: Any = object()
    for _ in range(20):
        value = {"a": value}
    assert "the field `raw` has a value that cannot be encoded, more than" in refusal(raw=value)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("parts[7999]", [*[b"a"] * 7999, b"\xff"]),
        ("texts[7999]", [*["a"] * 7999, "\ud800"]),
        ("by_name[*]", {**{str(each): each for each in range(7999)}, "last": object()}),
        ("raw[*][7999]", {"a": [*range(7999), object()]}),
    ],
    ids=["bytes", "texts", "dictionary", "any"],
)
def test_a_fault_at_the_end_of_a_long_list_is_found_in_linear_time(path: str, value: Any) -> None:
    before = process_time()
    text = refusal(**{path.partition("[")[0]: value})
    assert process_time() - before < MAX_SECONDS
    assert text.startswith(f"Recorded: the field `{path}` has a value that does not match its type")
