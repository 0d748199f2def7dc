"""Declarations of transactional handlers: the parameters that receive the session."""

from collections.abc import Callable
from typing import Annotated, Any

import pytest
from sqlalchemy.ext.asyncio import AsyncSession

from bus import Context, ContractError, Depends, Router
from bus.errors import ConfigurationError
from bus.testing import MemoryBuses
from tests.unit.fakes import NoSender, envelope
from tests.unit.ledger import BooksClosed, CloseBooks, GetTotal, Total
from tests.unit.runtime.in_memory import in_memory

SESSION: Any = object()
"""The session that the context has in these tests."""


class Shelf:
    """A repository, as an application makes it from a session."""

    def __init__(self, session: Any) -> None:
        self.session = session


def open_shelf(session: AsyncSession) -> Shelf:
    return Shelf(session)


def open_library(shelf: Annotated[Shelf, Depends(open_shelf)], database: AsyncSession) -> Shelf:
    assert database is shelf.session
    return shelf


class Tenant(AsyncSession):
    """A session of the application's own class."""


def registered(handler: Callable[..., Any], **options: Any) -> Router:
    router = Router("audit")
    router.event(BooksClosed, **{"transactional": True, **options})(handler)
    return router


async def call(router: Router) -> None:
    """Call the only handler of a router in a transaction."""
    ((queue, endpoint),) = router.endpoints.items()
    message = envelope("ledger.closed.v1", role="event", queue=queue)
    await endpoint.function(
        BooksClosed(), Context(envelope=message, bus=NoSender(), session=SESSION)
    )


async def test_the_parameter_with_the_annotation_receives_the_session_at_any_place() -> None:
    seen = list[Any]()

    async def last(event: BooksClosed, context: Context, session: AsyncSession) -> None:
        seen.append((context.session, session))

    async def second(event: BooksClosed, database: AsyncSession) -> None:
        seen.append((SESSION, database))

    async def by_keyword(event: BooksClosed, *, session: "AsyncSession | None" = None) -> None:
        seen.append((SESSION, session))

    for handler in (last, second, by_keyword):
        router = registered(handler)
        assert [each.is_transactional for each in router.endpoints.values()] == [True]
        await call(router)
    assert seen == 3 * [(SESSION, SESSION)]


async def test_dependencies_of_dependencies_receive_the_session_under_their_own_names() -> None:
    seen = list[Any]()

    async def handler(event: BooksClosed, library: Shelf = Depends(open_library)) -> None:
        seen.append(library.session)

    async def both(
        event: BooksClosed, session: AsyncSession, shelf: Annotated[Shelf, Depends(open_shelf)]
    ) -> None:
        seen.append(shelf.session)
        assert shelf.session is session

    await call(registered(handler))
    await call(registered(both))
    assert seen == [SESSION, SESSION]


def test_a_job_can_be_transactional() -> None:
    router = Router("ledger")

    @router.job(CloseBooks, transactional=True)
    async def close(job: CloseBooks, session: AsyncSession) -> Total:
        return Total(total=1)

    assert [each.is_transactional for each in router.endpoints.values()] == [True]


def count_books() -> int:
    return 1


async def needs_session(event: BooksClosed, session: AsyncSession) -> None: ...


async def takes_two(event: BooksClosed, one: AsyncSession, two: AsyncSession) -> None: ...


async def takes_none(event: BooksClosed, context: Context) -> None: ...


async def takes_tenant(event: BooksClosed, session: Tenant) -> None: ...


async def has_shelf(event: BooksClosed, shelf: Shelf = Depends(open_shelf)) -> None: ...


async def hides(
    event: BooksClosed, database: int = Depends(count_books), library: Shelf = Depends(open_library)
) -> None: ...


async def by_position(event: BooksClosed, session: AsyncSession, /) -> None: ...


@pytest.mark.parametrize(
    ("handler", "options", "problem"),
    [
        (needs_session, {"transactional": False}, r"Write @router.event\(BooksClosed, transac"),
        (has_shelf, {"transactional": False}, r"'session' is an AsyncSession, and only a trans"),
        (takes_two, {}, "'one' and 'two' both are the AsyncSession"),
        (takes_none, {}, "is transactional, but takes no session"),
        (takes_tenant, {}, "'session' has the type Tenant, which the bus cannot provide"),
        (hides, {}, "takes the AsyncSession as database, and another parameter"),
        (by_position, {}, "positional-only parameters, because it takes a session"),
        (needs_session, {"transactional": 1}, "must be True or False, not a value of type int"),
    ],
)
def test_a_session_that_the_bus_cannot_give_is_refused_with_the_remedy(
    handler: Callable[..., Any], options: dict[str, Any], problem: str
) -> None:
    with pytest.raises(ContractError, match=problem):
        registered(handler, **options)


def test_a_handler_of_a_request_cannot_take_the_session() -> None:
    router = Router("ledger")

    async def get(request: GetTotal, session: AsyncSession) -> Total:
        return Total(total=1)

    with pytest.raises(ContractError, match="let the handler submit a job that writes"):
        router.request(GetTotal)(get)


def test_a_session_of_the_application_itself_needs_no_transaction() -> None:
    def own_session() -> Any:
        return SESSION

    async def handler(event: BooksClosed, session: AsyncSession = Depends(own_session)) -> None: ...

    async def optional(event: BooksClosed, session: AsyncSession | None = None) -> None: ...

    for each in (handler, optional):
        router = registered(each, transactional=False)
        assert [each.is_transactional for each in router.endpoints.values()] == [False]


@in_memory
async def test_serving_a_transactional_handler_without_a_store_is_refused(
    buses: MemoryBuses,
) -> None:
    audit = await buses.bus("audit")
    with pytest.raises(ConfigurationError, match=r"ledger\.closed\.v1: .*Set BUS_STORE to the URL"):
        await buses.serve(audit, registered(needs_session))
