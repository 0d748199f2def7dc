"""Tests of the values that pydantic would encode with a loss: NaN, infinity and subclasses."""

import math
import re
from collections import OrderedDict, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated, Any, NamedTuple

import pytest
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    RootModel,
    Secret,
    SecretBytes,
    SecretStr,
    SerializeAsAny,
    field_serializer,
)
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


class Login(BaseModel):
    password: SecretStr


class Revealed(Login):
    @field_serializer("password")
    def reveal(self, value: SecretStr) -> str:
        return value.get_secret_value()


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
    elements: Iterable[Plain] = ()
    values: dict[Any, Any] = Field(default_factory=dict)
    prices: dict[float, int] = Field(default_factory=dict)
    cost: Decimal = Decimal(1)
    text: Annotated[float, PlainSerializer(str)] = 1.0


def measured(**values: Any) -> Measured:
    """Return a message with values that were not validated."""
    return Measured().model_copy(update=values)


NOT_FINITE: dict[str, Any] = {
    "anything": NAN,
    "anything[1][*]": [1, {"Eleonora Quist": math.inf}],
    "anything[0]": deque([NAN]),
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
    "elements[1].x": [Plain(x=1), Plain(x=NAN)],
    "cost": Decimal("Infinity"),
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
    "elements[1]": iter([Plain(x=1), Wider(x=1)]),
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
    assert text.startswith(f"Measured: the field `{path}` holds an object of ")
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

    with pytest.raises(
        ContractViolation, match="`owner` holds an object of Manager, whose field `level`"
    ):
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


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("anything", SecretStr("Eleonora Quist")),
        ("thing", SecretBytes(b"Eleonora Quist")),
        ("anything[0]", [Secret[str]("Eleonora Quist")]),
        ("anything.password", Login(password=SecretStr("Eleonora Quist"))),
        ("anything[*]", OrderedDict(a=SecretStr("Eleonora Quist"))),
        ("open[*]", Open.model_validate({"x": SecretStr("Eleonora Quist")})),
    ],
)
def test_a_secret_that_would_arrive_as_asterisks_is_refused_by_the_sender(
    path: str, value: Any
) -> None:
    with pytest.raises(ContractViolation) as caught:
        encode(measured(**{re.split(r"[.[]", path)[0]: value}))
    assert str(caught.value) == (
        f"Measured: the field `{path}` is a secret of pydantic, which is sent as asterisks. "
        f"Declare the type Sensitive[…], or send the value of get_secret_value()."
    )


def test_a_secret_that_its_class_encodes_itself_is_sent() -> None:
    revealed = Revealed(password=SecretStr("open sesame"))
    assert b'{"password":"open sesame"}' in encode(measured(anything=revealed))


@pytest.mark.parametrize("field", ["anything", "values"])
@pytest.mark.parametrize(
    ("key", "text"),
    [
        ((1, 2), "has a tuple as a key, which arrives as one text. Write a list of pairs."),
        (NAN, "has a key that is not a finite number. Write a finite number or a text as the key."),
        (SecretStr("a"), "has a secret as a key, which is sent as asterisks. Write a text as "),
    ],
    ids=["tuple", "nan", "secret"],
)
def test_a_key_of_any_type_that_a_receiver_cannot_read_is_refused_by_the_sender(
    field: str, key: Any, text: str
) -> None:
    with pytest.raises(ContractViolation) as caught:
        encode(measured(**{field: {key: 1}}))
    assert str(caught.value).startswith(f"Measured: the field `{field}` {text}")


@pytest.mark.parametrize("keys", [(1, "1"), (None, "None"), (True, "true")])
def test_keys_that_are_the_same_text_in_json_are_refused_by_the_sender(keys: Any) -> None:
    with pytest.raises(ContractViolation, match=r"`anything\[0\]` has keys that are the same text"):
        encode(measured(anything=[dict.fromkeys(keys, 0)]))


def test_a_number_as_a_key_of_any_type_arrives_as_text() -> None:
    assert decode(Measured, encode(measured(anything={1: "a", 2: "b"}))).anything == {
        "1": "a",
        "2": "b",
    }


def test_a_key_that_is_not_a_finite_number_is_refused_by_the_sender() -> None:
    with pytest.raises(ContractViolation, match="`prices` has a key that is not a finite number"):
        encode(measured(prices={NAN: 1}))


def test_a_value_of_an_additional_field_is_refused_without_the_name_of_the_field() -> None:
    class Wide(Event):
        model_config = ConfigDict(extra="allow")

    with pytest.raises(ContractViolation) as caught:
        encode(Wide.model_validate({"Eleonora Quist": NAN}))
    assert str(caught.value).startswith("Wide: an additional field is not a finite number, and ")


