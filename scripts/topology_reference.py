"""Write the tables of docs/reference/topology.md, from the values that the bus declares.

usage: python scripts/topology_reference.py

The tables are between two marks in the page. The text outside of the marks is written by hand.
"""

import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # a script finds only its own folder by default

from bus.contracts.contract import (  # noqa: E402
    Catalog,
    Event,
    Job,
    Request,
    contract,
    contract_of,
)
from bus.messaging.topology.control import (  # noqa: E402
    COMMANDS,
    CONTROL_EXCHANGE,
    CONTROL_TTL_MS,
    announcement_topology,
    asker_topology,
    control_topology,
)
from bus.messaging.topology.declarations import (  # noqa: E402
    BASE_EXCHANGES,
    event_topology,
    job_topology,
    migration_topology,
    reply_topology,
    request_topology,
)
from bus.messaging.topology.model import Binding, Queue, QueueRole, Topology  # noqa: E402
from bus.messaging.topology.names import RETRY_DELAYS, job_queue  # noqa: E402

PAGE = ROOT / "docs/reference/topology.md"
BEGIN, END = (
    "<!-- begin: scripts/topology_reference.py -->\n",
    "<!-- end: scripts/topology_reference.py -->\n",
)
CATALOG = Catalog()
TIER = "30s"
NO_KEY = "an empty key"
YES = {True: "yes", False: "no"}


@contract("aservice.anoperation", version=7, catalog=CATALOG)
class Operation(Request[None]):
    """An operation of the service that the tables call `<service>`."""


@contract("aservice.ajob", version=7, catalog=CATALOG)
class Work(Job[None]):
    """A job of this service."""


@contract("apublisher.anevent", version=7, catalog=CATALOG)
class Occurrence(Event):
    """An event of another service."""


PLACEHOLDERS = {
    "apublisher.anevent": "<event>",
    "anoperation": "<operation>",
    "ajob": "<job>",
    "asubscription": "<subscription>",
    "asubscriber": "<subscriber>",
    "aservice": "<service>",
    "aninstance": "<instance>",
    "aqueue": "<queue>",
    f".retry.{TIER}": ".retry.<delay>",
    ".v7": ".v<n>",
}
PURPOSES = {
    "bus.requests": "requests, by their type",
    "bus.jobs": "jobs, by their type",
    "bus.events": "events, by their type",
    "bus.replies": "replies, by `reply_to`",
    "bus.updates": "job updates, by `reply_to`",
    "bus.dead": "dead letters, by the name of the work queue",
    "bus.control": "[questions, answers and announcements](wire-control.md) of live instances",
    "<service>.retry.<delay>": "retry copies, of all work queues of the service",
    "<service>.return": "retry copies that return, and replays, by the name of the work queue",
    "<service>.unroutable.dead": "retry copies that come back to a queue that no longer exists",
}
JOB = job_topology(contract_of(Work), tiers=[TIER])
SUBSCRIPTION, NAMED = (
    event_topology("asubscriber", contract_of(Occurrence), name, tiers=[])
    for name in (None, "asubscription")
)


def kinds() -> Iterator[tuple[str, Queue, tuple[Binding, ...]]]:
    """Yield the purpose, the queue and the bindings of each kind of queue."""
    operation = contract_of(Operation)
    yield _one("an operation", request_topology(operation), "requests")
    yield _one(
        "an operation with `BUS_REQUEST_QUEUE=quorum`",
        request_topology(operation, quorum=True),
        "requests",
    )
    yield _one(
        "an operation with `BUS_TOPOLOGY=verify`",
        request_topology(operation, lasting=True),
        "requests",
    )
    yield _one("a job", JOB, "jobs")
    yield _one("a subscription", SUBSCRIPTION, "events")
    yield _one("a subscription with a name", NAMED, "events")
    yield _one("a retry tier in use", JOB, "retry")
    yield _one("dead letters of a work queue", JOB, "dead", job_queue(contract_of(Work)))
    yield _one("messages that the return path cannot route", JOB, "dead", "aservice.unroutable")
    yield _one("a queue that is recreated, except a tier", migration_topology("aqueue"), "dead")
    yield _one(
        "replies and updates of an instance", reply_topology("aservice", "aninstance"), "replies"
    )
    yield _one(
        "questions to an instance, and answers",
        control_topology("aservice", "aninstance"),
        "control",
    )
    yield _one(
        "answers to a command, while it runs", asker_topology(COMMANDS, "aninstance"), "control"
    )
    yield _one(
        "announcements, while a service listens",
        announcement_topology("aservice", "aninstance"),
        "control",
    )


