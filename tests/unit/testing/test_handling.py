"""Tests of `handle`, which calls one handler with a real context."""

import asyncio
import sys
from dataclasses import dataclass
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncSession

from bus import (
    Context,
    ContractError,
    ContractViolation,
    Depends,
    Event,
    InvalidResult,
    Message,
    Progress,
    Router,
    contract,
)
from bus.messaging.envelope import NO_HEADERS
from bus.runtime.exits import TaskExit
from bus.testing import HandlerCall, MemoryBuses
from tests.unit.testing.archive import Find, Place, Store, Stored, shelf_of

router = Router("archive")


@dataclass
class Pool:
    shelf: str


def pool() -> Pool:
    return Pool(shelf="C7")


@router.request(Find)
async def find(request: Find, pool: Pool = Depends(pool)) -> Place:
    return Place(shelf=pool.shelf)


catalogue = Router("catalogue")


@catalogue.event(Stored)
async def index(event: Stored, context: Context, pool: Pool = Depends(pool)) -> None:
    await context.bus.request(Find(title=event.title))


ran: list[Message] = []


@contract("archive.lost", version=1)
class Lost(Event):
    title: str


@catalogue.event(Lost)
async def loose(event: Event) -> None:
    ran.append(event)


@router.job(Store)
async def store(job: Store, context: Context) -> Place:
    await context.progress(0.5, "half")
    if context.envelope.attempt == 1:
        return Place(shelf=shelf_of(job.title))
    await context.bus.publish(Stored(title=job.title))
    return Place(shelf=str(context.state))


async def test_handle_returns_the_reply_of_a_handler_with_its_dependencies(
    handle: HandlerCall,
) -> None:
    assert await handle(find, Find(title="Emma")) == Place(shelf="C7")


async def test_handle_raises_the_own_exception_of_the_handler(handle: HandlerCall) -> None:
    with pytest.raises(LookupError, match="torn"):
        await handle(store, Store(title="torn"))


async def test_handle_sets_the_context_and_records_what_the_handler_sends(
    handle: HandlerCall, buses: MemoryBuses
) -> None:
    reply = await handle(
        store, Store(title="Emma"), state="D4", attempt=2, source="shop", correlation_id="c1"
    )
    assert reply == Place(shelf="D4")
    sent = buses.published(Stored).one(title="Emma")
    assert sent.envelope.source == "archive"
    assert sent.envelope.correlation_id == "c1"


@catalogue.event(Stored, subscription="ledger", transactional=True)
async def enter(event: Stored, session: AsyncSession) -> None:
    entered.append((event.title, session))


async def without_router(event: Stored, session: AsyncSession) -> None:
    entered.append((event.title, session))


entered: list[Any] = []


async def test_handle_passes_the_session_of_the_test_to_a_transactional_handler(
    handle: HandlerCall,
) -> None:
    session = AsyncSession()
    for handler in (enter, without_router):
        await handle(handler, Stored(title="Emma"), session=session)
    assert entered == 2 * [("Emma", session)]
    with pytest.raises(TypeError, match=r"enter is transactional\. Pass session="):
        await handle(enter, Stored(title="Emma"))


async def test_handle_records_the_progress_of_the_last_job(handle: HandlerCall) -> None:
    for title in ("Emma", "Persuasion"):
        await handle(store, Store(title=title))
    assert handle.progress == [Progress(progress=0.5, note="half")]


async def test_handle_checks_the_type_of_the_reply_as_the_router_does(handle: HandlerCall) -> None:
    async def wrong(_: Any) -> Any:
        return "B1"

    for message, expected in ((Find(title="Emma"), "Place"), (Stored(title="Emma"), "None")):
        with pytest.raises(InvalidResult, match=f"returned str, not {expected}"):
            await handle(wrong, message)


async def test_handle_encodes_the_message_as_on_the_wire(handle: HandlerCall) -> None:
    with pytest.raises(ContractViolation, match="Find"):
        await handle(find, Find.model_construct(title=7))


