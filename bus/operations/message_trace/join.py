"""The join of all records with one correlation id to one tree of causes."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from bus.messaging.envelope import Envelope
from bus.messaging.sent_time import sent_time
from bus.messaging.service_info import RememberedMessage, RememberedMessages
from bus.messaging.topology.names import service_of
from bus.operations.dead_letters import DeadLetter
from bus.operations.message_trace.model import (
    Action,
    Death,
    MessageTrace,
    State,
    TracedMessage,
    TraceSources,
)
from bus.operations.message_trace.notes import source_notes
from bus.operations.message_trace.ownership import (
    Remembered,
    believed,
    identities,
    ignored_note,
    is_death,
    is_part,
    remembered,
)
from bus.operations.message_trace.paths import find_paths, is_request
from bus.operations.message_trace.remembered_ids import is_same_id, shorten_id
from bus.operations.queue_inspection import QueueStatus

__all__ = ["join"]

WORST_FIRST: Sequence[State] = (
    *("dead", "refused", "failed", "retrying", "waiting", "running"),
    *("dead-lettered", "unknown", "handled"),
)
"""States in the order in which they hide each other in the line of a message."""
SEND_ACTION = "sent"


@dataclass(slots=True)
class Sighting:
    """All records of one message."""

    id: str
    type: str = ""
    source: str = ""
    causation_id: str | None = None
    sent: list[Action] = field(default_factory=list)
    received: defaultdict[str, list[Action]] = field(default_factory=lambda: defaultdict(list))
    """Actions of receivers by queue."""
    deaths: dict[str, Death] = field(default_factory=dict)
    """Latest dead letter by work queue."""
    written: int | None = None
    """Time at which a dead letter was first sent, in milliseconds since the epoch."""

    def describe(self, message: RememberedMessage | Envelope) -> None:
        """Take over the attributes of the message that are not known yet."""
        self.type = self.type or message.type
        self.source = self.source or message.source
        if self.causation_id is None and message.causation_id:
            self.causation_id = shorten_id(message.causation_id)

    @property
    def at(self) -> int | None:
        """Earliest known time, in milliseconds since the epoch."""
        times = [action.at for action in self.sent]
        times += [action.at for actions in self.received.values() for action in actions]
        times += [death.at for death in self.deaths.values() if death.at is not None]
        if self.written is not None and not self.sent:
            times.append(self.written)
        return min(times, default=None)


def join(correlation_id: str, sources: TraceSources, *, now: int) -> MessageTrace:
    """Join the records of one correlation id.

    Senders choose ids, types and causation ids. So the function accepts cycles of causes, and any
    number of messages.

    Args:
        correlation_id: Full correlation id.
        sources: Records of any correlation ids.
        now: Time of the join, in milliseconds since the epoch.
    """
    sightings, ignored = collect(correlation_id, sources)
    order = sort_by_cause(sightings)
    messages = tuple(
        trace_message(sightings[id_], depth, sources.queues, now=now) for id_, depth in order
    )
    unknown = {
        message.id: message.causation_id
        for message in messages
        if message.causation_id is not None and message.causation_id not in sightings
    }
    first = min((message.at for message in messages if message.at is not None), default=None)
    return MessageTrace(
        correlation_id=correlation_id,
        messages=messages,
        unknown_causes=unknown,
        notes=(*source_notes(sources, first=first), *ignored_note(ignored)),
    )


def collect(
    correlation_id: str, sources: TraceSources
) -> tuple[dict[str, Sighting], Mapping[str, int]]:
    """Return the records of each message with this correlation id, by its message id.

    An instance remembers only the beginning of a long causation id. So each message id is cut, too.

    Returns:
        The records, and the number of records by service that are not believed.
    """
    sightings: dict[str, Sighting] = {}
    ignored = Counter(memory.service for memory, _ in matching(correlation_id, remembered(sources)))
    found = list(matching(correlation_id, believed(sources)))
    known, queues = identities(found), sources.queues or ()
    # The first record names the type and the sender. A refused message can be forged.
    for memory, message in sorted(found, key=lambda record: record[1].action == "refused"):
        id_ = shorten_id(message.id)
        if is_part(message, known.get(id_), queues):
            ignored[memory.service] -= 1
            add_remembered(sightings.setdefault(id_, Sighting(id_)), memory, message)
    for letter in sources.letters or ():
        if is_same_id(letter.correlation_id, correlation_id):
            id_ = shorten_id(letter.id)
            if is_death(letter, known.get(id_), queues):
                add_letter(sightings.setdefault(id_, Sighting(id_)), letter)
            else:
                ignored[service_of(letter.dead_queue)] += 1
    return sightings, +ignored


def matching(correlation_id: str, records: Iterable[Remembered]) -> Iterator[Remembered]:
    """Yield the records with this correlation id."""
    for memory, message in records:
        if is_same_id(message.correlation_id or message.id, correlation_id):
            yield memory, message


def add_remembered(
    sighting: Sighting, memory: RememberedMessages, message: RememberedMessage
) -> None:
    """Add an action that an instance remembers."""
    sighting.describe(message)
    action = Action(
        action=message.action,
        service=memory.service,
        instance=memory.instance,
        at=message.at,
        seconds=message.seconds,
        attempt=message.attempt,
        outcome=message.outcome,
        tier=message.tier,
        lost_deliveries=message.lost_deliveries,
    )
    if message.action == SEND_ACTION:
        sighting.sent.append(action)
    else:
        sighting.received[message.queue or ""].append(action)


def add_letter(sighting: Sighting, letter: DeadLetter) -> None:
    """Add a dead letter. If the queue has several of this message, keep the latest."""
    sighting.describe(letter.envelope)
    record = letter.record
    queue = record.queue or letter.dead_queue
    death = Death(
        code=record.code,
        at=record.last_at,
        dead_queue=letter.dead_queue,
        where=record.where,
        attempts=record.attempts,
        service=record.service,
        host=record.host,
    )
    known = sighting.deaths.get(queue)
    if known is None or (known.at or 0) <= (death.at or 0):
        sighting.deaths[queue] = death
    sighting.written = sent_time(letter.envelope) or letter.envelope.timestamp * 1000 or None


def trace_message(
    sighting: Sighting, depth: int, queues: Sequence[QueueStatus] | None, *, now: int
) -> TracedMessage:
    """Return the message with its paths and its state."""
    # A success is the last action: the copy of a hedged request that lost the race began later.
    sent = tuple(sorted(sighting.sent, key=lambda action: (action.outcome == "ok", action.at)))
    paths = find_paths(
        sighting.type, sent, sighting.received, sighting.deaths, queues=queues, now=now
    )
    states: set[State] = {path.state for path in paths} or {state_at_sender(sent, queues, sighting)}
    return TracedMessage(
        id=sighting.id,
        type=sighting.type,
        source=sighting.source,
        causation_id=sighting.causation_id,
        depth=depth,
        state=min(states, key=WORST_FIRST.index),
        at=sighting.at,
        sent=sent,
        paths=paths,
    )


def state_at_sender(
    sent: Sequence[Action], queues: Sequence[QueueStatus] | None, sighting: Sighting
) -> State:
    """Return the state of a message that no receiver remembers, and that waits in no queue.

    The sender of a request has received the reply. The sender of an event or job has received only
    the broker's confirm.
    """
    if not sent:
        return "unknown"
    if sent[-1].outcome != "ok":
        return "failed"
    return "handled" if is_request(sighting.type, queues or ()) else "unknown"


def sort_by_cause(sightings: Mapping[str, Sighting]) -> Iterator[tuple[str, int]]:
    """Yield the id and the depth of each message once, each message after its cause.

    A message with an unknown cause is a root. If causes form a cycle, its earliest message is a
    root, too.
    """
    effects: defaultdict[str | None, list[str]] = defaultdict(list)
    for sighting in sightings.values():
        cause = sighting.causation_id
        is_known = cause in sightings and cause != sighting.id
        effects[cause if is_known else None].append(sighting.id)

    def by_time(ids: Iterable[str]) -> list[str]:
        return sorted(ids, key=lambda id_: (sightings[id_].at or 0, id_))

    seen: set[str] = set()
    # After the roots, only the members of cycles are left.
    for root in (*by_time(effects[None]), *by_time(sightings)):
        pending = [(root, 0)]
        while pending:
            id_, depth = pending.pop()
            if id_ in seen:
                continue
            seen.add(id_)
            yield id_, depth
            pending += [(each, depth + 1) for each in reversed(by_time(effects[id_]))]
