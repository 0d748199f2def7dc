"""The state of a message on its path through one queue, in words."""

from collections.abc import Callable, Mapping

from bus.cli.queue_table import age
from bus.messaging.labels import one_line, short_id
from bus.messaging.plurals import count_noun
from bus.operations.message_trace.model import Action, QueuePath, State, TracedMessage
from bus.operations.message_trace.notes import clock_time

__all__ = ["cut", "describe_path", "format_seconds"]

MAX_TEXT_LENGTH = 200
"""Maximum number of characters of a type, a code or a name."""
ONE_DIGIT_BELOW_MS, MINUTE = 10, 60

Description = Callable[[QueuePath, TracedMessage, int], str]


def describe_path(path: QueuePath, message: TracedMessage, *, now: int) -> str:
    """Return the state of one path in words. `now` is in milliseconds since the epoch."""
    return DESCRIPTIONS[path.state](path, message, now)


def cut(text: str) -> str:
    """Return the text as one line of limited length."""
    return one_line(text[:MAX_TEXT_LENGTH])


def format_seconds(seconds: float) -> str:
    """Return a duration with a suitable unit: `0.3 ms`, `250 ms`, `2.5 s` or `3m`."""
    milliseconds = seconds * 1000
    if milliseconds < ONE_DIGIT_BELOW_MS:
        return f"{milliseconds:.1f} ms"
    if seconds < 1:
        return f"{milliseconds:.0f} ms"
    return f"{seconds:.1f} s" if seconds < MINUTE else age(seconds)


def describe_handled(path: QueuePath, _message: TracedMessage, _now: int) -> str:
    """Return the duration of the last attempt, and its number if it is not the first."""
    last = last_of(path, "handled")
    attempt = f", attempt {last.attempt}" if last.attempt > 1 else ""
    return f"handled in {format_seconds(last.seconds)}{attempt}{describe_lost(last)}"


def describe_outcome(path: QueuePath, _message: TracedMessage, _now: int) -> str:
    """Return the state and the code of the error."""
    return f"{path.state}: {cut(last_of(path, 'handled', 'refused').outcome)}"


def describe_running(path: QueuePath, _message: TracedMessage, _now: int) -> str:
    """Return the time since the start of the handler."""
    last = last_of(path, "running")
    return f"runs for {format_seconds(last.seconds)}{describe_lost(last)}"


def describe_lost(action: Action) -> str:
    """Return the number of lost deliveries, or an empty text if there is none to report."""
    lost = action.lost_deliveries  # a message is processed alone after two or more
    return f", alone after {lost} lost deliveries" if lost else ""


def describe_retrying(path: QueuePath, _message: TracedMessage, now: int) -> str:
    """Return the retry tier, and the time of return."""
    at = path.returns_at or now
    return (
        f"waits in retry tier {path.tier}, returns to {cut(path.queue)} at {clock_time(at)} "
        f"(in {age((at - now) / 1000)})"
    )


def describe_waiting(path: QueuePath, _message: TracedMessage, _now: int) -> str:
    """Return the queue in which the message waits, with its numbers."""
    if path.actions:
        return f"has left its retry tier, waits in {cut(path.queue)}{describe_queue(path)}"
    return f"waits in {cut(path.queue)}, as far as known{describe_queue(path)}"


def describe_dead(path: QueuePath, message: TracedMessage, _now: int) -> str:
    """Return the code and the place of the failure, and the command that shows more."""
    if path.death is None:
        return "dead"
    place = f" at {cut(path.death.where)}" if path.death.where else ""
    return f"dead: {cut(path.death.code)}{place}; see `bus dead show {short_id(message.id)}`"


def describe_dead_lettered(path: QueuePath, _message: TracedMessage, _now: int) -> str:
    """Return the code of a dead letter that is not in its queue any more."""
    code = cut(last_of(path, "dead-lettered").outcome)
    return f"was dead-lettered ({code}), and is not among the dead letters that were read"


def describe_unknown(path: QueuePath, _message: TracedMessage, _now: int) -> str:
    """Return that no record has the end of the message."""
    return f"no instance remembers its end in {cut(path.queue)}{describe_queue(path)}"


def last_of(path: QueuePath, *actions: str) -> Action:
    """Return the last of these actions, or the last action if the path has none of them."""
    found = [action for action in path.actions if action.action in actions]
    return (found or path.actions)[-1]


def describe_queue(path: QueuePath) -> str:
    """Return the numbers of the queue in parentheses, or an empty text if they are unknown."""
    if path.ready is None or path.consumers is None:
        return ""
    consumers = count_noun(path.consumers, "consumer") if path.consumers else "no consumer"
    return f" ({path.ready} ready, {consumers})"


DESCRIPTIONS: Mapping[State, Description] = {
    "handled": describe_handled,
    "failed": describe_outcome,
    "refused": describe_outcome,
    "running": describe_running,
    "retrying": describe_retrying,
    "waiting": describe_waiting,
    "dead": describe_dead,
    "dead-lettered": describe_dead_lettered,
    "unknown": describe_unknown,
}