def _one(
    purpose: str, topology: Topology, role: QueueRole, prefix: str = ""
) -> tuple[str, Queue, tuple[Binding, ...]]:
    (queue,) = (
        each for each in topology.queues if each.role == role and each.name.startswith(prefix)
    )
    bindings = tuple(each for each in topology.bindings if each.queue == queue.name)
    return purpose, queue, bindings


def _readable(text: str, work_queue: str | None = None) -> str:
    """Replace the names of the examples by placeholders."""
    if work_queue is not None:
        text = text.replace(work_queue, "<work queue>")
    for name, placeholder in PLACEHOLDERS.items():
        text = text.replace(name, placeholder)
    return text


def _work_queue(queue: Queue) -> str | None:
    """Return the name that the row of a dead-letter queue abbreviates."""
    is_dead_letters = queue.role == "dead" and queue.name.startswith(job_queue(contract_of(Work)))
    return job_queue(contract_of(Work)) if is_dead_letters else None


def _arguments(arguments: Mapping[str, str | int]) -> str:
    """Return a cell: text as code, numbers as they are."""
    return "<br>".join(f"`{name}`: {_value(name, value)}" for name, value in arguments.items())


def _value(name: str, value: str | int) -> str:
    if name == "x-message-ttl" and value != CONTROL_TTL_MS:
        return "the delay"
    return str(value) if isinstance(value, int) else f"`{_readable(value)}`"


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [f"| {' | '.join(line)} |".replace("|  |", "| |") for line in (head, *rows)]
    return "\n".join([lines[0], f"|{'---|' * len(head)}", *lines[1:], ""])


def tables() -> str:
    """Return the four tables with their headings."""
    exchanges = (BASE_EXCHANGES | CONTROL_EXCHANGE | JOB).exchanges
    return "\n".join(
        [
            "### Exchanges\n",
            _table(
                ("exchange", "type", "arguments", "messages"),
                (
                    (
                        f"`{_readable(each.name)}`",
                        each.kind,
                        _arguments(each.arguments),
                        PURPOSES[_readable(each.name)],
                    )
                    for each in exchanges
                ),
            ),
            "### Queues\n",
            _table(
                ("queue", "durable", "exclusive", "arguments", "purpose"),
                (
                    (
                        f"`{_readable(queue.name, _work_queue(queue))}`",
                        YES[queue.durable],
                        YES[queue.exclusive],
                        _arguments(queue.arguments),
                        purpose,
                    )
                    for purpose, queue, _ in kinds()
                ),
            ),
            "### Bindings\n",
            _table(("queue", "exchange", "routing key"), dict.fromkeys(_bindings())),
            "### Delays\n",
            _table(
                ("`<delay>`", "`x-message-ttl`"),
                ((f"`{name}`", str(int(wait * 1000))) for name, wait in RETRY_DELAYS.items()),
            ),
        ]
    )


def _bindings() -> Iterator[tuple[str, str, str]]:
    for _, queue, bindings in kinds():
        work_queue = _work_queue(queue)
        for each in bindings:
            key = f"`{_readable(each.routing_key, work_queue)}`" if each.routing_key else NO_KEY
            name = _readable(queue.name, work_queue)
            yield f"`{name}`", f"`{_readable(each.exchange)}`", key


def page() -> str:
    """Return the page with new tables."""
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{tables()}\n{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
