"""Tests of the check at declaration: the values of a contract survive JSON."""

import asyncio
import ipaddress
import math
import re
import zoneinfo
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import InitVar, dataclass, field
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum, IntFlag, StrEnum
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, NamedTuple, NoReturn, TypeVar
from uuid import UUID

import pytest
from pydantic import (
    AfterValidator,
    AliasChoices,
    AliasGenerator,
    AliasPath,
    AnyUrl,
    AwareDatetime,
    Base64Bytes,
    Base64Str,
    BaseModel,
    BeforeValidator,
    ByteSize,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    HttpUrl,
    InstanceOf,
    IPvAnyAddress,
    Json,
    PlainSerializer,
    PlainValidator,
    Secret,
    SecretBytes,
    SecretStr,
    SerializeAsAny,
    WrapValidator,
    computed_field,
    create_model,
    field_serializer,
    field_validator,
    model_serializer,
    model_validator,
)
from pydantic_core import CoreSchema, core_schema
from typing_extensions import TypedDict

from bus.contracts.contract import Catalog, Event, Message, Request, contract, decode, encode
from bus.contracts.sensitive import Sensitive
from bus.errors import ContractError

T = TypeVar("T")


class Line(Message):
    sku: int = 1


class Copy(Message):
    sku: int = 1


class Priced(Message):
    sku: int = 1
    price: int = 2


class Tree(Message):
    children: tuple["Tree", ...] = ()
    by_name: dict[str, "Tree"] = Field(default_factory=dict)


class Page(Message, Generic[T]):
    items: list[T]


class Cat(Message):
    kind: Literal["cat"]


class Dog(Message):
    kind: Literal["dog"]


class Colour(StrEnum):
    RED = "red"


class Level(Enum):
    LOW = 1


class Access(IntFlag):
    READ = 1
    WRITE = 2


class Corner(Enum):
    TOP = (0, 1)


class Limit(Enum):
    LOW = 1.5
    NONE = math.inf


class Size(Enum):
    SMALL = 1
    LARGE = 2


class Pair(NamedTuple):
    left: int
    right: str


class Options(TypedDict, total=False):
    depth: int


@dataclass
class Point:
    x: int = 1


@dataclass
class Sized:
    x: int
    scale: InitVar[int]


class Token(BaseModel):
    text: SecretStr


class Opaque:
    """A class without equality, as many classes of users."""

    def __init__(self, value: Any) -> None:
        self.value = value

    @classmethod
    def __get_pydantic_core_schema__(cls, _: Any, __: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            lambda value: value if isinstance(value, cls) else cls(value),
            serialization=core_schema.plain_serializer_function_ser_schema(lambda one: one.value),
        )


def opaque(value: Any) -> Opaque:
    return value if isinstance(value, Opaque) else Opaque(value)


def listed(values: dict[Any, Any]) -> list[Any]:
    return [[[*key], value] for key, value in values.items()]


def split(value: Any) -> Any:
    return value.split(",") if isinstance(value, str) else value


def pairs(value: Any) -> Any:
    return {(a, b): c for a, b, c in value} if isinstance(value, list) else value


def refuse(value: Any) -> Any:
    raise ValueError("not a sample")


def wrapped(value: Any, handler: Any) -> Any:
    return handler(value)