async def test_handle_calls_the_handler_of_an_event_for_a_service(
    handle: HandlerCall, buses: MemoryBuses
) -> None:
    seen = []

    async def on_stored(event: Stored, context: Context) -> None:
        seen.append(event)
        await context.bus.submit(Store(title=event.title))

    await buses.serve(await buses.bus("archive"), router)
    await handle(on_stored, Stored(title="Emma"), service="catalogue")
    assert seen == [Stored(title="Emma")]
    assert buses.submitted(Store).one(title="Emma").envelope.source == "catalogue"


async def test_handle_knows_the_service_of_a_handler_by_the_router_in_its_module(
    handle: HandlerCall, buses: MemoryBuses
) -> None:
    await buses.serve(await buses.bus("archive"), router)
    await handle(index, Stored(title="Emma"))
    assert buses.requested(Find).one(title="Emma").envelope.source == "catalogue"


async def test_handle_calls_an_object_that_is_a_handler(handle: HandlerCall) -> None:
    class Finder:
        async def __call__(self, request: Find) -> Place:
            return Place(shelf=request.title)

    assert await handle(Finder(), Find(title="Emma")) == Place(shelf="Emma")


async def test_handle_refuses_an_unknown_attribute_of_the_envelope(handle: HandlerCall) -> None:
    with pytest.raises(TypeError, match=r"no attribute 'atempt' to set; did you mean 'attempt'"):
        await handle(find, Find(title="Emma"), atempt=2)


@pytest.mark.parametrize("service", [None, "catalogue"])
async def test_handle_refuses_a_message_of_another_handler(
    handle: HandlerCall, service: str | None
) -> None:
    with pytest.raises(
        TypeError,
        match=r"test_handling.loose is the handler of archive.lost.v1, not of archive.stored.v1. "
        r"Pass Lost\(…\).",
    ):
        await handle(loose, Stored(title="Emma"), service=service)
    assert ran == []


async def test_handle_refuses_a_message_that_the_annotation_excludes(handle: HandlerCall) -> None:
    async def unregistered(request: Find) -> Place:
        ran.append(request)
        return Place(shelf="B1")

    with pytest.raises(ContractError, match=r"'request' has the type Find, but the message is of"):
        await handle(unregistered, Store(title="Emma"))
    assert ran == []


@pytest.mark.parametrize(
    ("context", "told"),
    [
        ({"source": 5}, "source must be str, not int"),
        ({"attempt": "x"}, "attempt must be int, not str"),
        ({"attempt": True}, "attempt must be int, not bool"),
        ({"deadline": "soon"}, "deadline must be int | None, not str"),
        ({"headers": {"x": []}}, "headers must be .*, not dict"),
        ({"bus": "archive"}, "bus must be an object with methods such as request and publish"),
        ({"service": 5}, "service must be str, not int"),
    ],
)
async def test_handle_refuses_an_argument_of_a_wrong_type_by_its_name(
    handle: HandlerCall, context: dict[str, Any], told: str
) -> None:
    with pytest.raises(TypeError, match=f"^handle: {told.replace('|', '[|]')}"):
        await handle(find, Find(title="Emma"), **context)


async def test_handle_refuses_an_attempt_before_the_first(handle: HandlerCall) -> None:
    with pytest.raises(ValueError, match="attempt must be at least 1"):
        await handle(find, Find(title="Emma"), attempt=0)


async def test_handle_refuses_the_class_in_place_of_a_message(handle: HandlerCall) -> None:
    with pytest.raises(TypeError, match=r"such as Find\(…\), not the class Find"):
        await handle(find, Find)  # type: ignore[arg-type]  # the mistake under test


async def test_handle_accepts_the_headers_of_an_envelope(handle: HandlerCall) -> None:
    for headers in ({"tenant": "a", "part": 1}, NO_HEADERS):
        assert await handle(find, Find(title="Emma"), headers=headers) == Place(shelf="C7")


async def test_an_exit_in_a_task_of_the_handler_is_an_error_of_its_test(
    handle: HandlerCall,
) -> None:
    exiting = Router("archive")

    async def leave() -> None:
        sys.exit(3)

    @exiting.request(Find)
    async def find(request: Find) -> Place:
        await asyncio.create_task(leave())
        raise AssertionError

    with pytest.raises(TaskExit, match="a task of a handler raised SystemExit"):
        await handle(find, Find(title="Emma"))
