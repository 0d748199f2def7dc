"""`docs/reliability.md`, written from what was found: its figures are never typed."""

from collections.abc import Iterator
from typing import Any

from tests.chaos.exams import EXAMS
from tests.chaos.faults import FAULTS
from tests.chaos.peers.parties import PEERS
from tests.chaos.report import Figures, by_fault
from tests.chaos.sabotage import SABOTAGES
from tests.chaos.scene import OURS
from tests.chaos.table import Row, markdown, recovery, whole
from tests.integration.command import ROOT

__all__ = ["PAGE", "lines", "progress", "write"]

PAGE = ROOT / "docs" / "reliability.md"
TITLES = {name: fault.title for name, fault in FAULTS.items()}
HEAD = """\
This page says what that is worth: what was tried, how often, and what was found. `make chaos` writes it, class by class; no figure in
it is typed. `make test` has a short form of the same.

## The ledger

A sender and one or more workers are processes of their own. The sender writes down each send before it begins and when it has ended; the
worker writes down each delivery before the bus sees it, and each effect. Each line is one write to a file, which a SIGKILL cannot take
back. Afterwards both sides are compared:

| word | meaning |
|---|---|
| acked | the send returned: the bus has promised |
| failed | the send raised, and said that the message was surely not sent |
| unknown | the send raised, and said that it may have been sent: the fault took longer than the 40 s or 150 s that the send had |
| **lost** | acked, with no effect, and in no dead-letter queue |
| **unexpected** | an effect of what was never sent, of a send that surely failed, or under another message id |
| delivered again | deliveries beyond the first of each attempt |
| done again | effects beyond the first of each message |

Half of the messages are jobs and half are events. One in twenty fails once or twice and goes through a retry tier, one in a hundred cannot
be done and has to be found among the dead letters. Faults strike after so many sends, by a seed, so that the same seed strikes at
the same places on a slower machine. In front of each side stands a TCP proxy that knows AMQP's frames.

"Done again" is 0 wherever one worker process lives through the faults: it remembers what it has handled. Where a process dies, or another
process gets what a lost connection held, an effect can come before the ack that nobody hears. Then it is done again by the
other process; the table says how often that was, and how many were under way at most. [Delivery](explanation/delivery.md) says what to do
about it.

What the ledger finds is mended, and the parts that found it run again. The restarted broker found this: a send whose first attempt had
arrived, and whose connection went and did not come back by its deadline, said "surely not sent". It says now that it may have been sent.
"""


def write(figures: Figures) -> None:
    """The page, whole."""
    PAGE.write_text("\n".join(lines(figures)).rstrip() + "\n", encoding="utf-8")


def lines(figures: Figures) -> Iterator[str]:
    """Of the page."""
    yield "# What was lost\n"
    yield answer([*by_fault(figures, OURS.name).values()])
    yield HEAD
    yield from campaigns(figures)
    yield from exams(figures)
    yield from peers(figures)
    yield from sabotage(figures)


def answer(rows: list[Row]) -> str:
    """The page's title is a question."""
    if not rows:
        return "Not known yet: the long form has not run.\n"
    total = whole(rows)
    found = f"{total['lost']:,} of" if total["lost"] else "None of"
    return f"{found} {total['messages']:,} messages, under {total['faults']:,} faults.\n"


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
        yield f"\n0 lost of {total['messages']:,} means, with 95 % confidence, less than one in {1 / bound:,.0f}; no more than that.\n"
    yield from (f"{line[0].upper()}{line[1:]}. Two seconds are promised.\n" for line in recovery(rows))
    dates = sorted({part["date"] for part in figures["parts"]})
    brokers = sorted({part["rabbitmq"] for part in figures["parts"]})
    when = " to ".join(dict.fromkeys((dates[0], dates[-1])))
    yield f"Run {when} on RabbitMQ {', '.join(brokers)}: one node, on two cores that others used as well.\n"
    if missing := [title for name, title in TITLES.items() if name not in by_fault(figures, OURS.name)]:
        yield f"Not run yet in the long form: {', '.join(missing)}.\n"


def exams(figures: Figures) -> Iterator[str]:
    yield "## Retries, herds, poison\n"
    yield "Times are in seconds, except where it says ms.\n"
    found = figures["exams"]
    for name, exam in EXAMS.items():
        if name in found:
            yield f"- **{exam.title}**: {told(found[name])}."
        else:
            yield f"- {exam.title}: not run yet."
    yield ""


def told(found: dict[str, Any]) -> str:
    """Figures as a phrase."""
    return ", ".join(f"{name} {told(value) if isinstance(value, dict) else value}" for name, value in found.items())


def peers(figures: Figures) -> Iterator[str]:
    yield "## Beside its peers\n"
    yield (
        "The same ledger, proxy and faults, around programs as the peers' tutorials write them: durable queues and persistent\n"
        "messages, everything else at its default. Each can be set up to do better, by who knows that it has to be. A call that\n"
        "returns counts as acked, one that raises or takes over 40 s as unknown. Celery asks for no confirms, so none can be swallowed.\n"
    )
    for title in PEERS:
        rows = [*by_fault(figures, title).values()]
        yield f"### {title}\n"
        yield from [*markdown(rows, TITLES), ""] if rows else ["Not run yet.\n"]


def sabotage(figures: Figures) -> Iterator[str]:
    tried = {name: each for name, each in figures["sabotages"].items() if name in SABOTAGES}
    noticed, dates = [name for name, each in tried.items() if each["noticed"]], sorted({each["date"] for each in tried.values()})
    yield "## A suite that can fail\n"
    yield (
        f"`make sabotage` breaks the bus in {len(SABOTAGES)} ways, each in the sender's or worker's process only, and expects the test\n"
        "that is named for it to fail, in the words that are named for it.\n"
    )
    yield f"{len(noticed)} of {len(SABOTAGES)} were noticed{', run ' + ' to '.join(dates) if dates else ''}.\n"
    yield "| broken | noticed by | as | which said |"
    yield "|---|---|---|---|"
    for name, each in SABOTAGES.items():
        said = "not run yet" if name not in tried else tried[name]["said"] if name in noticed else f"**not noticed:** {tried[name]['said']}"
        yield f"| {name}: {each.what} | `{each.caught_by.rpartition('/')[2]}` | {each.words} | {said} |"


def progress(figures: Figures) -> list[str]:
    """What there is, and what of it was done."""
    done = by_fault(figures, OURS.name)
    classes = [f"{name:20} {done[name]['messages'] if name in done else 0:>9,} messages  {title}" for name, title in TITLES.items()]
    sat = [f"{name:20} {'done' if name in figures['exams'] else 'not yet':>18}  {exam.title}" for name, exam in EXAMS.items()]
    return [*classes, *sat]
