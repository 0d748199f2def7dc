"""A trace as a flowchart in the language of Mermaid."""

import re
from collections.abc import Iterator

from bus.messaging.labels import short_id
from bus.operations.message_trace.model import MessageTrace, State

__all__ = ["flowchart"]

MAX_TEXT_LENGTH = 200
MAX_NODES = 100
"""Maximum number of messages in a chart. A larger one cannot be read."""
UNSAFE = re.compile(r"[^A-Za-z0-9 .,:_/-]")
"""Characters that a node shows by their code, because a sender chooses types and ids."""
COLORS: dict[State, str] = {
    "handled": "fill:#d5f5e3,stroke:#1e8449,color:#145a32",
    "running": "fill:#d6eaf8,stroke:#21618c,color:#1b4f72",
    "retrying": "fill:#fef5d4,stroke:#b7950b,color:#7d6608",
    "waiting": "fill:#fef5d4,stroke:#b7950b,color:#7d6608",
    "failed": "fill:#fadbd8,stroke:#b03a2e,color:#78281f",
    "dead": "fill:#fadbd8,stroke:#b03a2e,color:#78281f",
    "refused": "fill:#fadbd8,stroke:#b03a2e,color:#78281f",
    "dead-lettered": "fill:#eeeeee,stroke:#707070,color:#333333",
    "unknown": "fill:#eeeeee,stroke:#707070,color:#333333",
}


def flowchart(trace: MessageTrace) -> str:
    """Return the flowchart of a trace: a node for each message, and an arrow from each cause.

    If the trace has more than `MAX_NODES` messages, the last node has the number of the others.
    """
    return "\n".join(chart_lines(trace))


def chart_lines(trace: MessageTrace) -> Iterator[str]:
    """Yield the lines of the flowchart."""
    shown = trace.messages[:MAX_NODES]
    names = {message.id: f"m{number}" for number, message in enumerate(shown)}
    yield "flowchart TD"
    for message in shown:
        text = "<br/>".join(
            (
                quote(message.type or "message without type"),
                quote(f"{short_id(message.id)} from {message.source or 'an unknown sender'}"),
                quote(message.state),
            )
        )
        yield f'    {names[message.id]}["{text}"]:::{class_of(message.state)}'
    for number, (id_, cause) in enumerate(trace.unknown_causes.items()):
        if id_ in names:
            text = quote(f"{short_id(cause)}, not known")
            yield f'    c{number}["{text}"]:::unknown --> {names[id_]}'
    for message in shown:
        cause_name = names.get(message.causation_id or "")
        if cause_name is not None:
            yield f"    {cause_name} --> {names[message.id]}"
    if len(shown) < len(trace.messages):
        yield f'    more["{len(trace.messages) - len(shown)} more messages"]:::unknown'
    for state, style in COLORS.items():
        yield f"    classDef {class_of(state)} {style}"


def class_of(state: State) -> str:
    """Return the name of the class of the nodes in a state."""
    return state.replace("-", "")


def quote(text: str) -> str:
    """Return a text with all special characters as codes, such as `#34;` for a quotation mark."""
    return UNSAFE.sub(lambda match: f"#{ord(match[0])};", text[:MAX_TEXT_LENGTH])
