"""The page `docs/reliability.md`, generated from the recorded figures: none of them is typed."""

from collections.abc import Iterator
from typing import Any

from tests.chaos.exams import EXAMS
from tests.chaos.faults import FAULTS
from tests.chaos.jobs.crash_table import crash_section
from tests.chaos.peers.parties import PEERS
from tests.chaos.report import Figures, by_fault
from tests.chaos.sabotage import SABOTAGES
from tests.chaos.scene import OURS
from tests.chaos.table import Row, markdown, recovery, whole
from tests.integration.command import ROOT

__all__ = ["PAGE", "lines", "progress", "write"]

PAGE = ROOT / "docs" / "reliability.md"
CRASH_POINTS = "crash-points"
TITLES = {name: fault.title for name, fault in FAULTS.items()}
HEAD = """\
This page describes the method, the number of faults and the results.
`make chaos` writes it, one class of faults after the other, so no figure in it is typed.
`make test` has a short form of the same.

## The ledger

The sender and one or more workers are separate processes.
The sender records each send before it begins and after it has ended.
The worker records each delivery before the bus sees it, and each effect.
Each record is one write to a file, which a SIGKILL cannot undo.
Afterwards the ledger compares both sides:

| word | meaning |
|---|---|
| acked | the send returned, so the bus has accepted the message |
| failed | the send raised, and reported that the message was surely not sent |
| unknown | the send raised, and reported that the message may have been sent: \
the fault outlasted its 40 s or 150 s |
| dead | messages in a dead-letter queue |
| **lost** | acked, without an effect, and in no dead-letter queue |
| **unexpected** | an effect of a message that was never sent, of a send that surely failed, \
or under another message id |
| delivered again | deliveries beyond the first of each attempt |
| done again | effects beyond the first of each message |
| gap s | the longest time without an effect while messages were waiting, in seconds |

Half of the messages are jobs and half are events.
One in twenty fails once or twice and passes through a retry tier.
One in a hundred cannot be handled and must be found among the dead letters.
A seed sets the number of sends after which a fault strikes.
So the same seed strikes at the same points on a slower machine.
A TCP proxy that parses AMQP frames is in front of each side.

"Done again" is 0 if one worker process survives the faults, because it remembers handled messages.
An effect can be repeated after a process dies, or if another process gets the messages of a lost \
connection.
In both cases the effect can precede an ack that the broker never receives.
The table shows the number of repeated effects, and the maximum number of messages in flight.
[Delivery](explanation/delivery.md) describes how a handler deals with them.

A failure that the ledger finds is fixed, and the part that found it runs again.
The restarted broker found one: a send that may have arrived was reported as "surely not sent".
Its first attempt had arrived, and its connection did not return before its deadline.
That send now fails as *unknown*.
"""
LABELS = {
    "late median": "delay, median",
    "late p99": "delay, p99",
    "late most": "delay, maximum",
    "not back": "retries that did not return",
    "events in the trouble": "events during the failure",
    "first back": "first client ready again",
    "median back": "median client ready again",
    "all back": "all clients ready again",
    "most in one second": "most clients ready in one second",
    "dead": "dead-lettered",
    "with a reason": "dead-lettered with a reason",
    "restarts": "restarts of the worker",
}
"""Names for the page of figures in `docs/reliability.json`; a figure without one keeps its own."""


def write(figures: Figures) -> None:
    """Write the whole page."""
    PAGE.write_text("\n".join(lines(figures)).rstrip() + "\n", encoding="utf-8")


def lines(figures: Figures) -> Iterator[str]:
    """Yield the lines of the page."""
    yield "# Reliability under faults\n"
    yield answer([*by_fault(figures, OURS.name).values()])
    yield HEAD
    yield from campaigns(figures)
    yield from crash_section(figures["exams"].get(CRASH_POINTS))
    yield from exams(figures)
    yield from peers(figures)
    yield from sabotage(figures)


def answer(rows: list[Row]) -> str:
    """Return the first sentence of the page: the number of lost messages."""
    if not rows:
        return "The long form has not run yet.\n"
    total = whole(rows)
    found = f"{total['lost']:,} of" if total["lost"] else "None of"
    return f"{found} {total['messages']:,} messages, under {total['faults']:,} faults, were lost.\n"


