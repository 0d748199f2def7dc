"""The records that a trace believes: each service speaks only for its own part of a message.

The sender of a message can say that it was sent. The service that owns a queue can say what became
of a message in this queue. Any service with a key could claim more, and hide a failure by it.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial

from bus.messaging.labels import one_line
from bus.messaging.plurals import count_noun
from bus.messaging.service_info import RememberedMessage, RememberedMessages
from bus.messaging.topology.names import routing_key_of, service_of
from bus.operations.dead_letters import DeadLetter
from bus.operations.message_trace.model import TraceSources
from bus.operations.message_trace.remembered_ids import shorten_id
from bus.operations.queue_inspection import QueueStatus

__all__ = [
    "Identity",
    "Remembered",
    "believed",
    "identities",
    "ignored_note",
    "is_death",
    "is_part",
    "remembered",
]

Remembered = tuple[RememberedMessages, RememberedMessage]
"""The answer of an instance, and one of its messages."""
Identity = tuple[str, str]
"""Type and source of a message."""
SENT, REFUSED = "sent", "refused"
MAX_NAMED = 5


def remembered(sources: TraceSources) -> Iterator[Remembered]:
    """Yield each message that an instance remembers, with the answer of the instance."""
    for memory in sources.memories or ():
        for message in memory.messages:
            yield memory, message


def believed(sources: TraceSources) -> Iterator[Remembered]:
    """Yield the records of services about their own messages and queues."""
    return (each for each in remembered(sources) if is_own(*each))


def is_own(memory: RememberedMessages, message: RememberedMessage) -> bool:
    """Return True if a service speaks about a message that it sent, or about its own queue."""
    if message.action == SENT:
        return message.source == memory.service
    if not message.queue or service_of(message.queue) != memory.service:
        return False
    # The type of a refused message can be false.
    return message.action == REFUSED or routing_key_of(message.queue) == message.type


def identities(records: Iterable[Remembered]) -> dict[str, Identity]:
    """Return the type and the source of each message, by its id.

    Services can report different messages with one id. The function selects the message that most
    services report, then the one that its sender reports, and then the earliest one. A refused
    message can be a forgery, so it has no identity.
    """
    services: defaultdict[str, defaultdict[Identity, set[str]]] = defaultdict(
        lambda: defaultdict(set)
    )
    ranks: dict[tuple[str, Identity], tuple[bool, int]] = {}
    for memory, message in records:
        if message.action != REFUSED:
            id_, identity = shorten_id(message.id), (message.type, message.source)
            services[id_][identity].add(memory.service)
            rank = (message.action != SENT, message.at)
            ranks[id_, identity] = min(ranks.get((id_, identity), rank), rank)

    def order(id_: str, identity: Identity) -> tuple[int, bool, int]:
        return (-len(services[id_][identity]), *ranks[id_, identity])

    return {id_: min(found, key=partial(order, id_)) for id_, found in services.items()}


def is_part(
    message: RememberedMessage, identity: Identity | None, queues: Sequence[QueueStatus]
) -> bool:
    """Return True if a record is about the message with this type and source.

    A refused message can have a false type and sender, but it is in a queue for the type. No
    service can subscribe to a type that has a queue for requests or jobs.
    """
    if identity is None:
        return True  # only refusals are known
    is_same = (message.type, message.source) == identity
    if message.action == SENT:
        return is_same
    if not is_same and message.action != REFUSED:
        return False
    return receives(message.queue or "", identity[0], queues)


def receives(queue: str, type_: str, queues: Sequence[QueueStatus]) -> bool:
    """Return True if messages of a type can be in a queue."""
    is_direct = any(
        each.role in {"requests", "jobs"} and routing_key_of(each.name) == type_ for each in queues
    )
    return routing_key_of(queue) == type_ and not (
        is_direct and service_of(queue) != service_of(type_)
    )


def is_death(letter: DeadLetter, identity: Identity | None, queues: Sequence[QueueStatus]) -> bool:
    """Return True if a dead letter is about the message with this type and source.

    A service can publish any message to its own dead-letter queue.
    """
    if identity is None:
        return True
    queue = letter.record.queue or letter.dead_queue.removesuffix(".dead")
    is_own_queue = service_of(queue) == service_of(letter.dead_queue)
    return is_own_queue and receives(queue, identity[0], queues)


def ignored_note(ignored: Mapping[str, int]) -> Iterator[str]:
    """Yield a sentence about the records that are not believed.

    Args:
        ignored: Number of these records by service.
    """
    total = sum(ignored.values())
    if total:
        names = ", ".join(one_line(each) for each in sorted(ignored)[:MAX_NAMED])
        more = f" and {len(ignored) - MAX_NAMED} more" if len(ignored) > MAX_NAMED else ""
        yield (
            f"ignored: {count_noun(total, 'record')} of {names}{more}, because a service is "
            "believed only about messages that it sent, and about its own queues."
        )