SURVIVES: dict[str, Any] = {
    "text": str,
    "integer": int,
    "float": float,
    "boolean": bool,
    "decimal": Decimal,
    "date and time": datetime | date | None,
    "time": time,
    "duration": timedelta,
    "UUID": UUID,
    "UUID or bytes in base64": UUID | Base64Bytes,
    "integer or bytes": int | bytes,
    "bytes": bytes,
    "complex": complex,
    "path": Path,
    "IP address": ipaddress.IPv4Address | ipaddress.IPv6Address | None,
    "any IP address": IPvAnyAddress,
    "pattern": re.Pattern[str],
    "time zone": zoneinfo.ZoneInfo,
    "URL": AnyUrl,
    "HTTP URL": HttpUrl,
    "size": ByteSize,
    "base64 bytes": Base64Bytes,
    "base64 text": Base64Str,
    "deque": deque[int],
    "counter": Counter[str],
    "default dictionary": defaultdict[str, list[int]],
    "ordered dictionary": OrderedDict[str, int],
    "sequence": Sequence[Line],
    "mapping": Mapping[str, Line],
    "iterable": Iterable[int],
    "frozen set": frozenset[int],
    "set": set[str],
    "tuple": tuple[int, ...],
    "pair": tuple[int, str],
    "named tuple": Pair,
    "typed dictionary": Options,
    "dataclass": Point,
    "message": Line,
    "recursive message": Tree,
    "generic message": Page[Line],
    "any": Any,
    "object": object,
    "hashable": Hashable,
    "dictionary": dict[str, Any],
    "keys: integer": dict[int, str],
    "keys: date": dict[date, str],
    "keys: UUID": dict[UUID, str],
    "keys: decimal": dict[Decimal, str],
    "keys: text enum": dict[Colour, str],
    "keys: literal": dict[Literal["a", "b"], str],
    "enum of integers": Level,
    "enum of texts": Colour,
    "flag": Access,
    "literal of a text enum": Literal[Colour.RED],
    "literal": Literal["a", 1] | None,
    "text or integer": str | int,
    "integer or float": int | float,
    "decimal or float": float | Decimal,
    "enum or text": Colour | str,
    "messages of different fields": Line | Priced,
    "messages of different literals": Cat | Dog,
    "tagged union": Annotated[Cat | Dog, Field(discriminator="kind")],
    "left to right": Annotated[datetime | str, Field(union_mode="left_to_right")],
    "message or dictionary": Cat | dict[str, Any],
    "all fields of a subclass": SerializeAsAny[Line],
    "instance": InstanceOf[Line],
    "sensitive": Sensitive[str],
    "aware": AwareDatetime,
    "constrained": Annotated[str, Field(pattern="^[0-9]+$")],
    "lower case": Annotated[str, AfterValidator(str.lower)],
    "validator that rejects samples": Annotated[str, AfterValidator(refuse)],
    "validator that accepts both forms": Annotated[list[str], BeforeValidator(split)],
    "wrap validator": Annotated[int, WrapValidator(wrapped)],
    "timestamp": Annotated[datetime, PlainSerializer(datetime.timestamp)],
    "time in minutes": Annotated[time, PlainSerializer(lambda one: one.strftime("%H:%M"))],
    "date and time without a zone": Annotated[
        datetime, PlainSerializer(lambda one: one.strftime("%Y-%m-%d %H:%M:%S"))
    ],
    "decimal as float": Annotated[Decimal, PlainSerializer(float)],
    "secret with a serializer": Annotated[SecretStr, PlainSerializer(SecretStr.get_secret_value)],
    "enum by name": Annotated[
        Corner,
        PlainSerializer(lambda one: one.name),
        BeforeValidator(lambda one: Corner[one] if isinstance(one, str) else one),
    ],
    "keys as pairs": Annotated[
        dict[tuple[int, int], int],
        PlainSerializer(lambda one: [[*key, value] for key, value in one.items()]),
        BeforeValidator(pairs),
    ],
    "class without equality": Annotated[
        Any, PlainValidator(opaque), PlainSerializer(lambda one: one.value)
    ],
    "custom core schema": Opaque,
}


@pytest.mark.parametrize("type_", SURVIVES.values(), ids=SURVIVES)
def test_a_type_that_survives_json_is_accepted(type_: Any) -> None:
    declare(create_model("Anything", __base__=Event, value=(type_, ...)))


