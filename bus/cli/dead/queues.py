"""Which dead-letter queues a command is about, and the way to them and back."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar

from bus.cli.audit import begin_audit
from bus.cli.loading import load_router
from bus.contracts.contract import check_part
from bus.errors import BusError, ContractError, NotFound
from bus.messaging.ports.transport import Transport
from bus.messaging.suggestions import did_you_mean
from bus.messaging.topology.names import dead_letter_queue, unroutable_queue
from bus.operations.dead_letters import BrowseResult, ObservedValues, Selection, browse_queue
from bus.operations.queue_inspection import BrokerAddress, QueueFilter, QueueStatus, inspect_queues
from bus.settings import Settings, load_settings
from bus.transports.rabbitmq import RabbitMQTransport

__all__ = ["connected", "look_everywhere", "run"]

T = TypeVar("T")
Work = Callable[[Transport, list[str]], Coroutine[Any, Any, T]]


def run(work: Work[T], service: str | None, queues: Sequence[str] | None) -> T:
    """Connect, find the queues, and do it; `queues` given as an empty list means that none are needed."""
    settings = load_settings()

    async def connect() -> T:
        async with connected(settings) as transport:
            return await work(
                transport,
                [] if queues == [] else await places(transport, settings, service, queues),
            )

    begin_audit(settings)
    return asyncio.run(connect())


class IgnoredReturns:
    """Hears of nothing: no request is sent."""

    def on_return(self, message_id: str, reason: str) -> None:
        """No request is sent."""

    def on_publish_failed(self, message_id: str, error: BusError) -> None:
        """No request is sent."""

    def on_connection_lost(self) -> None:
        """No reply is waited for."""


@asynccontextmanager
async def connected(settings: Settings) -> AsyncIterator[Transport]:
    """A connection; it makes no queue, so that a user who may only read dead letters and write to the way back is enough."""
    transport = RabbitMQTransport(settings, name="bus dead")
    try:
        await transport.start(IgnoredReturns(), timeout=settings.connect_timeout)
        yield transport
    finally:
        await transport.close()


async def places(
    transport: Transport, settings: Settings, service: str | None, queues: Sequence[str] | None
) -> list[str]:
    """The dead-letter queues that are meant and there, sorted; `NotFound` where one that is named is not there, or none is.

    Queues and routers name them; those of a service, or all, only the management API can list.
    """
    if queues:
        names = {
            each if each.endswith(dead_letter_queue("")) else dead_letter_queue(each)
            for each in queues
        }
        for each in sorted(names):
            await _check_is_there(transport, each, settings)
        return sorted(names)
    if service is not None and ":" in service:
        return await _of_router(transport, service)
    return await _listed(settings, service)


async def _of_router(transport: Transport, target: str) -> list[str]:
    router = load_router(target)
    declared = {
        queue.name
        for _, topology in router.topology().values()
        for queue in topology.queues
        if queue.role == "dead"
    }
    there = [
        each
        for each in sorted({*declared, unroutable_queue(router.name)})
        if await _is_there(transport, each)
    ]
    if not there:
        raise NotFound(
            f"{target} has no dead-letter queue on this broker; it gets them when it is first served"
        )
    return there


async def _check_is_there(transport: Transport, queue: str, settings: Settings) -> None:
    try:
        await transport.depth(queue)
    except NotFound as error:
        there: list[QueueStatus] = []
        with suppress(
            BusError
        ):  # who may not list them has the error without what was perhaps meant
            there = await _dead_queues(settings)
        raise NotFound(f"{error}{did_you_mean(queue, [each.name for each in there])}") from None


async def _is_there(transport: Transport, queue: str) -> bool:
    try:
        await transport.depth(queue)
    except NotFound:
        return False
    return True


async def _listed(settings: Settings, service: str | None) -> list[str]:
    if service is not None:
        try:
            check_part(service, "service")
        except ContractError as error:
            raise ContractError(f"{error}; or write MODULE:ROUTER") from None
    names = [each.name for each in await _dead_queues(settings, service)]
    if not names and service:
        near = did_you_mean(service, {each.service for each in await _dead_queues(settings)})
        raise NotFound(
            f"there are no dead-letter queues of a service {service!r} on this broker{near}"
        )
    if not names:
        raise NotFound("there are no dead-letter queues on this broker")
    return sorted(names)


async def _dead_queues(settings: Settings, service: str | None = None) -> list[QueueStatus]:
    """Those that the management API lists."""
    seen = await inspect_queues(
        BrokerAddress.of(settings, renew=False), QueueFilter(service=service)
    )
    return [each for each in seen.queues if each.role == "dead"]


async def look_everywhere(
    transport: Transport, queues: Sequence[str], selection: Selection, *, scan: int
) -> BrowseResult:
    """Look into each, one after the other; all that is meant together, by the time of death."""
    looks = [
        await browse_queue(transport, each, selection, limit=scan, most=scan) for each in queues
    ]
    letters = sorted(
        (letter for look in looks for letter in look.letters),
        key=lambda letter: letter.record.last_at or 0,
    )
    return BrowseResult(
        letters=tuple(letters),
        matching=len(letters),
        not_scanned=sum(look.not_scanned for look in looks),
        seen=ObservedValues().add(look.seen for look in looks),
    )
