"""Which dead-letter queues a command is about, and the way to them."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from bus.brokers.queues import Wanted, Where, picture
from bus.cli.lookup import load_router
from bus.contract import check_part
from bus.dead_letters import Looked, Selection, look_into
from bus.errors import ContractError, NotFound
from bus.settings import Settings
from bus.topology import dead_letter_queue, unroutable_dead
from bus.transport import Transport
from bus.transports.rabbitmq import RabbitMQTransport

__all__ = ["connected", "look_everywhere", "places"]


class Nobody:
    """Hears of nothing: no request is sent."""

    def returned(self, message_id: str, reason: str) -> None:
        """No request is sent."""

    def lost(self) -> None:
        """No reply is waited for."""


@asynccontextmanager
async def connected(settings: Settings) -> AsyncIterator[Transport]:
    """A connection; it makes no queue, so that a user who may only read dead letters and write to the way back is enough."""
    transport = RabbitMQTransport(settings, name="bus dead")
    try:
        await transport.start(Nobody(), timeout=settings.connect_timeout)
        yield transport
    finally:
        await transport.close()


async def places(transport: Transport, settings: Settings, service: str | None, queues: Sequence[str] | None) -> list[str]:
    """The dead-letter queues that are meant and there, sorted; `NotFound` where one that is named is not there, or none is.

    Queues and routers name them; those of a service, or all, only the management API can list.
    """
    if queues:
        names = [each if each.endswith(dead_letter_queue("")) else dead_letter_queue(each) for each in queues]
        for each in names:
            await transport.depth(each)
        return sorted(set(names))
    if service is not None and ":" in service:
        return await _of_router(transport, service)
    return await _listed(settings, service)


async def _of_router(transport: Transport, target: str) -> list[str]:
    router = load_router(target)
    declared = {queue.name for _, topology in router.topology().values() for queue in topology.queues if queue.purpose == "dead"}
    there = [each for each in sorted({*declared, unroutable_dead(router.name)}) if await _is_there(transport, each)]
    if not there:
        raise NotFound(f"{target} has no dead-letter queue on this broker; it gets them when it is first served")
    return there


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
    seen = await picture(Where.of(settings, renew=False), Wanted(service=service))
    names = [each.name for each in seen.queues if each.purpose == "dead"]
    if not names:
        raise NotFound(f"there are no dead-letter queues{f' of a service {service!r}' if service else ''} on this broker")
    return sorted(names)


async def look_everywhere(transport: Transport, queues: Sequence[str], selection: Selection, *, scan: int) -> Looked:
    """Look into each, one after the other; all that is meant together, by the time of death."""
    looks = [await look_into(transport, each, selection, limit=scan, most=scan) for each in queues]
    letters = sorted((letter for look in looks for letter in look.letters), key=lambda letter: letter.record.last_at or 0)
    return Looked(letters=tuple(letters), matching=len(letters), unseen=sum(look.unseen for look in looks))