def test_an_element_of_an_iterable_that_does_not_match_is_refused_with_its_position() -> None:
    class Series(Event):
        numbers: Iterable[float]
        things: Iterable[object] = ()

    assert encode(Series(numbers=[1, 2])) == b'{"numbers":[1.0,2.0],"things":[]}'
    with pytest.raises(ContractViolation, match=r"`numbers\[1\]` has a value that does not match"):
        encode(Series(numbers=[1, NAN]))
    with pytest.raises(ContractViolation, match=r"`numbers\[2\]` has a value that does not match"):
        encode(Series.model_construct(numbers=iter([1.0, 2.0, "Eleonora Quist"])))
    with pytest.raises(ContractViolation, match=r"`things\[1\]` has a value that does not match"):
        encode(Series.model_construct(numbers=[1.0], things=iter([1.0, object()])))


def test_an_iterable_without_losses_is_sent() -> None:
    class Names(Event):
        names: Iterable[str] = ()
        more: Iterable[str] | None = None

    assert encode(Names()) == b'{"names":[],"more":null}'
    assert encode(Names(names=iter(["a"]), more=["b"])) == b'{"names":["a"],"more":["b"]}'


def test_an_exception_of_the_senders_own_generator_reaches_the_sender() -> None:
    class Names(Event):
        names: Iterable[str]

    def read() -> Iterable[str]:
        yield "a"
        raise ConnectionError

    with pytest.raises(ConnectionError):
        encode(Names(names=read()))


class Person(Message):
    name: str


class Manager(Person):
    staff: int


class Hold(Message):
    person: Person | None = None
    more: list[Person] = Field(default_factory=list)
    inner: Any = None


@pytest.mark.parametrize(
    ("value", "path"),
    [
        (Hold(person=Manager(name="a", staff=1)), "anything.person"),
        ([Hold(more=[Manager(name="a", staff=1)])], r"anything\[0\].more\[0\]"),
        (
            {"a": Hold(inner=Hold(person=Manager(name="a", staff=1)))},
            r"anything\[\*\].inner.person",
        ),
    ],
)
def test_a_model_in_a_value_of_any_type_must_not_hold_a_larger_subclass(
    value: object, path: str
) -> None:
    with pytest.raises(ContractViolation, match=f"`{path}` holds an object of Manager, whose"):
        encode(measured(anything=value))


def test_a_value_of_any_type_can_be_an_object_of_a_subclass() -> None:
    value = Hold(person=Person(name="b"), inner=Manager(name="a", staff=1))
    assert b'"staff":1' in encode(measured(anything=value))


def test_models_that_hold_each_other_in_any_are_checked_once_each() -> None:
    value: object = None
    for _ in range(60):
        value = Hold(inner=value)
    assert encode(measured(anything=value))


class Shelf(Message):
    people: Iterable[Person]


@dataclass(frozen=True)
class Rack:
    numbers: Iterable[float]


class Stock(Event):
    rows: Iterable[Iterable[Person]] = ()
    people: list[Iterable[Person]] = Field(default_factory=list)
    shelves: dict[str, Shelf] = Field(default_factory=dict)
    rack: Rack | None = None
    pair: tuple[int, Iterable[int]] | None = None


def test_an_iterable_inside_a_field_is_sent() -> None:
    ann = Person(name="Ann")
    stock = Stock(
        rows=[[ann], []],
        people=[iter([ann])],
        shelves={"a": Shelf(people=[ann])},
        rack=Rack(numbers=iter([1.0])),
        pair=(1, [2]),
    )
    assert encode(stock) == (
        b'{"rows":[[{"name":"Ann"}],[]],"people":[[{"name":"Ann"}]],'
        b'"shelves":{"a":{"people":[{"name":"Ann"}]}},"rack":{"numbers":[1.0]},"pair":[1,[2]]}'
    )


BOSS = Manager(name="Ann", staff=1)


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"rows": [[BOSS]]}, r"`rows\[0\]\[0\]` holds an object of Manager"),
        ({"people": [[], [BOSS]]}, r"`people\[1\]\[0\]` holds an object of Manager"),
        ({"shelves": {"a": Shelf(people=[BOSS])}}, r"`shelves\[\*\].people\[0\]` holds an object"),
        ({"pair": (1, [2, "x"])}, r"`pair\[1\]\[1\]` has a value that does not match"),
        ({"rows": [[], [1]]}, r"`rows\[1\]\[0\]` has a value that does not match"),
    ],
)
def test_an_iterable_inside_a_field_loses_nothing(values: dict[str, Any], text: str) -> None:
    with pytest.raises(ContractViolation, match=text):
        encode(Stock(**values))


def test_an_element_of_an_inner_iterable_that_is_no_unicode_is_named() -> None:
    stock = Stock(people=[[], [Person(name="a"), Person(name="\ud800"), Person(name="b")]])
    with pytest.raises(ContractViolation, match=r"`people\[1\]\[1\].name` has a value that does"):
        encode(stock)