VALUES: dict[str, Any] = {
    "text": "ä\n",
    "float": 0.1,
    "decimal": Decimal("0.10"),
    "date and time": datetime(2027, 7, 28, 2, 30, tzinfo=zoneinfo.ZoneInfo("Europe/Berlin")),
    "time": time(23, 59, 59, 999999),
    "duration": timedelta(days=-1, microseconds=1),
    "UUID": UUID(int=7),
    "bytes": "ä".encode(),
    "complex": 1 - 2j,
    "path": Path("/a/b"),
    "IP address": ipaddress.IPv6Address("::1"),
    "pattern": re.compile("a+"),
    "time zone": zoneinfo.ZoneInfo("Europe/Berlin"),
    "URL": AnyUrl("https://example.org/?a=b"),
    "size": ByteSize(1024),
    "base64 bytes": b"\xff\x00",
    "deque": deque([1, 2]),
    "counter": Counter("hello"),
    "default dictionary": {"a": [1]},
    "ordered dictionary": OrderedDict(b=1, a=2),
    "sequence": [Line(), Line(sku=2)],
    "mapping": {"a": Line()},
    "frozen set": frozenset({1, 2}),
    "set": {"a", "b"},
    "tuple": (1, 2, 3),
    "pair": (1, "a"),
    "named tuple": Pair(1, "a"),
    "typed dictionary": {"depth": 1},
    "dataclass": Point(2),
    "recursive message": Tree(children=(Tree(), Tree(children=(Tree(),))), by_name={"a": Tree()}),
    "generic message": Page[Line](items=[Line()]),
    "any": {"a": [1, 2.5, None, True, "x"]},
    "keys: integer": {-1: "a"},
    "keys: date": {date(2027, 1, 1): "a"},
    "keys: UUID": {UUID(int=7): "a"},
    "keys: decimal": {Decimal("1.50"): "a"},
    "keys: text enum": {Colour.RED: "a"},
    "enum of integers": Level.LOW,
    "flag": Access.READ | Access.WRITE,
    "integer or float": 1.0,
    "decimal or float": Decimal("1.5"),
    "messages of different fields": Priced(),
    "tagged union": Dog(kind="dog"),
    "left to right": datetime(2027, 1, 1),  # noqa: DTZ001 - a time without a zone survives, too
    "message or dictionary": {"kind": "bird"},
    "sensitive": "secret",
    "validator that accepts both forms": ["a", "b"],
    "timestamp": datetime(2027, 1, 1, tzinfo=zoneinfo.ZoneInfo("UTC")),
    "decimal as float": Decimal("1.5"),
    "secret with a serializer": SecretStr("a"),
    "enum by name": Corner.TOP,
    "keys as pairs": {(1, 2): 3},
}


@pytest.mark.parametrize("name", VALUES)
def test_a_value_of_an_accepted_type_arrives_as_it_was_sent(name: str) -> None:
    model = create_model("Anything", __base__=Event, value=(SURVIVES[name], ...))
    sent = model.model_validate({"value": VALUES[name]})
    arrived = decode(model, encode(sent))
    assert arrived == sent
    assert type(vars(arrived)["value"]) is type(vars(sent)["value"])


LOST: dict[str, tuple[Any, str]] = {
    "secret": (SecretStr, r"sent as asterisks\. Write Sensitive\["),
    "secret bytes": (SecretBytes, "asterisks"),
    "secret of a type": (Secret[int], "asterisks"),
    "secret in a list": (list[SecretStr], "asterisks"),
    "optional secret": (SecretStr | None, "asterisks"),
    "validated secret": (Annotated[SecretStr, AfterValidator(wrapped)], "asterisks"),
    "json": (Json[list[int]], r"Json\[…\].*Write the type inside"),
    "json of anything": (Json, r"Json\[…\]"),
    "json in a list": (list[Json[int]], r"Json\[…\]"),
    "keys: tuple": (dict[tuple[int, int], str], "keys of the type tuple"),
    "keys: tuple, in a list": (list[dict[tuple[int, int], str]], "keys of the type tuple"),
    "keys: tuple, in a mapping": (Mapping[tuple[int, int], str], "keys of the type tuple"),
    "keys: integer or text": (dict[int | str, int], "keys of the type int"),
    "keys: optional": (dict[int | None, int], "keys of the type NoneType"),
    "keys: enum of integers": (dict[Level, int], "keys of the type Level"),
    "keys: literal integer": (dict[Literal[1], int], "keys of the type int"),
    "keys: frozen set": (dict[frozenset[int], int], "keys of the type frozenset"),
    "keys: named tuple": (dict[Pair, int], "keys of the type Pair"),
    "keys: message": (dict[Line, int], "keys of the type Line"),
    "keys: tuple, in a default dictionary": (defaultdict[tuple[int, int], int], "type tuple"),
    "keys: secret, in a default dictionary": (defaultdict[SecretStr, int], "type SecretStr"),
    "keys as pairs, read as keys": (
        Annotated[dict[tuple[int, int], int], PlainSerializer(listed), BeforeValidator(dict)],
        "does not arrive as it was sent",
    ),
    "enum with infinity": (Limit, "`NONE` in an Enum"),
    "enum of tuples": (Corner, "`TOP` in an Enum"),
    "literal of an enum": (Literal[Level.LOW], "`LOW` in a Literal"),
    "literal bytes": (Literal[b"a"], "`b'a'` in a Literal"),
    "the same fields": (Line | Copy, "union, in which `Copy` arrives as another type"),
    "larger message first": (Priced | Line, "`Line` arrives as another type"),
    "text or time": (str | datetime, "`datetime` arrives as another type"),
    "text or address": (str | ipaddress.IPv4Address, "`IPv4Address` arrives as another type"),
    "time or text": (datetime | str, "union, in which `str` arrives as another type"),
    "date or text": (date | str, "`str` arrives as another type"),
    "duration or text": (timedelta | str, "`str` arrives as another type"),
    "UUID or text": (UUID | str, "`str` arrives as another type"),
    "UUID or bytes": (UUID | bytes, "`bytes` arrives as another type"),
    "date or bytes": (date | bytes, "`bytes` arrives as another type"),
    "text or path": (str | Path, "`Path` arrives as another type"),
    "decimal or text": (Decimal | str, "`str` arrives as another type"),
    "address or text": (ipaddress.IPv4Address | str, "`str` arrives as another type"),
    "URL or text": (HttpUrl | str, "`HttpUrl` arrives as another type"),
    "dates or texts": (list[date] | list[str], "`list` arrives as another type"),
    "text or time in a list": (list[str | datetime], "`datetime` arrives"),
    "text or decimal": (str | Decimal, "`Decimal` arrives"),
    "integer or enum": (int | Level, "`Level` arrives"),
    "set or list": (set[int] | list[int], "`set` arrives"),
    "class": (type[int], "classes, which JSON cannot express"),
    "function": (Callable[[], None], "functions, which JSON cannot express"),
    "masked": (Annotated[str, PlainSerializer(lambda _: "***")], "does not arrive as it was sent"),
    "length": (list[Annotated[str, PlainSerializer(len)]], "does not arrive as it was sent"),
    "decorated": (Annotated[int, PlainSerializer(lambda one: f"<{one}>")], "does not arrive"),
    "validated twice": (Annotated[str, AfterValidator(lambda one: f"{one}!")], "does not arrive"),
    "only from text": (Annotated[list[str], BeforeValidator(lambda one: one.split(","))], "arrive"),
    "number only from text": (Annotated[int, BeforeValidator(str.strip)], "does not arrive"),
    "only from a number": (
        Annotated[datetime, BeforeValidator(datetime.fromtimestamp)],
        "does not arrive as it was sent",
    ),
}