def campaigns(figures: Figures) -> Iterator[str]:
    rows = [*by_fault(figures, OURS.name).values()]
    yield "## Under faults\n"
    if not rows:
        yield "Not run yet.\n"
        return
    total = whole(rows)
    yield from markdown(rows, TITLES)
    if not total["lost"]:
        bound = 3 / max(1, total["messages"])
        yield (
            f"\n0 lost of {total['messages']:,} means a rate below one in {1 / bound:,.0f} "
            "with 95 % confidence; it does not prove more.\n"
        )
    yield from (
        f"{line[0].upper()}{line[1:]}.\nThe promise is two seconds.\n" for line in recovery(rows)
    )
    dates = sorted({part["date"] for part in figures["parts"]})
    brokers = sorted({part["rabbitmq"] for part in figures["parts"]})
    when = " to ".join(dict.fromkeys((dates[0], dates[-1])))
    yield (
        f"Run {when} on RabbitMQ {', '.join(brokers)}: "
        "one node, on two cores shared with other processes.\n"
    )
    if missing := [
        title for name, title in TITLES.items() if name not in by_fault(figures, OURS.name)
    ]:
        yield f"Not run yet in the long form: {', '.join(missing)}.\n"


def exams(figures: Figures) -> Iterator[str]:
    yield "## Retries, reconnecting clients and malformed messages\n"
    yield "Times are in seconds unless the figure names ms.\n"
    yield "| test | figure | value |"
    yield "| --- | --- | ---: |"
    for name, exam in EXAMS.items():
        if name == CRASH_POINTS:
            continue  # it has a table of its own
        title = exam.title
        for figure, value in flat(figures["exams"].get(name, {"not run yet": ""})):
            yield f"| {title} | {figure} | {value} |"
            title = ""
    yield ""


def flat(found: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield each figure with its name for the page, or one for each part of a figure."""
    for name, value in found.items():
        label = LABELS.get(name, name)
        if isinstance(value, dict):
            yield from ((f"{label}, {part}", each) for part, each in value.items())
        else:
            yield label, value


def peers(figures: Figures) -> Iterator[str]:
    yield "## Beside its peers\n"
    yield (
        "The same ledger, proxy and faults run with programs written as in the peers' tutorials.\n"
        "They have durable queues and persistent messages, and everything else is at its default.\n"
        "Each peer can be configured to do better.\n"
        "A call that returns counts as acked; "
        "a call that raises or takes over 40 s counts as unknown.\n"
        "Celery requests no confirms, so none can be swallowed.\n"
    )
    for title in PEERS:
        rows = [*by_fault(figures, title).values()]
        yield f"### {title}\n"
        yield from [*markdown(rows, TITLES), ""] if rows else ["Not run yet.\n"]


def sabotage(figures: Figures) -> Iterator[str]:
    tried = {name: each for name, each in figures["sabotages"].items() if name in SABOTAGES}
    noticed, dates = (
        [name for name, each in tried.items() if each["noticed"]],
        sorted({each["date"] for each in tried.values()}),
    )
    yield "## A suite that can fail\n"
    yield (
        f"`make sabotage` breaks the bus in {len(SABOTAGES)} ways, "
        "each in the sender's or worker's process only.\n"
        "For each change it expects the named test to fail with the named text.\n"
    )
    yield (
        f"{len(noticed)} of {len(SABOTAGES)} were noticed"
        f"{', run ' + ' to '.join(dates) if dates else ''}.\n"
    )
    yield "| change | test that fails | expected text | recorded failure |"
    yield "|---|---|---|---|"
    for name, each in SABOTAGES.items():
        said = (
            "not run yet"
            if name not in tried
            else tried[name]["said"]
            if name in noticed
            else f"**not noticed:** {tried[name]['said']}"
        )
        yield (
            f"| {name}: {each.what} | `{each.caught_by.rpartition('/')[2]}` "
            f"| {each.words} | {said} |"
        )


def progress(figures: Figures) -> list[str]:
    """Return a line for each class and exam: its title and its progress."""
    done = by_fault(figures, OURS.name)
    classes = [
        f"{name:20} {done[name]['messages'] if name in done else 0:>9,} messages  {title}"
        for name, title in TITLES.items()
    ]
    sat = [
        f"{name:20} {'done' if name in figures['exams'] else 'not yet':>18}  {exam.title}"
        for name, exam in EXAMS.items()
    ]
    return [*classes, *sat]
