"""The page `docs/reference/wire-fields.md`: each of its values, read and written by the bus."""

import re
import typing
from collections.abc import Iterator
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum, IntEnum
from ipaddress import IPv4Address, IPv4Network, IPv6Address
from pathlib import Path
from typing import Any, Literal
from uuid import UUID

import pydantic
import pytest

from bus import Message, Sensitive
from bus.contracts.contract import decode, encode
from bus.contracts.depth import MAX_LEVELS
from bus.errors import ContractViolation

PAGE = Path(__file__).parents[3] / "docs/reference/wire-fields.md"
SAME, REFUSED = "the same", "refused"
NAMES: dict[str, Any] = {
    **{
        each.__name__: each
        for each in (
            *(Message, Enum, IntEnum, Decimal, date, datetime, time, timedelta, UUID, Path),
            *(IPv4Address, IPv4Network, IPv6Address),
        )
    },
    **{name: getattr(pydantic, name) for name in ("AwareDatetime", "NaiveDatetime", "HttpUrl")},
    **{name: getattr(pydantic, name) for name in ("Base64Bytes", "Base64UrlBytes")},
    "Any": Any,
    "Literal": Literal,
    "Sensitive": Sensitive,
}


def parts() -> tuple[str, str]:
    """Return the page before and after the heading of the types."""
    general, _, types = PAGE.read_text(encoding="utf-8").partition("\n## The types\n")
    return general, types


def classes() -> dict[str, Any]:
    """Return the names of Python, pydantic and the bus, and the classes that the page defines."""
    names = dict(NAMES)
    (source,) = re.findall(r"```python\n(.*?)```", parts()[1], re.DOTALL)
    exec(source, names)
    return names


def sections() -> Iterator[tuple[str, str]]:
    """Yield the type and the text of each section."""
    for section in parts()[1].split("\n### ")[1:]:
        heading, _, text = section.partition("\n")
        yield heading.strip("`"), text


def rows(text: str) -> Iterator[tuple[list[str], str]]:
    """Yield the values of each row, and its right cell."""
    for line in text.splitlines():
        if line.startswith("| `"):
            left, right = line.strip("| ").split(" | ")
            yield re.findall(r"`([^`]+)`", left), right.strip("`")


def model_of(annotation: str) -> type[Message]:
    """Return a message with one member of the type."""
    kind = eval(annotation, classes())
    if annotation == "Cat | Dog":
        kind = typing.Annotated[kind, pydantic.Field(discriminator="kind")]
    return pydantic.create_model("Example", __base__=Message, value=(kind, ...))


def read_as(model: type[Message], value: str) -> str:
    """Return how the bus writes a JSON value that it has read, or `refused`."""
    try:
        message = decode(model, f'{{"value":{value}}}'.encode())
    except ContractViolation:
        return REFUSED
    written = encode(message).decode()
    return written.removeprefix('{"value":').removesuffix("}")


@pytest.mark.parametrize(("annotation", "text"), [*sections()], ids=lambda each: each[:20])
def test_the_bus_reads_and_refuses_each_value_as_the_page_says(annotation: str, text: str) -> None:
    model, shown = model_of(annotation), [*rows(text)]
    assert shown, "the section has no table"
    assert shown[0][1] == SAME, "the first row is the form that the bus writes"
    for values, right in shown:
        for value in values:
            expected = value if right == SAME else right
            assert read_as(model, value) == expected, value


@pytest.mark.parametrize("annotation", [annotation for annotation, _ in sections()])
def test_the_form_that_the_bus_writes_is_read_by_a_strict_contract(annotation: str) -> None:
    model = model_of(annotation)
    strict = type("Strict", (model,), {"model_config": pydantic.ConfigDict(strict=True)})
    values, _ = next(rows(dict(sections())[annotation]))
    for value in values:
        assert read_as(strict, value) == value


