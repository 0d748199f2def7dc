import functools
import sys
from collections.abc import AsyncIterator, Iterator
from typing import Annotated, Any

import pytest

from bus.errors import ConfigurationError, ContractError
from bus.messaging.context import Context, handling
from bus.runtime.dependencies import Depends
from bus.runtime.router import Router
from bus.testing import override_dependency
from tests.unit.fakes import NoSender, envelope, virtual
from tests.unit.ledger import Add, Total

life: list[str] = []


@pytest.fixture(autouse=True)
def _forget() -> None:
    life.clear()


async def rate(context: Context) -> int:
    life.append("rate")
    return int(context.state)


async def opened(factor: int = Depends(rate)) -> AsyncIterator[int]:
    life.append("opened")
    yield factor
    life.append("closed")


def plain() -> Iterator[int]:
    yield 7
    life.append("left")


def amount_of(request: Add) -> int:
    return request.amount


async def handled(handler: Any, amount: int = 2) -> int:
    router = Router("ledger")
    router.request(Add)(handler)
    message = envelope(queue="ledger.requests.add.v1", body=b'{"amount": %d}' % amount)
    with handling(Context(envelope=message, bus=NoSender(), state="10")):
        answer = await router(message)
    assert answer
    return Total.model_validate_json(answer.body).total


@virtual
async def test_a_dependency_may_take_the_context_and_others_and_is_left_after_the_handler() -> None:
    async def add(request: Add, factor: int = Depends(opened)) -> Total:
        life.append("handler")
        return Total(total=request.amount * factor)

    assert await handled(add) == 20
    assert life == ["rate", "opened", "handler", "closed"]


@virtual
async def test_a_dependency_that_many_ask_for_is_called_once_a_message() -> None:
    async def add(
        request: Add, context: Context, factor: int = Depends(opened), same: int = Depends(rate)
    ) -> Total:
        return Total(total=len(str(context.state)) + factor - same)

    assert await handled(add) == 2
    assert await handled(add) == 2
    assert life.count("rate") == 2


@virtual
async def test_a_dependency_is_left_when_the_handler_fails() -> None:
    async def tidy() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            life.append("tidied")

    async def add(request: Add, one: int = Depends(tidy)) -> Total:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await handled(add)
    assert life == ["tidied"]


class Adder:
    async def __call__(self, request: Add, amount: int = Depends(amount_of)) -> Total:
        return Total(total=request.amount + amount)

    async def method(self, request: Add, ctx: Context, *, rate: int = Depends(rate)) -> Total:
        return Total(total=len(ctx.state) + rate)


async def annotated(request: Add, factor: Annotated[int, Depends(rate)]) -> Total:
    return Total(total=request.amount + factor)


async def annotated_in_quotes(request: Add, factor: "Annotated[int, Depends(rate)]") -> Total:
    return Total(total=request.amount + factor)


async def in_a_thread(request: Add, seven: int = Depends(plain), scale: int = 3) -> Total:
    return Total(total=seven * scale)


@pytest.mark.parametrize(
    ("handler", "total"),
    [
        (Adder(), 4),
        (Adder().method, 12),
        (annotated, 12),
        (annotated_in_quotes, 12),
        (in_a_thread, 21),
        (functools.partial(in_a_thread, scale=2), 14),
    ],
    ids=["callable", "method", "annotated", "quoted", "plain", "partial"],
)
def test_any_handler_can_have_dependencies(handler: Any, total: int) -> None:
    @virtual
    async def run() -> None:
        assert await handled(handler) == total

    run()


@virtual
async def test_a_test_can_replace_a_dependency() -> None:
    async def add(request: Add, factor: int = Depends(opened)) -> Total:
        return Total(total=request.amount * factor)

    with override_dependency(rate, lambda: 3):
        assert await handled(add) == 6
    assert await handled(add) == 20


def test_a_dependency_that_asks_for_what_nobody_has_is_refused_at_once() -> None:
    def unknown(request: Add, reader: str) -> str:
        return reader

    async def add(request: Add, name: str = Depends(unknown)) -> Total:
        return Total(total=1)

    with pytest.raises(
        ContractError,
        match=r"test_dependencies\..*add: a dependency requires unknown parameters: reader\. "
        r"Use request \(the message\), context",
    ):
        Router("ledger").request(Add)(add)


def test_a_handler_whose_message_has_no_name_is_refused_at_once() -> None:
    async def add(request: Add, /, factor: int = Depends(rate)) -> Total:
        return Total(total=1)

    with pytest.raises(ContractError, match="Remove the /"):
        Router("ledger").request(Add)(add)


def test_a_dependency_that_is_not_a_function_is_refused_at_once() -> None:
    with pytest.raises(ContractError, match="Depends requires a function, not a value of type int"):
        Depends(1)  # type: ignore[arg-type]


def test_a_dependency_that_the_library_refuses_is_refused_with_the_handlers_name() -> None:
    def twice(
        number: Annotated[int, Depends(rate), Depends(amount_of)],
    ) -> int:
        return number

    async def add(request: Add, number: int = Depends(twice)) -> Total:
        return Total(total=number)

    with pytest.raises(
        ContractError, match=r"test_dependencies\..*add: fast-depends refuses a dependency: .*"
    ):
        Router("ledger").request(Add)(add)


def test_without_the_library_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fast_depends", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'trunkline\[depends\]'"):
        Depends(rate)


def test_where_the_library_is_loaded_a_handler_without_dependencies_is_called_as_it_is() -> None:
    async def add(request: Add) -> Total:
        return Total(total=1)

    assert "fast_depends" in sys.modules
    router = Router("ledger")
    router.request(Add)(add)
    (endpoint,) = router.endpoints.values()
    assert (endpoint.function, endpoint.wants_context) == (add, False)