@pytest.mark.parametrize(("type_", "reason"), LOST.values(), ids=LOST)
def test_a_type_that_loses_values_is_refused_with_the_name_of_the_field(
    type_: Any, reason: str
) -> None:
    model = create_model("Anything", __base__=Event, value=(type_, ...))
    with pytest.raises(ContractError, match=rf"^shop\.x\.v1: the field `value.*{reason}"):
        declare(model)


def test_a_problem_inside_a_field_is_named_by_its_path() -> None:
    class Order(Event):
        tokens: dict[str, list[Token | None]]

    with pytest.raises(ContractError, match=r"^shop\.x\.v1: the field `tokens\.text` is a secret"):
        declare(Order)


def test_a_reply_is_checked_like_its_request() -> None:
    class Ask(Request[Page[SecretStr]]): ...

    with pytest.raises(ContractError, match=r"field `items` of the reply Page\[SecretStr\] is a"):
        declare(Ask)


def test_a_class_that_was_refused_is_refused_again() -> None:
    class Order(Event):
        token: Token

    for _ in range(2):
        with pytest.raises(ContractError, match="asterisks"):
            declare(Order)


def test_a_problem_in_a_cycle_of_classes_is_found_from_each_of_them() -> None:
    class Parent(Event):
        children: tuple["Child", ...] = ()
        text: SecretStr

    class Child(Event):
        parent: Parent | None = None

    Parent.model_rebuild()
    for model in (Parent, Child):
        with pytest.raises(ContractError, match="asterisks"):
            declare(model)


def aliased(config: ConfigDict | None = None, **options: Any) -> type[Event]:
    base = type("Base", (Event,), {"model_config": config or {}, "__module__": __name__})
    return create_model("Aliased", __base__=base, name=(str, Field(**options)))


UPPER = ConfigDict(alias_generator=str.upper)
BY_BOTH = ConfigDict(validate_by_name=True, validate_by_alias=True)


