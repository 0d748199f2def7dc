"""Tests of the values that pydantic would encode with a loss: NaN, infinity and subclasses."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated, Any, NamedTuple

import pytest
from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, RootModel, SerializeAsAny
from typing_extensions import TypedDict

from bus.contracts.contract import Event, Message, decode, encode
from bus.contracts.guards import guard_for
from bus.errors import ContractViolation

NAN = math.nan


@dataclass
class Point:
    x: float
    price: Decimal = Decimal(1)


@dataclass
class Labelled(Point):
    label: str = ""


class Plain(BaseModel):
    x: float


class Wider(Plain):
    secret_name: str = "Eleonora Quist"


class Polymorphic(BaseModel):
    model_config = ConfigDict(polymorphic_serialization=True)
    x: float


class Bigger(Polymorphic):
    y: float = 2


class Private(Plain):
    note: str = Field(default="", exclude=True)


class Renamed(Plain):
    def double(self) -> float:
        return 2 * self.x


class AsText(BaseModel):
    model_config = ConfigDict(ser_json_inf_nan="strings")
    x: float


class AsConstant(BaseModel):
    model_config = ConfigDict(ser_json_inf_nan="constants")
    x: float


class Open(BaseModel):
    model_config = ConfigDict(extra="allow")


class Options(TypedDict):
    x: float


class Pair(NamedTuple):
    name: str
    x: float


class Tree(Message):
    x: float = 0
    children: tuple["Tree", ...] = ()


class Branch(Tree):
    leaves: int = 1


class Plains(RootModel[list[Plain]]):
    pass


class Measured(Event):
    note: str | None = None
    anything: Any = None
    thing: object = None
    number: float = 1.0
    point: Point | None = None
    plain: Plain | None = None
    as_text: AsText | None = None
    as_constant: AsConstant | None = None
    plains: list[Plain] = Field(default_factory=list)
    named: dict[str, Plain] = Field(default_factory=dict)
    fixed: tuple[int, Plain] | None = None
    many: tuple[Plain, ...] = ()
    sequence: Sequence[Plain] = ()
    numbers: frozenset[float] = frozenset()
    options: Options | None = None
    pair: Pair | None = None
    tree: Tree | None = None
    root: Plains | None = None
    either: Plain | Point | None = None
    both: Plain | Wider | None = None
    polymorphic: Polymorphic | None = None
    whole: SerializeAsAny[Plain] | None = None
    open: Open | None = None
    text: Annotated[float, PlainSerializer(str)] = 1.0


def measured(**values: Any) -> Measured:
    """Return a message with values that were not validated."""
    return Measured().model_copy(update=values)


NOT_FINITE: dict[str, Any] = {
    "anything": NAN,
    "anything[1][*]": [1, {"Eleonora Quist": math.inf}],
    "anything.x": Plain(x=NAN),
    "thing": -math.inf,
    "number": NAN,
    "point.x": Point(NAN),
    "point.price": Point(1.0, Decimal("NaN")),
    "plain.x": Plain(x=math.inf),
    "as_constant.x": AsConstant(x=NAN),
    "plains[1].x": [Plain(x=1), Plain(x=NAN)],
    "named[*].x": {"Eleonora Quist": Plain(x=NAN)},
    "fixed[1].x": (1, Plain(x=NAN)),
    "many[0].x": (Plain(x=NAN),),
    "sequence[0].x": [Plain(x=NAN)],
    "numbers[0]": frozenset({NAN}),
    "options.x": {"x": NAN},
    "pair[1]": Pair("a", NAN),
    "tree.children[0].x": Tree(children=(Tree().model_copy(update={"x": NAN}),)),
    "root.root[0].x": Plains([Plain(x=NAN)]),
    "either.x": Point(NAN),
    "whole.x": Plain(x=NAN),
    "open[*]": Open.model_validate({"x": NAN}),
}


@pytest.mark.parametrize(("path", "value"), NOT_FINITE.items(), ids=NOT_FINITE)
def test_nan_and_infinity_are_refused_by_the_sender_with_the_path_of_the_field(
    path: str, value: Any
) -> None:
    message = measured(**{re.split(r"[.[]", path)[0]: value})
    with pytest.raises(ContractViolation) as caught:
        encode(message)
    assert str(caught.value) == (
        f"Measured: the field `{path}` is not a finite number, and JSON has only finite numbers. "
        f"Send None or a text instead of NaN or infinity."
    )


SUBCLASSES: dict[str, Any] = {
    "plain": Wider(x=1),
    "point": Labelled(1.0),
    "plains[1]": [Plain(x=1), Wider(x=1)],
    "named[*]": {"Eleonora Quist": Wider(x=1)},
    "many[0]": (Wider(x=1),),
    "sequence[0]": [Wider(x=1)],
    "tree": Branch(),
    "tree.children[0]": Tree(children=(Branch(),)),
    "root.root[0]": Plains([Wider(x=1)]),
    "either": Wider(x=1),
}


@pytest.mark.parametrize(("path", "value"), SUBCLASSES.items(), ids=SUBCLASSES)
def test_a_subclass_whose_fields_would_be_lost_is_refused_by_the_sender(
    path: str, value: Any
) -> None:
    message = measured(**{re.split(r"[.[]", path)[0]: value})
    with pytest.raises(ContractViolation) as caught:
        encode(message)
    text = str(caught.value)
    assert text.startswith(f"Measured: the field `{path}` holds a ")
    assert "would be lost" in text
    assert "Quist" not in text


@pytest.mark.parametrize(
    ("name", "value", "sent"),
    [
        ("plain", Renamed(x=1), b'{"x":1.0}'),
        ("plain", Private(x=1, note="a"), b'{"x":1.0}'),
        ("both", Wider(x=1), b'{"x":1.0,"secret_name":"Eleonora Quist"}'),
        ("whole", Wider(x=1), b'{"x":1.0,"secret_name":"Eleonora Quist"}'),
        ("anything", Wider(x=1), b'{"x":1.0,"secret_name":"Eleonora Quist"}'),
    ],
)
def test_a_subclass_that_loses_nothing_is_sent(name: str, value: Any, sent: bytes) -> None:
    assert b'"%b":%b' % (name.encode(), sent) in encode(measured(**{name: value}))


@pytest.mark.skipif(
    "polymorphic_serialization" not in ConfigDict.__annotations__,
    reason="this pydantic does not have the option",
)
def test_a_class_that_encodes_the_fields_of_subclasses_loses_nothing() -> None:
    sent = encode(measured(polymorphic=Bigger(x=1)))
    assert b'"polymorphic":{"x":1.0,"y":2.0}' in sent
    with pytest.raises(ContractViolation, match=r"`polymorphic\.y` is not a finite number"):
        encode(measured(polymorphic=Bigger(x=1, y=NAN)))


def test_a_class_that_sends_nan_as_text_may_send_it() -> None:
    arrived = decode(Measured, encode(measured(as_text=AsText(x=NAN))))
    assert math.isnan(arrived.as_text.x)


def test_a_decimal_that_is_larger_than_any_float_is_sent() -> None:
    sent = encode(measured(point=Point(1.0, Decimal("1E+400")), number=1.0))
    assert b'"price":"1E+400"' in sent


def test_a_float_with_a_serializer_of_its_own_may_be_nan() -> None:
    assert b'"text":"nan"' in encode(measured(text=NAN))


def test_none_in_a_value_of_any_type_is_sent() -> None:
    message = measured(anything={"a": None, "b": 1.5}, open=Open.model_validate({"x": None}))
    assert decode(Measured, encode(message)).anything == {"a": None, "b": 1.5}


def test_a_contract_without_floats_and_classes_has_no_checks() -> None:
    class Simple(Event):
        number: int
        price: Decimal
        names: list[str | None]
        by_name: dict[str, bytes]

    assert guard_for(Simple) is None


def test_a_subclass_that_is_defined_after_the_first_message_is_refused_too() -> None:
    class Owner(Message):
        name: str

    class Account(Event):
        owner: Owner

    assert encode(Account(owner=Owner(name="a"))) == b'{"owner":{"name":"a"}}'

    class Manager(Owner):
        level: int

    with pytest.raises(ContractViolation, match="`owner` holds a Manager, whose field `level`"):
        encode(Account(owner=Manager(name="a", level=1)))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("note", "\ud800"),
        ("number", "Eleonora Quist"),
        ("plains[1].x", [Plain(x=1), Plain.model_construct(x="Eleonora Quist")]),
        ("named[*].x", {"Eleonora Quist": Plain.model_construct(x="Eleonora Quist")}),
        ("anything[*][1]", {"Eleonora Quist": ["a", "\ud800"]}),
        ("anything", object()),
    ],
)
def test_a_value_that_cannot_be_encoded_is_named_by_its_path(path: str, value: Any) -> None:
    message = measured(**{re.split(r"[.[]", path)[0]: value})
    with pytest.raises(ContractViolation) as caught:
        encode(message)
    assert str(caught.value) == (
        f"Measured: the field `{path}` has a value that does not match its type, or is not valid "
        f"Unicode. Correct the value."
    )
