"""Sentences about the sources of a trace, so that a missing record is not taken for an answer."""

from collections.abc import Iterator, Sequence
from datetime import datetime

from bus.messaging.escaped_text import one_line
from bus.messaging.plurals import count_noun
from bus.messaging.service_info import InstanceState, RememberedMessages
from bus.operations.message_trace.model import TraceSources
from bus.operations.queue_inspection import QueueStatus

__all__ = ["clock_time", "name_instance", "name_instance_of", "name_some", "source_notes"]

MAX_NAMED = 5
"""Maximum number of instances or queues that one sentence names."""
MAX_NAME_LENGTH = 200


def source_notes(sources: TraceSources, *, first: int | None) -> Iterator[str]:
    """Yield a sentence for each limit of the sources.

    Args:
        sources: The records that were read.
        first: Earliest known time of the trace, in milliseconds since the epoch. None if no message
            was found.
    """
    if sources.memories is not None:
        yield from memory_notes(sources.memories, first)
    if sources.queues is not None:
        unread = [
            queue
            for queue in sources.queues
            if queue.role in {"jobs", "events", "retry"} and (queue.ready or 0) > 0
        ]
        if unread:
            yield (
                f"not read: {name_some([describe_queue(queue) for queue in unread])}. "
                "A read would count as a delivery and change the order."
            )


def memory_notes(memories: Sequence[RememberedMessages], first: int | None) -> Iterator[str]:
    """Yield a sentence about the instances that remember only a later time."""
    late = [
        memory for memory in memories if memory.since and first is not None and memory.since > first
    ]
    if late:
        names = name_some(
            [f"{name_instance(memory)} since {clock_time(memory.since)}" for memory in late]
        )
        verb = "remembers" if len(late) == 1 else "remember"
        yield f"{count_noun(len(late), 'instance')} {verb} only a later time: {names}."


def name_instance(record: InstanceState) -> str:
    """Return the name of an instance, with its service if the name does not have it."""
    return name_instance_of(record.service, record.instance)


def name_instance_of(service: str, instance: str) -> str:
    """Return the name of an instance, with its service if the name does not have it."""
    name = instance if instance.startswith(service) else f"{service} {instance}"
    return one_line(name[:MAX_NAME_LENGTH])


def describe_queue(queue: QueueStatus) -> str:
    """Return the name of a queue, and its number of messages."""
    ready = f"{one_line(queue.name)} ({queue.ready} ready"
    return (
        f"{ready}, no consumer)" if queue.consumers == 0 and queue.role != "retry" else f"{ready})"
    )


def name_some(names: Sequence[str]) -> str:
    """Return the first names, and the number of the others."""
    more = len(names) - MAX_NAMED
    return ", ".join(names[:MAX_NAMED]) + (f" and {more} more" if more > 0 else "")


def clock_time(milliseconds: int, *, precise: bool = False) -> str:
    """Return a time of day in the time zone of this machine, with milliseconds if `precise`.

    The date precedes the time if it is not today's.
    """
    try:
        moment = datetime.fromtimestamp(milliseconds / 1000).astimezone()
        today = datetime.now().astimezone().date()
    except (ValueError, OverflowError, OSError):
        return f"{milliseconds} ms"
    date = "" if moment.date() == today else f"{moment:%Y-%m-%d} "
    fraction = f".{milliseconds % 1000:03d}" if precise else ""
    return f"{date}{moment:%H:%M:%S}{fraction}"