@pytest.mark.parametrize(
    "model",
    [
        aliased(alias="title"),
        aliased(BY_BOTH, alias="title"),
        aliased(ConfigDict(populate_by_name=True), alias="title"),
        aliased(UPPER),
        aliased(validation_alias=AliasChoices("title", "name")),
        aliased(validation_alias=AliasChoices("a", "b"), serialization_alias="b"),
        aliased(BY_BOTH, validation_alias="title"),
        aliased(validation_alias="title", serialization_alias="title"),
    ],
)
def test_an_alias_that_is_the_same_in_both_directions_is_accepted(model: type[Event]) -> None:
    declare(model)


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (aliased(serialization_alias="title"), '`title`, but.*from `name`. Write alias="title"'),
        (aliased(validation_alias="title"), '`name`, but.*from `title`. Write alias="title"'),
        (
            aliased(validation_alias=AliasChoices("a", "b")),
            'from `a`, `b`\\. Write serialization_alias="a"',
        ),
        (aliased(validation_alias=AliasPath("a", "b")), "from a path in other values"),
        (
            aliased(ConfigDict(alias_generator=AliasGenerator(serialization_alias=str.upper))),
            "`NAME`, but receivers read it from `name`",
        ),
    ],
)
def test_an_alias_that_differs_by_direction_is_refused(model: type[Event], reason: str) -> None:
    with pytest.raises(ContractError, match=rf"the field `name` is sent under the name .*{reason}"):
        declare(model)


def test_two_fields_with_one_name_in_json_are_refused() -> None:
    class Order(Event):
        first: str = Field(alias="name")
        second: str = Field(alias="name")

    with pytest.raises(ContractError, match=r"`second` is sent under the same name as .* `first`"):
        declare(Order)


def test_a_field_that_would_be_read_from_another_fields_value_is_refused() -> None:
    class Order(Event):
        old: str = Field(validation_alias=AliasChoices("new", "old"))
        new: str

    with pytest.raises(ContractError, match="`old` is sent under the name `old`, but"):
        declare(Order)


def test_a_field_that_is_not_sent_is_refused() -> None:
    class Order(Event):
        note: str = Field(exclude=True, default="")

    with pytest.raises(ContractError, match="`note` is not sent, because of exclude=True"):
        declare(Order)


def test_a_field_that_is_left_out_if_it_has_its_default_is_accepted() -> None:
    class Order(Event):
        count: int = Field(default=0, exclude_if=lambda count: count == 0)

    declare(Order)


@pytest.mark.parametrize(
    ("type_", "default"), [(str | None, None), (int | None, 0), (list[int] | None, None)]
)
def test_a_field_that_is_left_out_with_several_empty_values_is_refused(
    type_: Any, default: Any
) -> None:
    field = Field(default=default, exclude_if=lambda value: not value)
    model = create_model("Order", __base__=Event, note=(type_, field))
    with pytest.raises(ContractError, match="`note` is not sent if exclude_if is true"):
        declare(model)


@pytest.mark.parametrize(
    ("type_", "options"),
    [
        (str, {"default": ""}),
        (int, {"default": 0}),
        (list[int], {"default_factory": list}),
        (tuple[int, ...], {"default": ()}),
        (Line | None, {"default": None}),
    ],
)
def test_a_field_that_is_left_out_with_its_one_empty_value_is_accepted(
    type_: Any, options: Any
) -> None:
    field = Field(exclude_if=lambda value: not value, **options)
    declare(create_model("Order", __base__=Event, note=(type_, field)))


@pytest.mark.parametrize("default", [{}, {"default": 1}], ids=["required", "another default"])
def test_a_field_that_is_left_out_with_another_value_is_refused(default: dict[str, Any]) -> None:
    options = {"exclude_if": lambda count: count == 0, **default}
    model = create_model("Order", __base__=Event, count=(int, Field(**options)))
    with pytest.raises(ContractError, match="`count` is not sent if exclude_if is true"):
        declare(model)


class Computed(Event):
    count: int

    @computed_field  # type: ignore[prop-decorator]  # pydantic documents this order
    @property
    def double(self) -> int:
        return 2 * self.count


def test_a_computed_field_is_accepted_if_receivers_ignore_it() -> None:
    declare(Computed)


