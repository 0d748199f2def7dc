"""Broker connection and queue selection for the commands of `bus dead`."""

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

__all__ = ["browse_all", "connected", "run"]

MAX_CONCURRENT_READERS = 16
"""Maximum number of queues that are read at the same time. Each one needs a channel."""

T = TypeVar("T")
Work = Callable[[Transport, list[str]], Coroutine[Any, Any, T]]


def run(work: Work[T], service: str | None, queues: Sequence[str] | None) -> T:
    """Connect to the broker, find the dead-letter queues, and run `work` with them.

    Args:
        work: Coroutine function that gets the transport and the names of the dead-letter queues.
        service: Service or MODULE:ROUTER that owns the dead-letter queues. None means all services.
        queues: Names of work queues whose dead-letter queues are used. If the list is empty,
            `work` gets no queues.
    """
    settings = load_settings()

    async def connect() -> T:
        async with connected(settings) as transport:
            return await work(
                transport,
                [] if queues == [] else await find_queues(transport, settings, service, queues),
            )

    begin_audit(settings)
    return asyncio.run(connect())


class IgnoredReturns:
    """Listener that does nothing. It is used for a connection that sends no requests."""

    def on_return(self, message_id: str, reason: str) -> None:
        """Do nothing, because no request was sent."""

    def on_publish_failed(self, message_id: str, error: BusError) -> None:
        """Do nothing, because no request was sent."""

    def on_connection_lost(self) -> None:
        """Do nothing, because no reply is expected."""


@asynccontextmanager
async def connected(settings: Settings) -> AsyncIterator[Transport]:
    """Yield a connected transport that declares no queue.

    Therefore the broker user needs only the rights to read dead letters and to write to the return
    exchange.
    """
    transport = RabbitMQTransport(settings, name="bus dead")
    try:
        await transport.start(IgnoredReturns(), timeout=settings.connect_timeout)
        yield transport
    finally:
        await transport.close()


async def find_queues(
    transport: Transport, settings: Settings, service: str | None, queues: Sequence[str] | None
) -> list[str]:
    """Return the names of the existing dead-letter queues, sorted.

    If `queues` or a router is given, the names are known, and AMQP shows whether the queues exist.
    If a service or nothing is given, the management API is required, because AMQP cannot list
    queues.

    Raises:
        NotFound: A named queue does not exist, or no queue was found.
    """
    if queues:
        names = {
            name if name.endswith(dead_letter_queue("")) else dead_letter_queue(name)
            for name in queues
        }
        for name in sorted(names):
            await _check_exists(transport, name, settings)
        return sorted(names)
    if service is not None and ":" in service:
        return await _find_router_queues(transport, service)
    return await _list_names(settings, service)


async def _find_router_queues(transport: Transport, target: str) -> list[str]:
    router = load_router(target)
    declared = {
        queue.name
        for _, topology in router.topology().values()
        for queue in topology.queues
        if queue.role == "dead"
    }
    names = [
        name
        for name in sorted({*declared, unroutable_queue(router.name)})
        if await _exists(transport, name)
    ]
    if not names:
        raise NotFound(
            f"router {target} has no dead-letter queue on this broker. "
            "Start the service of the router: the service declares the queue."
        )
    return names


async def _check_exists(transport: Transport, name: str, settings: Settings) -> None:
    try:
        await transport.depth(name)
    except NotFound:
        queues: list[QueueStatus] = []
        # If the broker user has no right to list queues, the error below has no suggestion.
        with suppress(BusError):
            queues = await _list_dead_queues(settings)
        hint = did_you_mean(name, [queue.name for queue in queues])
        raise NotFound(f"queue {name} does not exist, or its node is down{hint}") from None


async def _exists(transport: Transport, name: str) -> bool:
    try:
        await transport.depth(name)
    except NotFound:
        return False
    return True


async def _list_names(settings: Settings, service: str | None) -> list[str]:
    if service is not None:
        try:
            check_part(service, "service")
        except ContractError as error:
            raise ContractError(f"{error}, or pass MODULE:ROUTER.") from None
    names = [queue.name for queue in await _list_dead_queues(settings, service)]
    if not names and service:
        services = {queue.service for queue in await _list_dead_queues(settings)}
        raise NotFound(
            f"service {service!r} has no dead-letter queues on this broker"
            f"{did_you_mean(service, services)}"
        )
    if not names:
        raise NotFound("the broker has no dead-letter queues")
    return sorted(names)


async def _list_dead_queues(settings: Settings, service: str | None = None) -> list[QueueStatus]:
    """Return the dead-letter queues of a service, or of all services, from the management API."""
    report = await inspect_queues(
        BrokerAddress.of(settings, renew=False), QueueFilter(service=service)
    )
    return [queue for queue in report.queues if queue.role == "dead"]


async def browse_all(
    transport: Transport, queues: Sequence[str], selection: Selection, *, scan: int
) -> BrowseResult:
    """Browse the queues, and return all their dead letters, oldest first.

    Several queues are read at the same time. At the end of each queue, the reader waits a moment
    for another dead letter, so one queue after the other would take seconds.

    Raises:
        BusError: A queue cannot be read. The other queues have been read and left before.
    """
    free = asyncio.Semaphore(MAX_CONCURRENT_READERS)

    async def read(name: str) -> BrowseResult:
        async with free:
            return await browse_queue(transport, name, selection, limit=scan, most=scan)

    # If the connection were closed while a queue is read, its dead letters would be redelivered.
    outcomes = await asyncio.gather(*map(read, queues), return_exceptions=True)
    results = [_raise_or_return(outcome) for outcome in outcomes]
    letters = sorted(
        (letter for result in results for letter in result.letters),
        key=lambda letter: letter.record.last_at or 0,
    )
    return BrowseResult(
        letters=tuple(letters),
        matching=len(letters),
        not_scanned=sum(result.not_scanned for result in results),
        seen=ObservedValues().add(result.seen for result in results),
    )


def _raise_or_return(outcome: BrowseResult | BaseException) -> BrowseResult:
    if isinstance(outcome, BaseException):
        raise outcome
    return outcome
