"""Tests of reply types: optional replies, generic messages, and types that are refused."""

from typing import Annotated, Any, Generic, Optional, TypeVar

import pytest
from pydantic import Field, RootModel, field_validator

from bus.contracts.contract import Catalog, Event, Job, Message, Request, contract, contract_of
from bus.errors import ContractError, ContractViolation, Internal
from bus.runtime.router import Router
from bus.testing import MemoryBuses

S = TypeVar("S")
T = TypeVar("T", bound=Message)


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


class Taken(Event):
    title: str


class Search(Request[T], Generic[T]):
    text: str = ""


class PagedSearch(Search[Page[T]], Generic[T]):
    size: int = 10


class Pair(Job[T | None], Generic[S, T]):
    text: str = ""


class FindBook(Search[Book]):
    pass


class FindBooks(PagedSearch[Book]):
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
VARIABLE: Any = T


@pytest.mark.parametrize(
    ("base", "reason"),
    [
        (REQUEST[list[Book]], r"list\[.*Book\] is not a Message class\. A reply is a JSON object"),
        (REQUEST[Titles], "Titles is not a Message class. A reply is a JSON object"),
        (REQUEST[int], "int is not a Message class. A reply is a JSON object"),
        (JOB[list[Book] | None], "A reply is a JSON object"),
        (REQUEST[Book | Shelf], "has several classes, and a reply does not tell its class"),
        (REQUEST["Book"], "is not a Message class, because it is only a name"),
        (REQUEST[Page], r"Page has a type variable, .* Write Page\[…\] with a type"),
        (REQUEST[Taken], "Taken is a class of Event, which is a message with its own type"),
        (REQUEST[Take], "Take is a class of Request, which is a message with its own type"),
        (JOB[VARIABLE], r"~T is a type variable\. Write a class in the brackets"),
    ],
)
def test_a_reply_that_is_not_an_object_is_refused_with_the_reason(base: Any, reason: str) -> None:
    model = type("Ask", (base,), {"__module__": __name__})
    with pytest.raises(ContractError, match=rf"test_reply_type\.Ask: the reply type .*{reason}"):
        contract("library.ask", version=1, catalog=Catalog())(model)


@pytest.mark.parametrize(
    ("model", "reply", "is_optional"),
    [
        (Search[Book], Book, False),
        (FindBook, Book, False),
        (FindBooks, Page[Book], False),
        (Pair[int, Shelf], Shelf, True),
    ],
)
def test_a_generic_request_has_the_reply_type_of_its_brackets(
    model: Any, reply: type, is_optional: bool
) -> None:
    contract("library.search", version=1, catalog=Catalog())(model)
    declared = contract_of(model)
    assert (declared.reply, declared.is_reply_optional) == (reply, is_optional)


def test_an_annotated_reply_has_the_type_in_the_annotation() -> None:
    base = REQUEST[Annotated[Book, Field(description="x")] | None]
    model: Any = type("Ask", (base,), {"__module__": __name__})
    contract("library.ask", version=1, catalog=Catalog())(model)
    assert contract_of(model).reply is Book
    assert contract_of(model).is_reply_optional


def test_a_class_of_two_kinds_is_refused() -> None:
    class Both(Request[Book], Job[Book]):
        pass

    with pytest.raises(ContractError, match=r"Both is a Request and a Job\. Derive it from one of"):
        contract("library.both", version=1, catalog=Catalog())(Both)


async def test_a_reply_that_a_validator_cannot_read_is_called_a_reply() -> None:
    class Worn(Message):
        title: str

        @field_validator("title")
        @classmethod
        def _check(cls, title: str) -> str:
            if title == "Emma":
                raise RuntimeError
            return title

    class Look(Request[Worn]):
        pass

    contract("library.look", version=1, catalog=Catalog())(Look)
    router = Router("library")

    @router.request(Look)
    async def look(_: Look) -> Worn:
        return Worn.model_construct(title="Emma")

    async with MemoryBuses() as buses:
        bus = await buses.bus("library")
        await buses.serve(bus, router)
        with pytest.raises(ContractViolation, match=r"so the reply is invalid\. Correct the reply"):
            await bus.request(Look())