def test_a_computed_field_that_fails_for_a_sample_is_accepted() -> None:
    class Sold(Event):
        country: str
        count: int = 0

        @field_validator("country")
        @classmethod
        def _strip(cls, country: str) -> str:
            return country.strip()

        @field_serializer("count")
        def _write(self, count: int) -> str:
            return str(count)

        @model_validator(mode="before")
        @classmethod
        def _pass(cls, values: Any) -> Any:
            return values

        @computed_field  # type: ignore[prop-decorator]  # as above
        @property
        def region(self) -> str:
            return {"FR": "EU"}[self.country]

    declare(Sold)
    sold = Sold(country="FR", count=2)
    assert decode(Sold, encode(sold)) == sold


def test_a_key_without_equality_is_accepted() -> None:
    class Order(Event):
        counts: dict[Opaque, int]

    declare(Order)


def test_a_computed_field_that_receivers_forbid_is_refused() -> None:
    class Strict(Computed):
        model_config = ConfigDict(extra="forbid")

    with pytest.raises(ContractError, match=r"`double` is a computed field\. .*extra=.forbid"):
        declare(Strict)


def test_an_argument_of_a_dataclass_that_is_not_a_field_is_refused() -> None:
    class Order(Event):
        box: Sized

    with pytest.raises(ContractError, match=r"`box\.scale` is an InitVar, which is never sent"):
        declare(Order)


def test_a_dataclass_field_that_receivers_forbid_is_refused() -> None:
    @dataclass
    class Counter:
        total: int = field(default=0, init=False)

    class Strict(Event):
        model_config = ConfigDict(extra="forbid")
        counter: Counter

    with pytest.raises(ContractError, match=r"`counter\.total` is sent, but receivers refuse it"):
        declare(Strict)


def test_a_serializer_of_a_class_is_tried_with_a_sample() -> None:
    class Marked(Event):
        count: int | None = None

        @field_serializer("count")
        def _mark(self, count: int | None) -> str | None:
            return None if count is None else f"{count}!"

    with pytest.raises(ContractError, match="the field `count` does not arrive as it was sent"):
        declare(Marked)


def test_a_serializer_of_a_class_for_times_without_a_zone_is_accepted() -> None:
    class Visit(Event):
        at: datetime

        @field_serializer("at")
        def _write(self, at: datetime) -> str:
            return at.strftime("%Y-%m-%d %H:%M")

    declare(Visit)


def test_a_serializer_of_a_class_that_is_undone_by_decoding_is_accepted() -> None:
    class Written(Event):
        count: int | None = None
        tree: Tree = Tree()

        @field_serializer("*")
        def _write(self, value: Any) -> Any:
            return str(value) if isinstance(value, int) else value

    declare(Written)


def test_a_model_serializer_is_tried_with_a_sample() -> None:
    class Renamed(Event):
        count: int

        @model_serializer
        def _rename(self) -> dict[str, int]:
            return {"number": self.count}

    class Unchanged(Event):
        count: int

        @model_serializer(mode="wrap")
        def _pass(self, handler: Any) -> Any:
            return handler(self)

    declare(Unchanged)
    with pytest.raises(ContractError, match="the message does not arrive as it was sent"):
        declare(Renamed)


@pytest.mark.parametrize(
    ("type_", "default"),
    [
        (int, 1),
        (bool, True),
        (str, "aaaa"),
        (Colour | None, None),
        (Size, Size.SMALL),
        (Literal["a", "b"], "a"),
    ],
)
def test_a_model_serializer_that_leaves_out_a_field_with_a_default_is_refused(
    type_: Any, default: Any
) -> None:
    class Short(Event):
        name: str

        @model_serializer
        def _write(self) -> dict[str, Any]:
            return {"name": self.name}

    with pytest.raises(ContractError, match="the message does not arrive as it was sent"):
        declare(create_model("Shorter", __base__=Short, note=(type_, default)))


def test_a_model_serializer_that_leaves_out_only_defaults_is_accepted() -> None:
    class Sparse(Event):
        name: str
        count: int = 1
        note: str | None = None
        lines: list[Line] = Field(default_factory=list)

        @model_serializer(mode="wrap")
        def _write(self, handler: Any) -> Any:
            defaults: dict[str, Any] = {"count": 1, "note": None, "lines": []}
            values = handler(self)
            return {name: each for name, each in values.items() if defaults.get(name, 0) != each}

    declare(Sparse)


def test_a_model_validator_that_alters_its_input_is_refused() -> None:
    class Counted(Event):
        count: int

        @model_validator(mode="before")
        @classmethod
        def _increment(cls, values: Any) -> Any:
            return {"count": values["count"] + 1}

    with pytest.raises(ContractError, match="the message does not arrive as it was sent"):
        declare(Counted)


