"""A trace as JSON. `docs/how-to/find-out-why.md` specifies the keys."""

from dataclasses import asdict
from typing import Any

from bus.cli.trace.sources import Reading
from bus.operations.message_trace.model import MessageTrace, TracedMessage

__all__ = ["to_json"]


def to_json(trace: MessageTrace, reading: Reading, *, now: int) -> dict[str, Any]:
    """Return a trace as JSON. Unknown values are null. Times are in milliseconds."""
    memories, letters = reading.sources.memories, reading.sources.letters
    return {
        "correlation_id": trace.correlation_id,
        "at": now,
        "messages": [message_to_json(message) for message in trace.messages],
        "unknown_causes": sorted(set(trace.unknown_causes.values())),
        "instances": None
        if memories is None
        else {"alive": reading.alive, "answered": len(memories)},
        "remembered_since": None
        if memories is None
        else min((memory.since for memory in memories if memory.since), default=None),
        "dead_letters_read": None if letters is None else len(letters),
        "notes": [*reading.notes, *trace.notes],
    }


def message_to_json(message: TracedMessage) -> dict[str, Any]:
    """Return one message as JSON. The keys are part of the command line's interface."""
    return {
        "id": message.id,
        "type": message.type,
        "source": message.source,
        "causation_id": message.causation_id,
        "depth": message.depth,
        "state": message.state,
        "at": message.at,
        "sent": [asdict(action) for action in message.sent],
        "queues": [
            {
                "queue": path.queue,
                "state": path.state,
                "tier": path.tier,
                "returns_at": path.returns_at,
                "ready": path.ready,
                "consumers": path.consumers,
                "actions": [asdict(action) for action in path.actions],
                "dead": None if path.death is None else asdict(path.death),
            }
            for path in message.paths
        ],
    }
