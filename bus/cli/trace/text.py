"""A trace as lines of text: a tree of messages, each with its actions."""

from collections.abc import Iterator, Sequence

from rich.text import Text

from bus.cli.output import table_console
from bus.cli.trace.states import cut, describe_lost, describe_path, format_seconds
from bus.messaging.labels import one_line, short_id
from bus.messaging.plurals import count_noun
from bus.operations.message_trace.model import (
    Action,
    MessageTrace,
    State,
    TracedMessage,
)
from bus.operations.message_trace.notes import clock_time, name_instance_of

__all__ = ["print_trace", "trace_lines"]

MAX_MESSAGES = 500
"""Maximum number of messages in a tree."""
MAX_INDENT = 20
"""Maximum number of levels that are indented. Any sender can make a long chain of causes."""
STYLES: dict[State, str] = {
    "handled": "green",
    "running": "cyan",
    "retrying": "yellow",
    "waiting": "yellow",
    "unknown": "dim",
    "dead-lettered": "dim",
}
"""Style of a state. All other states are failures."""


def print_trace(
    trace: MessageTrace, notes: Sequence[str], *, now: int, stored: Sequence[Text] = ()
) -> None:
    """Print the tree on standard output, the lines about stored jobs, and the notes below it."""
    console = table_console()
    for line in trace_lines(trace, now=now):
        console.print(line, soft_wrap=True, highlight=False)
    for line in stored:
        console.print(line, soft_wrap=True, highlight=False)
    for note in (*notes, *trace.notes):
        console.print(Text(one_line(note), style="dim"), soft_wrap=True, highlight=False)


def trace_lines(trace: MessageTrace, *, now: int) -> Iterator[Text]:
    """Yield the lines of the tree. `now` is the time in milliseconds since the epoch."""
    shown = trace.messages[:MAX_MESSAGES]
    first = min((message.at for message in shown if message.at is not None), default=None)
    since = f", the first at {clock_time(first, precise=True)}" if first is not None else ""
    count = count_noun(len(trace.messages), "message")
    yield Text(f"correlation id {cut(trace.correlation_id)}: {count}{since}", style="bold")
    for message, (mark, indent) in zip(shown, branches(trace.messages), strict=False):
        cause = trace.unknown_causes.get(message.id)
        if cause is not None:
            yield Text(f"{indent}(the cause {cut(cause)} is not known)", style="dim")
        line = Text(f"{mark}{label(message)}: ")
        line.append(headline(message, now=now), style=STYLES.get(message.state, "bold red"))
        yield line
        for detail in details(message, now=now):
            yield Text(f"{indent}     {detail}", style="dim")
    if len(shown) < len(trace.messages):
        more = len(trace.messages) - len(shown)
        yield Text(f"{count_noun(more, 'more message')} not shown; --json prints all of them")


def branches(messages: Sequence[TracedMessage]) -> Sequence[tuple[str, str]]:
    """Return the branch before each message, and the indent of the lines below the message.

    The branch of the last effect of a cause is `└─`, and the branch of an earlier effect is `├─`.
    """
    found: list[tuple[str, str]] = []
    # Levels at which a later message has the same cause. The last message comes first.
    continued: set[int] = set()
    for message in reversed(messages):
        depth = min(message.depth, MAX_INDENT)
        levels = ["│  " if level in continued else "   " for level in range(1, depth + 1)]
        end = "├─ " if depth in continued else "└─ "
        found.append(("".join([*levels[:-1], end]) if depth else "", "".join(levels)))
        continued = {level for level in continued if level < depth} | {depth}
    found.reverse()
    return found


def label(message: TracedMessage) -> str:
    """Return the type, the short id and the sender of a message."""
    source = f" from {cut(message.source)}" if message.source else ""
    return f"{cut(message.type) or 'message without type'} {short_id(message.id)}{source}"


def headline(message: TracedMessage, *, now: int) -> str:
    """Return the state of a message in words."""
    paths = [path for path in message.paths if path.state == message.state]
    if not paths:
        return headline_of_sender(message)
    texts = list(dict.fromkeys(describe_path(path, message, now=now) for path in paths))
    others = len(message.paths) - len(paths)
    return "; ".join(texts[:3]) + (f" ({others} other queues differ)" if others else "")


def headline_of_sender(message: TracedMessage) -> str:
    """Return the state of a message that only its sender knows."""
    if message.state == "handled":
        return f"answered in {format_seconds(message.sent[-1].seconds)}"
    if message.state == "failed":
        return f"failed: the sender received {cut(message.sent[-1].outcome)}"
    # The name of the type is not in the command, because a sender can choose it.
    return (
        "no queue and no instance knows its end; "
        "`bus contracts usage` shows the services that handle its type"
    )


def details(message: TracedMessage, *, now: int) -> Iterator[str]:
    """Yield a line for each action with the message, in the order of time."""
    rows = [(action.at, "", action) for action in message.sent]
    rows += [(action.at, path.queue, action) for path in message.paths for action in path.actions]
    names_queues = len(message.paths) > 1
    for at, queue, action in sorted(rows, key=lambda row: row[0]):
        place = f" in {cut(queue)}" if queue and names_queues else ""
        yield f"{clock_time(at, precise=True)}  {describe_action(action)}{place}"
    for path in message.paths:
        if path.death is not None:
            at_ = clock_time(path.death.at, precise=True) if path.death.at else "at an unknown time"
            by = f" by {cut(path.death.service)}" if path.death.service else " by the broker"
            host = f" on {cut(path.death.host)}" if path.death.host else ""
            yield f"{at_}  dead letter in {cut(path.death.dead_queue)}{by}{host}"
        if path.state != message.state and not path.actions and path.death is None:
            yield f"{'':12}  {describe_path(path, message, now=now)}"


def describe_action(action: Action) -> str:
    """Return one action in words: the instance, the attempt, the outcome and the duration."""
    who = cut(name_instance_of(action.service, action.instance))
    attempt = (
        f", attempt {action.attempt}" if action.attempt > 1 or action.action == "retried" else ""
    )
    tier = f", to retry tier {cut(action.tier)}" if action.tier else ""
    outcome = f", {cut(action.outcome)}" if action.outcome != "ok" else ""
    # A worker remembers the last attempt at a stored job, and a request, as handled with a code.
    is_failure = action.action == "handled" and action.outcome != "ok"
    did = "failed in" if is_failure else f"{action.action} by"
    return (
        f"{did} {who}{attempt}{outcome}, {format_seconds(action.seconds)}"
        f"{describe_lost(action)}{tier}"
    )
