from typing import Any

from pydantic import computed_field, model_serializer

from bus.contracts.contract import Message
from bus.contracts.unencodable_fields import unencodable_fields

SECRET = "Eleonora Quist"
WRONG: Any = {SECRET: object()}


class Line(Message):
    name: str = ""
    price: int = 0


class Bill(Message):
    total: int = 0
    lines: tuple[Line, ...] = ()
    first: Line | None = None
    notes: dict[str, str] | None = None


class Doubtful(Message):
    total: int = 0

    @computed_field  # type: ignore[prop-decorator]  # mypy does not support decorated properties
    @property
    def share(self) -> float:
        return 1 / self.total


class Secretive(Message):
    total: int = 0

    @model_serializer
    def _write(self) -> dict[str, int]:
        raise KeyError(SECRET)


def test_each_field_that_cannot_be_encoded_is_named_by_its_path() -> None:
    bill = Bill.model_construct(
        total="x",
        lines=(Line(), Line.model_construct(name="\ud800", price=2)),
        first=Line.model_construct(name="", price=WRONG),
        notes=WRONG,
    )
    assert unencodable_fields(bill) == ("total", "lines[1].name", "first.price", "notes")


def test_a_field_of_a_subclass_is_not_sent_and_not_named() -> None:
    class Detailed(Line):
        detail: str = "\ud800"

    assert unencodable_fields(Detailed(), Line) == ()
    assert unencodable_fields(Detailed()) == ("detail",)


def test_a_computed_field_that_fails_is_named() -> None:
    assert unencodable_fields(Doubtful()) == ("share",)


def test_a_message_whose_own_serializer_fails_has_no_field_to_name() -> None:
    assert unencodable_fields(Secretive()) == ()


def test_a_message_that_contains_itself_ends_the_search() -> None:
    bill = Bill.model_construct(total="x", lines=(), first=None, notes=None)
    vars(bill)["lines"] = (bill,)
    assert unencodable_fields(bill)[0] == "total"
