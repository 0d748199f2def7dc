"""Tests of contracts with types that are not defined when the contract is declared."""

# These modules are written as text, because names are looked up in the module of a class.

import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

from bus.contracts.contract import CATALOG, Message, contract_of, require_resolved
from bus.errors import ContractError
from bus.runtime.router import Router
from bus.testing import MemoryBuses
from tests.polling import until

HEAD = """
from __future__ import annotations
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated
from pydantic import ConfigDict, SecretStr
from bus import Event, Message, Request, contract
if TYPE_CHECKING:
    from decimal import Decimal
"""
ORDER = (
    HEAD
    + """
@contract("bakery.order", version=1)
class Order(Event):
    amount: int
    prices: dict[str, Decimal]
"""
)
NESTED = (
    HEAD
    + """
@dataclass
class Size:
    width: Decimal
class Line(Message):
    size: list[Size]
@contract("bakery.order", version=1)
class Order(Event):
    lines: list[Line]
"""
)
REPLY = (
    HEAD
    + """
class Price(Message):
    total: Decimal
@contract("bakery.price", version=1)
class GetPrice(Request[Price]):
    number: int = 1
"""
)
LATER = (
    HEAD
    + """
@contract("bakery.order", version=1)
class Order(Event):
    lines: list[Line]
class Line(Message):
    text: str
"""
)
LATER_LOSSY = (
    HEAD
    + """
@contract("bakery.order", version=1)
class Order(Event):
    lines: list[Line]
class Line(Message):
    text: SecretStr
"""
)
DEFERRED = (
    HEAD
    + """
@contract("bakery.order", version=1)
class Order(Event):
    model_config = ConfigDict(defer_build=True)
    text: SecretStr
"""
)


@pytest.fixture
def modules() -> Iterator[list[str]]:
    """Remove the modules and contracts of a test, because they are global."""
    names: list[str] = []
    yield names
    for name in names:
        del sys.modules[name]
    for type_ in ("bakery.order.v1", "bakery.price.v1"):
        CATALOG._by_type.pop(type_, None)


def load(source: str, modules: list[str]) -> Any:
    module = ModuleType("bakery_contracts")
    sys.modules[module.__name__] = module
    modules.append(module.__name__)
    exec(compile(source, "bakery_contracts.py", "exec", dont_inherit=True), vars(module))
    return module


@pytest.mark.parametrize(
    ("source", "path"), [(ORDER, "prices"), (NESTED, "lines.size.width")], ids=["field", "nested"]
)
def test_a_type_that_only_type_checkers_import_is_refused_with_the_name_of_the_field(
    source: str, path: str, modules: list[str]
) -> None:
    model = load(source, modules).Order
    with pytest.raises(ContractError) as caught:
        require_resolved(contract_of(model))
    assert str(caught.value) == (
        f"bakery.order.v1: the field `{path}` needs the name 'Decimal', which is not defined in "
        f"its module. Import 'Decimal' outside of `if TYPE_CHECKING:`, or define it in the module."
    )


async def test_a_service_with_such_a_contract_does_not_start(modules: list[str]) -> None:
    model = load(ORDER, modules).Order
    router = Router("bakery")

    async def handle(_: Message) -> None: ...

    router.event(model)(handle)
    async with MemoryBuses() as buses:
        bus = await buses.bus("bakery")
        with pytest.raises(ContractError, match="the field `prices` needs the name 'Decimal'"):
            await buses.serve(bus, router)


async def test_a_caller_hears_of_an_undefined_type_in_the_reply_when_it_sends(
    modules: list[str],
) -> None:
    model = load(REPLY, modules).GetPrice
    async with MemoryBuses() as buses:
        bus = await buses.bus("shop")
        with pytest.raises(
            ContractError, match=r"price\.v1: the field `total` of the reply Price needs the name"
        ):
            await bus.request(model(number=1))


async def test_a_type_that_is_defined_later_in_the_module_works(modules: list[str]) -> None:
    module = load(LATER, modules)
    router = Router("bakery")
    heard: list[Message] = []

    async def handle(order: Message) -> None:
        heard.append(order)

    router.event(module.Order)(handle)
    async with MemoryBuses() as buses:
        bus = await buses.bus("bakery")
        await buses.serve(bus, router)
        order = module.Order(lines=[module.Line(text="a")])
        await bus.publish(order)
        await until(lambda: heard == [order], "the event")


@pytest.mark.parametrize("source", [LATER_LOSSY, DEFERRED], ids=["later", "deferred"])
def test_a_class_that_is_completed_later_is_checked_then(source: str, modules: list[str]) -> None:
    model = load(source, modules).Order
    for _ in range(2):
        with pytest.raises(ContractError, match=r"text` is a secret of pydantic"):
            require_resolved(contract_of(model))
