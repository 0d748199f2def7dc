"""The sources of a trace: the memory of live instances, the dead letters and the queues."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass

from bus.cli.dead.queues import browse_all, connected
from bus.cli.queues import select_queues
from bus.errors import BusError, Unavailable
from bus.messaging.control import FindMessages, Ping
from bus.messaging.service_info import InstanceState, RememberedMessages
from bus.operations.dead_letters import EVERYTHING, DeadLetter
from bus.operations.message_trace.identify import Identified, identify
from bus.operations.message_trace.model import TraceSources
from bus.operations.message_trace.notes import name_instance, name_some
from bus.operations.queue_inspection import BrokerAddress, QueueStatus, inspect_queues
from bus.runtime.discovery.asker import Asker
from bus.runtime.discovery.open_asker import open_asker
from bus.settings import Settings

__all__ = ["OpenAsker", "Reading", "SourceOptions", "read_trace"]

READ_AGAIN_SECONDS = 1.0
"""Seconds until the dead letters are read again if one is missing.

A queue can seem empty just after another command has read it, because the broker counts requeued
messages with a delay.
"""
OpenAsker = Callable[[Settings], AbstractAsyncContextManager[Asker]]


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceOptions:
    """The extent of a search."""

    service: str | None = None
    """Service or MODULE:ROUTER that owns the queues. None means all services."""
    window: float = 1.0
    """Seconds in which instances can answer."""
    scan: int
    """Maximum number of dead letters to read from each queue."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """The records of a search."""

    sources: TraceSources
    identified: Identified | None
    """Meaning of the searched id. None if no record has it."""
    notes: tuple[str, ...]
    """Sentences about the sources that could not be read."""
    alive: int | None
    """Number of instances that answered any question. None if they could not be asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Broker:
    """The records at the broker."""

    letters: list[DeadLetter] | None = None
    queues: tuple[QueueStatus, ...] | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """The records of live instances."""

    answers: list[RememberedMessages] | None = None
    alive: int | None = None
    notes: tuple[str, ...] = ()
    error: BusError | None = None


async def read_trace(
    settings: Settings, text: str, options: SourceOptions, *, asker: OpenAsker = open_asker
) -> Reading:
    """Read all records that can belong to the id `text`. A source that fails becomes a note.

    Args:
        settings: Settings of the operator.
        text: Correlation id or message id, or its beginning.
        options: Extent of the search.
        asker: Opens the connection over which live instances are asked.

    Raises:
        InvalidArgument: The id is ambiguous or too short.
        BusError: No source could be read.
    """
    async with AsyncExitStack() as stack:
        opened, memory = None, Memory()
        try:
            opened = await stack.enter_async_context(asker(settings))
        except BusError as error:
            memory = Memory(error=error, notes=(f"instances were not asked: {error}",))
        reading = asyncio.ensure_future(read_broker(settings, options))
        if opened is not None:
            memory = await ask(opened, text, options.window)
        broker = await reading
        sources = combine(memory, broker)
        identified = identify(text, sources)
        if opened is not None and identified and identified.correlation_id != text:
            # The first question found only the messages that match the given text.
            memory = await ask(opened, identified.correlation_id, options.window)
            sources = combine(memory, broker)
        if lacks_letter(memory, broker):
            await asyncio.sleep(READ_AGAIN_SECONDS)
            broker = await read_broker(settings, options)
            sources = combine(memory, broker)
    if memory.answers is None and broker.letters is None:
        raise memory.error or Unavailable("; ".join((*memory.notes, *broker.notes)))
    return Reading(
        sources=sources,
        identified=identified,
        notes=(*memory.notes, *broker.notes),
        alive=memory.alive,
    )


def combine(memory: Memory, broker: Broker) -> TraceSources:
    """Return the records of both as sources of a trace."""
    return TraceSources(memories=memory.answers, letters=broker.letters, queues=broker.queues)


def lacks_letter(memory: Memory, broker: Broker) -> bool:
    """Return True if an instance remembers a dead letter that is not among those of the broker."""
    found = {letter.id for letter in broker.letters or ()}
    return broker.letters is not None and any(
        message.action == "dead-lettered" and message.id not in found
        for answer in memory.answers or ()
        for message in answer.messages
    )


async def ask(asker: Asker, text: str, window: float) -> Memory:
    """Ask all live instances for the messages of an id, and which instances are alive."""
    try:
        pings, answers = await asyncio.gather(
            asker.ask(Ping(), window=window),
            asker.ask(FindMessages(correlation_id=text), window=window),
        )
    except BusError as error:
        return Memory(error=error, notes=(f"instances were not asked: {error}",))
    found = [answer.record for answer in answers]
    alive = {_key(record): record for record in (*[each.record for each in pings], *found)}
    missing = [alive[key] for key in sorted(alive.keys() - {_key(record) for record in found})]
    if not missing:
        return Memory(answers=found, alive=len(alive))
    note = (
        f"{len(found)} of {len(alive)} instances answered within {window:g} s, and these did not: "
        f"{name_some([name_instance(each) for each in missing])}. Ask for longer with --window."
    )
    return Memory(answers=found, alive=len(alive), notes=(note,))


def _key(record: InstanceState) -> tuple[str, str]:
    return record.service, record.instance


async def read_broker(settings: Settings, options: SourceOptions) -> Broker:
    """Read the state of the queues, and the dead letters."""
    try:
        report = await inspect_queues(
            BrokerAddress.of(settings, renew=False), select_queues(options.service, [])
        )
    except BusError as error:
        return Broker(notes=(f"queues and dead letters were not read: {error}",))
    # An empty queue needs no reader. The number of dead letters is unknown if a node is down.
    names = [
        queue.name
        for queue in report.queues
        if queue.role == "dead" and queue.exists and (queue.ready is None or queue.ready > 0)
    ]
    try:
        result = None
        if names:
            async with connected(settings) as transport:
                result = await browse_all(transport, names, EVERYTHING, scan=options.scan)
    except BusError as error:
        return Broker(queues=report.queues, notes=(f"dead letters were not read: {error}",))
    letters = [*result.letters] if result else []
    left = result.not_scanned if result else 0
    notes = (f"{left} dead letters were not read. Read more with --scan.",) if left else ()
    return Broker(letters=letters, queues=report.queues, notes=notes)