def test_validators_that_compare_fields_are_accepted() -> None:
    class Range(Event):
        first: int
        last: int

        @field_validator("last")
        @classmethod
        def _check_order(cls, last: int, info: Any) -> int:
            assert last >= info.data["first"]
            return last

        @model_validator(mode="after")
        def _check(self) -> "Range":
            assert self.last != self.first
            return self

    declare(Range)


@pytest.mark.parametrize(
    "config", [ConfigDict(ser_json_bytes="base64"), ConfigDict(val_json_bytes="hex")]
)
def test_bytes_that_are_read_in_another_form_are_refused(config: ConfigDict) -> None:
    class Scan(Event):
        model_config = config
        pages: list[bytes]

    with pytest.raises(ContractError, match=r"`pages` holds bytes, which are sent as .* read as"):
        declare(Scan)


def test_bytes_and_durations_in_another_form_are_accepted_if_both_directions_have_it() -> None:
    class Scan(Event):
        model_config = ConfigDict(
            ser_json_bytes="base64", val_json_bytes="base64", ser_json_timedelta="float"
        )
        page: bytes
        took: timedelta

    declare(Scan)


def test_a_duration_in_milliseconds_is_refused_because_it_is_read_as_seconds() -> None:
    class Scan(Event):
        model_config = ConfigDict(ser_json_temporal="milliseconds")
        took: timedelta

    with pytest.raises(
        ContractError,
        match=r"the field `took` does not arrive as it was sent, because of "
        r'ser_json_temporal="milliseconds" in the configuration\. Remove the setting',
    ):
        declare(Scan)


@pytest.mark.parametrize("unit", ["seconds", "milliseconds"])
@pytest.mark.parametrize("type_", [datetime, time, datetime | None])
def test_a_time_without_a_zone_that_arrives_with_a_zone_is_refused(type_: Any, unit: Any) -> None:
    class Base(Event):
        model_config = ConfigDict(ser_json_temporal=unit)

    with pytest.raises(ContractError, match=f'`at` .* because of ser_json_temporal="{unit}"'):
        declare(create_model("Visit", __base__=Base, at=(type_, ...)))


def test_a_time_with_a_zone_may_be_sent_in_seconds() -> None:
    class Visit(Event):
        model_config = ConfigDict(ser_json_temporal="seconds")
        at: AwareDatetime
        day: date
        took: timedelta

    declare(Visit)


def test_a_strict_class_is_accepted() -> None:
    class Strict(Event):
        model_config = ConfigDict(strict=True, use_enum_values=True)
        level: Level
        at: datetime
        price: Decimal
        tags: tuple[str, ...]
        colours: set[Colour]
        scans: dict[int, bytes]

    declare(Strict)


def test_a_validator_that_cannot_work_at_import_is_called_once_for_each_sample() -> None:
    calls: list[str] = []

    def look_up(name: str) -> str:
        calls.append(name)
        raise ConnectionError

    class Named(Event):
        name: Annotated[str, AfterValidator(look_up)]

    declare(Named)
    assert len(calls) == len(set(calls))


@pytest.mark.parametrize("kind", [SystemExit, GeneratorExit, asyncio.CancelledError])
def test_a_validator_that_ends_the_process_does_not_end_the_import(
    kind: type[BaseException],
) -> None:
    def fail(_: object) -> NoReturn:
        raise kind

    class Named(Event):
        name: Annotated[str, AfterValidator(fail)]
        size: str = Field(default="", exclude_if=fail)

    declare(Named)


def test_a_validator_that_is_interrupted_ends_the_import() -> None:
    def interrupt(_: object) -> str:
        raise KeyboardInterrupt

    class Named(Event):
        name: Annotated[str, AfterValidator(interrupt)]

    with pytest.raises(KeyboardInterrupt):
        declare(Named)


def test_the_error_of_a_sample_never_shows_the_text_of_a_validator() -> None:
    def fail(_: Any) -> str:
        raise RuntimeError("Eleonora Quist")

    class Named(Event):
        name: Annotated[str, PlainSerializer(fail)]

    with pytest.raises(ContractError) as caught:
        declare(Named)
    assert "Eleonora" not in str(caught.value)
    assert caught.value.__context__ is None


def declare(model: type[Any]) -> None:
    contract("shop.x", version=1, catalog=Catalog())(model)