def test_the_overview_has_each_type_with_its_format_in_the_schema() -> None:
    overview = parts()[0].partition("## Overview")[2].partition("\n## ")[0]
    for line in overview.splitlines():
        if not line.startswith("| `"):
            continue
        schema, kinds, _ = line.replace("\\|", "/").strip("| ").split(" | ")
        for kind in re.findall(r"`([^`]+)`", kinds):
            if kind in {"Enum", "Literal", "int / None", "dict"}:
                continue
            found = pydantic.TypeAdapter(eval(kind, classes())).json_schema()
            words = set(re.findall(r"`([^`]+)`", schema))
            flat = found.get("anyOf", [found])
            keys = ("type", "format")
            assert words == {each[key] for each in flat for key in keys if key in each}


# --- The body as a whole ---


class Item(Message):
    name: str
    count: int = 1
    note: str | None = None


class Optional(Message):
    count: int = 1


def name_in(body: bytes) -> str | None:
    """Return the name of the item in a body, or None if the bus refuses the body."""
    try:
        item: Item = decode(Item, body)
    except ContractViolation:
        return None
    return item.name


@pytest.mark.parametrize(
    "body",
    [
        b' {"name" : "pen"}\r\n\t',
        b'{"count":2,"name":"pen"}',
        b'{"name":"ink","name":"pen"}',
        b'{"n\\u0061me":"pen"}',
        b'{"name":"pen","new":{"a":[1,null]}}',
        b'{"name":"pen","new":NaN}',
        b'{"name":"pen","new":1e999}',
    ],
)
def test_a_body_may_have_spaces_any_order_unknown_members_and_a_member_twice(body: bytes) -> None:
    assert name_in(body) == "pen"


@pytest.mark.parametrize(
    "body",
    [
        b'\xef\xbb\xbf{"name":"pen"}',
        '{"name":"pen"}'.encode("utf-16"),
        b'{"name":"pen\xff"}',
        b'{"name":"pen","new":"\xff"}',
        b'{"name":"\\ud800"}',
        b'{"name":"pen","new":"\\ud800"}',
        b'{"name":"p\x00n"}',
        b'{"name":"p\nn"}',
        b'{"name":"pen"}}',
        b'{"name":"pen"}{}',
        b'{"name":"pen",}',
        b"{'name':'pen'}",
        b'{"name":"pen"/* */}',
        b'{"Name":"pen"}',
        b'{"name":null}',
        b'{"name":"pen","count":null}',
        b'["pen"]',
        b'"pen"',
        b"null",
        b"{}",
        b"",
    ],
)
def test_a_body_that_is_not_one_json_object_of_the_contract_is_refused(body: bytes) -> None:
    assert name_in(body) is None


def test_a_nul_in_a_text_is_accepted_as_an_escape() -> None:
    assert name_in(b'{"name":"\\u0000"}') == "\0"
    assert encode(Item(name="\0")) == b'{"name":"\\u0000","count":1,"note":null}'


def test_a_body_with_more_levels_than_the_page_says_is_refused() -> None:
    def body(levels: int) -> bytes:
        inner = b'{"a":' * (levels - 1) + b"1" + b"}" * (levels - 1)
        return b'{"value":1,"new":' + inner + b"}"

    class Value(Message):
        value: int

    assert f"more than {MAX_LEVELS} objects" in parts()[0]
    assert decode(Value, body(MAX_LEVELS)) == Value(value=1)
    with pytest.raises(ContractViolation):
        decode(Value, body(MAX_LEVELS + 1))


def test_null_is_a_message_without_content_only_if_no_member_is_required() -> None:
    assert decode(Optional, b"null") == decode(Optional, b"{}") == Optional()
    assert encode(Optional()) == b'{"count":1}', "the bus writes the members with their defaults"
    for body in (b"", b"[]", b"0", b'""'):
        with pytest.raises(ContractViolation):
            decode(Optional, body)


def test_a_body_may_have_many_members() -> None:
    members = ",".join(f'"m{number}":{number}' for number in range(50_000))
    assert name_in(f'{{{members},"name":"pen"}}'.encode()) == "pen"
