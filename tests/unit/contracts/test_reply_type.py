"""Tests of reply types: optional replies, generic messages, and types that are refused."""

from typing import Any, Generic, Optional, TypeVar

import pytest
from pydantic import RootModel

from bus.contracts.contract import Catalog, Job, Message, Request, contract, contract_of
from bus.errors import ContractError, Internal
from bus.runtime.router import Router
from bus.testing import MemoryBuses

T = TypeVar("T")


class Book(Message):
    title: str


class Shelf(Message):
    number: int = 1


class Page(Message, Generic[T]):
    items: list[T]
    next: str | None = None


class Titles(RootModel[list[str]]):
    pass


CATALOG = Catalog()


@contract("library.find", version=1, catalog=CATALOG)
class Find(Request[Book | None]):
    title: str


@contract("library.shelve", version=1, catalog=CATALOG)
class Shelve(Job[Optional[Shelf]]):  # noqa: UP045 - users write this form, too
    title: str


@contract("library.list", version=1, catalog=CATALOG)
class ListBooks(Request[Page[Book]]):
    is_generic: bool = True


@contract("library.take", version=1, catalog=CATALOG)
class Take(Request[Book]):
    pass


def test_a_contract_knows_that_its_reply_is_optional() -> None:
    assert [(contract_of(one).reply, contract_of(one).is_reply_optional) for one in CLASSES] == [
        (Book, True),
        (Shelf, True),
        (Page[Book], False),
        (Book, False),
    ]


CLASSES: tuple[type[Message], ...] = (Find, Shelve, ListBooks, Take)


def library() -> Router:
    router = Router("library")

    @router.request(Find)
    async def find(request: Find) -> Book | None:
        return Book(title=request.title) if request.title == "Emma" else None

    @router.job(Shelve)
    async def shelve(job: Shelve) -> Shelf | None:
        return Shelf() if job.title == "Emma" else None

    @router.request(ListBooks)
    async def list_books(request: ListBooks) -> Page[Book]:
        books = [Book(title="Emma")]
        return Page(items=books) if request.is_generic else Page[Book](items=books)

    return router


async def test_an_optional_reply_is_a_message_or_none() -> None:
    async with MemoryBuses() as buses:
        bus = await buses.bus("library")
        await buses.serve(bus, library())
        assert await bus.request(Find(title="Emma")) == Book(title="Emma")
        assert await bus.request(Find(title="Faust")) is None


async def test_an_optional_result_is_a_message_or_none() -> None:
    async with MemoryBuses() as buses:
        bus = await buses.bus("library")
        await buses.serve(bus, library())
        assert await (await bus.submit(Shelve(title="Emma"))).result(timeout=5) == Shelf()
        assert await (await bus.submit(Shelve(title="Faust"))).result(timeout=5) is None


@pytest.mark.parametrize("is_generic", [True, False])
async def test_a_generic_reply_arrives_as_its_class(is_generic: bool) -> None:
    async with MemoryBuses() as buses:
        bus = await buses.bus("library")
        await buses.serve(bus, library())
        page = await bus.request(ListBooks(is_generic=is_generic))
        assert type(page) is Page[Book]
        assert page == Page[Book](items=[Book(title="Emma")])


def test_the_annotation_of_a_generic_result_may_leave_its_parameter_open() -> None:
    async def of_any(request: ListBooks) -> Page[Any]:
        return Page(items=[])

    async def without_parameter(request: ListBooks) -> Page:  # type: ignore[type-arg]
        return Page(items=[])

    async def of_another_class(request: ListBooks) -> Book:
        return Book(title="Emma")

    for handler in (of_any, without_parameter):
        Router("library").request(ListBooks)(handler)
    with pytest.raises(ContractError, match=r"returns Book, but the reply of .* is Page\[Book\]"):
        Router("library").request(ListBooks)(of_another_class)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("model", "result", "text"),
    [
        (Take, None, "returned None, not Book. Return Book."),
        (Find, Shelf(), "returned Shelf, not Book or None. Return Book or None."),
        (ListBooks, Page(items=[Shelf()]), r"returned Page, not Page\[Book\]"),
        (ListBooks, None, r"returned None, not Page\[Book\]"),
    ],
)
async def test_a_handler_that_returns_another_type_is_a_fault_of_the_service(
    model: Any, result: Any, text: str
) -> None:
    router = Router("library")

    async def handle(_: Any) -> Any:
        return result

    router.request(model)(handle)
    async with MemoryBuses() as buses:
        bus = await buses.bus("library")
        await buses.serve(bus, router)
        with pytest.raises(Internal, match=text):
            await bus.request(model.model_construct(title="a", is_generic=True))


REQUEST: Any = Request  # a type checker refuses most of these types, too
JOB: Any = Job


@pytest.mark.parametrize(
    ("base", "reason"),
    [
        (REQUEST[list[Book]], r"list\[.*Book\] is not a Message class\. A reply is a JSON object"),
        (REQUEST[Titles], "Titles is not a Message class. A reply is a JSON object"),
        (REQUEST[int], "int is not a Message class. A reply is a JSON object"),
        (JOB[list[Book] | None], "A reply is a JSON object"),
        (REQUEST[Book | Shelf], "has several classes, and a reply does not tell its class"),
        (REQUEST["Book"], "is not a Message class, because it is only a name"),
    ],
)
def test_a_reply_that_is_not_an_object_is_refused_with_the_reason(base: Any, reason: str) -> None:
    model = type("Ask", (base,), {"__module__": __name__})
    with pytest.raises(ContractError, match=rf"test_reply_type\.Ask: the reply type .*{reason}"):
        contract("library.ask", version=1, catalog=Catalog())(model)
