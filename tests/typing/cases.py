"""Correct and incorrect uses for a type checker; this module is never run.

A line with `type: ignore[code]` is incorrect, and the checker must report that code. mypy strict
also reports an ignore that is not needed. All other lines are correct.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial, wraps
from typing import Annotated, Generic, ParamSpec, TypeVar, assert_type

from pydantic import RootModel

from bus import (
    Bus,
    BusError,
    Context,
    Dependency,
    Depends,
    Event,
    Job,
    JobHandle,
    JobStatus,
    Message,
    RateLimit,
    Request,
    Router,
    Sender,
    SyncBus,
    SyncJobHandle,
    contract,
)
from bus.messaging.envelope import Progress

T = TypeVar("T")


class Note(Message):
    text: str


class Other(Message):
    text: str


@contract("typing.get", version=1, permission="read:notes", idempotent=True)
class GetNote(Request[Note]):
    number: int


@contract("typing.remove", version=1)
class RemoveNote(Request[None]):
    number: int


@contract("typing.write", version=1)
class WriteNote(Job[Note]):
    text: str


@contract("typing.sweep", version=1)
class Sweep(Job[None]):
    pass


@contract("typing.written", version=1)
class NoteWritten(Event):
    number: int


# --- declarations ---


@contract("typing.misspelt", verison=1)  # type: ignore[call-arg]
class Misspelt(Event): ...


@contract("typing.unversioned")  # type: ignore[call-arg]
class Unversioned(Event): ...


@contract("typing.text", version="1")  # type: ignore[arg-type]
class TextVersion(Event): ...


@contract("typing.yes", version=1, idempotent="yes")  # type: ignore[arg-type]
class TextIdempotent(Event): ...


@contract("typing.prices", version=1, idempotent=True, criticality="sheddable", cache=60)
class GetPrices(Request[Note]): ...


@contract("typing.important", version=1, criticality="important")  # type: ignore[arg-type]
class Important(Event): ...


@contract("typing.cached", version=1, idempotent=True, cache="60")  # type: ignore[arg-type]
class TextCache(Request[Note]): ...


@contract("typing.positional", 1)  # type: ignore[call-arg]
class Positional(Event): ...


@contract("typing.number", version=1)
class AnswersNumber(Request[int]): ...  # type: ignore[type-var]


@contract("typing.find", version=1)
class FindNote(Request[Note | None]):
    text: str


class Page(Message, Generic[T]):
    items: list[T]


@contract("typing.list", version=1)
class ListNotes(Request[Page[Note]]): ...


@contract("typing.tidy", version=1)
class Tidy(Job[Note | None]): ...


@contract("typing.lists", version=1)
class AnswersList(Request[list[Note]]): ...  # type: ignore[type-var]


class Notes(RootModel[list[Note]]): ...


@contract("typing.root", version=1)
class AnswersRoot(Request[Notes]): ...  # type: ignore[type-var]


# --- calls ---


async def calls(bus: Bus) -> None:
    assert_type(await bus.request(GetNote(number=1), timeout=2), Note)
    assert_type(await bus.request(RemoveNote(number=1)), None)
    assert_type(await bus.submit(WriteNote(text="a")), JobHandle[Note])
    assert_type(await (await bus.submit(WriteNote(text="a"))).result(timeout=2), Note)
    assert_type(bus.job(WriteNote, "1", submitter="desk"), JobHandle[Note])
    assert_type(await bus.job(WriteNote, "1").result(timeout=2), Note)
    assert_type(await bus.job(WriteNote, "1").cancel(reason="a"), JobStatus)
    bus.job(GetNote, "1")  # type: ignore[arg-type]
    assert_type(await (await bus.submit(Sweep())).result(), None)
    assert_type((await bus.submit(Sweep())).updates(), AsyncIterator[Progress])
    assert_type(await bus.publish(NoteWritten(number=1)), None)
    assert_type(await bus.request(FindNote(text="a")), Note | None)
    assert_type(await bus.request(ListNotes()), Page[Note])
    assert_type(await (await bus.submit(Tidy())).result(), Note | None)
    note: Other = await bus.request(GetNote(number=1))  # type: ignore[arg-type]
    text: str = await bus.request(GetNote(number=1))  # type: ignore[assignment]
    await bus.request(GetNote(number=1), timeuot=2)  # type: ignore[call-overload]
    await bus.request(NoteWritten(number=1))  # type: ignore[call-overload]
    await bus.request(WriteNote(text="a"))  # type: ignore[call-overload]
    await bus.publish(GetNote(number=1))  # type: ignore[arg-type]
    await bus.submit(GetNote(number=1))  # type: ignore[arg-type]
    await bus.request(GetNote)  # type: ignore[call-overload]
    GetNote(numbr=1)  # type: ignore[call-arg]
    assert_type((note, text), tuple[Other, str])


def synchronous_calls(bus: SyncBus) -> None:
    assert_type(bus.request(GetNote(number=1), timeout=2), Note)
    assert_type(bus.request(RemoveNote(number=1)), None)
    assert_type(bus.request(FindNote(text="a")), Note | None)
    assert_type(bus.submit(WriteNote(text="a")), SyncJobHandle[Note])
    assert_type(bus.job(WriteNote, "1").status(), JobStatus)
    assert_type(bus.submit(WriteNote(text="a")).result(timeout=2), Note)
    assert_type(bus.submit(Sweep()).result(), None)
    assert_type(bus.submit(Sweep()).updates(), Iterator[Progress])
    bus.publish(NoteWritten(number=1), timeout=2)
    note: Other = bus.request(GetNote(number=1))  # type: ignore[assignment]
    bus.request(GetNote(number=1), timeuot=2)  # type: ignore[call-overload]
    bus.request(WriteNote(text="a"))  # type: ignore[call-overload]
    bus.publish(GetNote(number=1))  # type: ignore[arg-type]
    bus.submit(GetNote(number=1))  # type: ignore[arg-type]
    with SyncBus("website") as opened:
        assert_type(opened, SyncBus)
    assert_type(note, Other)


async def fallbacks(bus: Bus, sync_bus: SyncBus, context: Context) -> None:
    note = Note(text="none")
    assert_type(await bus.request(GetNote(number=1), fallback=note), Note)
    assert_type(await bus.request(GetNote(number=1), fallback=lambda error: note), Note)
    assert_type(await bus.request(GetNote(number=1), fallback=note_or_none), Note)
    assert_type(await bus.request(GetNote(number=1), fallback=None), Note)
    assert_type(await bus.request(FindNote(text="a"), fallback=note), Note | None)
    assert_type(await bus.request(FindNote(text="a"), fallback=lambda error: None), Note | None)
    assert_type(await bus.request(RemoveNote(number=1), fallback=lambda error: None), None)
    assert_type(await context.bus.request(GetNote(number=1), fallback=note), Note)
    assert_type(await context.bus.request(GetNote(number=1), fallback=note_or_none), Note)
    assert_type(sync_bus.request(GetNote(number=1), fallback=note), Note)
    assert_type(sync_bus.request(GetNote(number=1), fallback=note_or_none), Note)
    await bus.request(GetNote(number=1), fallback=Other(text="a"))  # type: ignore[misc]
    await bus.request(GetNote(number=1), fallback=other)  # type: ignore[arg-type]
    await bus.request(GetNote(number=1), fallback=Note)  # type: ignore[arg-type]
    await context.bus.request(GetNote(number=1), fallback=other)  # type: ignore[arg-type]
    sync_bus.request(GetNote(number=1), fallback=Other(text="a"))  # type: ignore[misc]
    sync_bus.request(GetNote(number=1), fallback=other)  # type: ignore[arg-type]


def note_or_none(error: BusError) -> Note | None:
    return Note(text=error.code) if error.retryable else None


def other(error: BusError) -> Other:
    return Other(text=error.code)


async def while_handling(context: Context) -> None:
    assert_type(await context.bus.request(GetNote(number=1)), Note)
    assert_type(await (await context.bus.submit(WriteNote(text="a"))).result(), Note)
    await context.bus.publish(WriteNote(text="a"))  # type: ignore[arg-type]


# --- handlers ---


def right_handlers(router: Router) -> None:
    @router.request(GetNote, concurrency=4)
    async def get(request: GetNote) -> Note:
        return Note(text="a")

    @router.request(GetNote)
    async def get_in_context(request: GetNote, context: Context) -> Note:
        return Note(text="a")

    @router.request(RemoveNote)
    async def remove(request: RemoveNote) -> None: ...

    @router.job(WriteNote, timeout=60)
    async def write(job: WriteNote, context: Context) -> Note:
        return Note(text="a")

    @router.job(Sweep)
    async def sweep(job: Sweep) -> None: ...

    @router.event(NoteWritten, subscription="index")
    async def index(event: NoteWritten) -> None: ...

    @router.event(NoteWritten)
    async def index_in_context(event: NoteWritten, context: Context) -> None: ...

    async def used(context: Context) -> None:
        assert_type(await get(GetNote(number=1)), Note)
        assert_type(await write(WriteNote(text="a"), context), Note)


def right_handlers_of_optional_and_generic_replies(router: Router) -> None:
    @router.request(FindNote)
    async def find(request: FindNote) -> Note | None:
        return None

    @router.request(FindNote)
    async def find_always(request: FindNote) -> Note:
        return Note(text="a")

    @router.job(Tidy)
    async def tidy(job: Tidy) -> Note | None:
        return None

    @router.request(ListNotes)
    async def list_notes(request: ListNotes) -> Page[Note]:
        return Page(items=[Note(text="a")])


def right_handlers_of_other_forms(router: Router) -> None:
    @router.request(GetNote)
    async def get_in_optional_context(request: GetNote, context: Context | None = None) -> Note:
        return Note(text="a")

    @router.request(GetNote)
    async def get_in_context_by_name(request: GetNote, limit: int = 3, *, context: Context) -> Note:
        return Note(text="a")

    @router.event(NoteWritten, subscription="any")
    async def index_any(event: Event) -> None: ...

    router.request(GetNote)(partial(get_in_context_by_name, limit=3))
    router.request(GetNote)(passing_on(get_in_optional_context))
    router.request(GetNote)(Shelf().find)
    router.request(GetNote)(Shelf())


P = ParamSpec("P")
R = TypeVar("R")


def passing_on(function: Callable[P, Awaitable[R]]) -> Callable[P, Awaitable[R]]:
    @wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> Awaitable[R]:
        return function(*args, **kwargs)

    return wrapper


class Shelf:
    async def find(self, request: GetNote, context: Context) -> Note:
        return Note(text="a")

    async def __call__(self, request: GetNote) -> Note:
        return Note(text="a")


class LateShelf:
    def __init__(self, router: Router) -> None:
        router.request(GetNote)(self.find)

    async def find(self, request: GetNote) -> Note:
        return Note(text="a")


def opened(context: Context) -> Note:
    return Note(text="a")


def handlers_with_dependencies(router: Router) -> None:
    @router.request(GetNote)
    async def get(request: GetNote, note: Note = Depends(opened)) -> Note:
        return note

    @router.job(WriteNote)
    async def write(job: WriteNote, context: Context, note: Note = Depends(opened)) -> Note:
        return note

    @router.event(NoteWritten)
    async def index(event: NoteWritten, *, note: Note = Depends(opened)) -> None: ...

    @router.request(GetNote)  # type: ignore[arg-type]
    async def wrong_reply(request: GetNote, note: Note = Depends(opened)) -> Other:
        return Other(text="a")

    @router.request(GetNote)
    async def annotated(request: GetNote, note: Annotated[Note, Depends(opened)]) -> Note:
        return note

    @router.job(WriteNote)
    async def annotated_job(
        job: WriteNote, context: Context, *, note: Annotated[Note, Depends(opened)]
    ) -> Note:
        return note

    async def used(context: Context) -> None:
        assert_type(await get(GetNote(number=1)), Note)
        assert_type(await get(GetNote(number=1), note=Note(text="a")), Note)
        assert_type(await annotated(GetNote(number=1), Note(text="a")), Note)
        await annotated(GetNote(number=1))  # type: ignore[call-arg]
        assert_type(await annotated_job(WriteNote(text="a"), context, note=Note(text="a")), Note)

    Depends(1)  # type: ignore[arg-type]
    Depends(opened, cache=True)  # type: ignore[call-arg]


def wrong_request_handlers(router: Router) -> None:
    @router.request(GetNote)  # type: ignore[arg-type]
    async def wrong_reply(request: GetNote) -> Other:
        return Other(text="a")

    @router.request(GetNote)  # type: ignore[arg-type]
    async def wrong_request(request: Other) -> Note:
        return Note(text="a")

    @router.request(GetNote)  # type: ignore[arg-type]
    async def no_reply(request: GetNote) -> None: ...

    @router.request(RemoveNote)  # type: ignore[arg-type]
    async def a_reply_too_much(request: RemoveNote) -> Note:
        return Note(text="a")

    @router.request(GetNote)  # type: ignore[arg-type]
    def not_async(request: GetNote) -> Note:
        return Note(text="a")

    @router.request(GetNote)  # type: ignore[arg-type]
    async def context_first(context: Context, request: GetNote) -> Note:
        return Note(text="a")

    @router.request(GetNote)  # type: ignore[arg-type]
    async def no_message() -> Note:
        return Note(text="a")

    @router.request(GetNote)  # type: ignore[arg-type]
    async def message_by_name(*, request: GetNote) -> Note:
        return Note(text="a")

    class InClassBody:
        @router.request(GetNote)  # type: ignore[arg-type]
        async def find(self, request: GetNote) -> Note:  # type: ignore[misc]
            return Note(text="a")

    router.request(GetNote)(Shelf.find)  # type: ignore[arg-type]
    router.request(GetNote)(Shelf)  # type: ignore[arg-type]


def wrong_handlers_of_optional_and_generic_replies(router: Router) -> None:
    @router.request(GetNote)  # type: ignore[arg-type]
    async def perhaps_a_reply(request: GetNote) -> Note | None:
        return None

    @router.request(FindNote)  # type: ignore[arg-type]
    async def another_optional_reply(request: FindNote) -> Other | None:
        return None

    @router.request(ListNotes)  # type: ignore[arg-type]
    async def wrong_page(request: ListNotes) -> Page[Other]:
        return Page(items=[])


def wrong_job_and_event_handlers(router: Router) -> None:
    @router.job(WriteNote)  # type: ignore[arg-type]
    async def wrong_result(job: WriteNote) -> Other:
        return Other(text="a")

    @router.job(Sweep)  # type: ignore[arg-type]
    async def a_result_too_much(job: Sweep) -> Note:
        return Note(text="a")

    @router.event(NoteWritten)  # type: ignore[arg-type]
    async def an_events_result(event: NoteWritten) -> Note:
        return Note(text="a")

    @router.event(NoteWritten)  # type: ignore[arg-type]
    async def another_event(event: Other) -> None: ...


@asynccontextmanager
async def lifespan() -> AsyncIterator[Note]:
    yield Note(text="a")


@asynccontextmanager
async def lifespan_with_bus(bus: Bus) -> AsyncIterator[Note]:
    await bus.publish(NoteWritten(number=1))
    yield Note(text="a")


@asynccontextmanager
async def lifespan_with_sender(sender: Sender) -> AsyncIterator[None]:
    yield


@asynccontextmanager
async def lifespan_with_more(bus: Bus, more: int) -> AsyncIterator[None]:
    yield


async def not_a_lifespan() -> AsyncIterator[None]:
    yield


def lifespans_and_includes() -> None:
    router = Router("typing", lifespan=lifespan)
    router.include(Router("typing", lifespan=lifespan_with_bus))
    router.include(Router("typing", lifespan=lifespan_with_sender))
    Router("typing", lifespan=lifespan_with_more)  # type: ignore[arg-type]
    Router("typing", lifespan=not_a_lifespan)  # type: ignore[arg-type]
    router.include("typing")  # type: ignore[arg-type]


def wrong_registrations(router: Router) -> None:
    router.request(WriteNote)  # type: ignore[arg-type]
    router.request(NoteWritten)  # type: ignore[arg-type]
    router.job(GetNote)  # type: ignore[arg-type]
    router.event(GetNote)  # type: ignore[type-var]
    router.request(GetNote, concurency=4)  # type: ignore[call-arg]
    router.job(WriteNote, retry=5)  # type: ignore[arg-type]
    router.job(WriteNote, dependency="printer", failures=(OSError,))
    router.job(WriteNote, dependency=Dependency(name="printer", failures=(OSError,)))
    router.job(WriteNote, dependency="printer", failures=("OSError",))  # type: ignore[arg-type]
    router.job(WriteNote, dependency="printer", failures=OSError)  # type: ignore[arg-type]
    router.request(GetNote, rate=RateLimit(100, per=1.0, burst=20))
    router.request(GetNote, rate=100)  # type: ignore[arg-type]
    router.job(WriteNote, rate=RateLimit(100))  # type: ignore[call-arg]
    router.job(WriteNote, timeout="5")  # type: ignore[arg-type]
    router.job(WriteNote, timeout=None)  # type: ignore[arg-type]
    router.request(GetNote, concurrency=1.5)  # type: ignore[arg-type]
    router.request(opened)  # type: ignore[arg-type]
