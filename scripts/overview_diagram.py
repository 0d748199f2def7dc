"""Diagram of the README: services, exchanges and queues of its example, with names from the code.

The picture is narrow, so that it is readable on a phone.
"""

from collections.abc import Iterator

from diagram_shapes import Arrow, Box, svg

from bus.contracts.contract import Catalog, Event, Job, Request, contract, contract_of
from bus.contracts.retry_policy import RetryPolicy
from bus.messaging.topology.names import (
    EVENTS,
    JOBS,
    REPLIES,
    REQUESTS,
    dead_letter_queue,
    event_queue,
    job_queue,
    reply_queue,
    request_queue,
    retry_delay_for,
    retry_tier,
)

__all__ = ["overview"]

CATALOG = Catalog()
LEFT, CALLS = 8, 104
"""Position and width of the services that call or subscribe."""
MIDDLE, INSIDE = 124, 252
"""Position and width of the exchanges and queues."""
RIGHT, SERVES = 400, 84
"""Position and width of the service that has the handlers."""
HIGH = 30
"""Height of an exchange and of a queue."""


@contract("library.find", version=1, catalog=CATALOG)
class FindBook(Request[None]):
    """Request from which the diagram takes its names."""


@contract("library.scan", version=1, catalog=CATALOG)
class ScanBook(Job[None]):
    """Job from which the diagram takes its names."""


@contract("library.scanned", version=1, catalog=CATALOG)
class BookScanned(Event):
    """Event from which the diagram takes its names."""


def overview() -> str:
    """Draw a request, a job and an event between three services."""
    parts = [
        Box(kind="ground", x=116, y=8, w=280, h=648, lines=("RabbitMQ",), at_top=True),
        Box(kind="process", x=LEFT, y=8, w=CALLS, h=296, lines=("reader",), at_top=True),
        Box(kind="process", x=RIGHT, y=8, w=SERVES, h=500, lines=("library",), at_top=True),
        *_request(60),
        *_job(218),
        *_event(446),
        *_legend(612),
    ]
    title = "A request, a job and an event pass through exchanges and queues to the services"
    return svg(492, 664, title, parts)


def _request(y: float) -> Iterator[Box | Arrow]:
    yield _heading(y - 4, "a request: an answer now")
    yield _exchange(MIDDLE, y + 8, 128, REQUESTS)
    yield _queue(y + 52, request_queue(contract_of(FindBook)))
    yield Box(kind="queue", x=MIDDLE, y=y + 96, w=136, h=HIGH, lines=(reply_queue("reader", "…"),))
    yield _exchange(MIDDLE + 150, y + 96, 102, REPLIES)
    yield _note(LEFT, y + 23, CALLS, "bus.request()")
    yield _note(LEFT, y + 111, CALLS, "the answer")
    yield _note(RIGHT, y + 67, SERVES, "find()")
    yield _across(LEFT + CALLS, y + 23, MIDDLE)
    yield _down(MIDDLE + 64, y + 38, y + 52)
    yield _across(MIDDLE + INSIDE, y + 67, RIGHT)
    yield _across(RIGHT, y + 111, MIDDLE + INSIDE, dashed=True)
    yield _across(MIDDLE + 150, y + 111, MIDDLE + 136, dashed=True)
    yield _across(MIDDLE, y + 111, LEFT + CALLS, dashed=True)


def _job(y: float) -> Iterator[Box | Arrow]:
    work = job_queue(contract_of(ScanBook))
    policy = RetryPolicy()
    tier = retry_tier("library", retry_delay_for(policy.first_delay))
    yield _heading(y - 4, "a job: work that is done later")
    yield _exchange(MIDDLE, y + 8, 128, JOBS)
    yield _queue(y + 52, work)
    yield Box(kind="queue", x=MIDDLE + 72, y=y + 112, w=180, h=HIGH, lines=(tier,))
    yield _queue(y + 166, dead_letter_queue(work))
    yield _note(LEFT, y + 23, CALLS, "bus.submit()")
    yield _note(RIGHT, y + 67, SERVES, "scan()")
    yield _across(LEFT + CALLS, y + 23, MIDDLE)
    yield _down(MIDDLE + 64, y + 38, y + 52)
    yield _across(MIDDLE + INSIDE, y + 67, RIGHT)
    yield _across(RIGHT, y + 127, MIDDLE + INSIDE, dashed=True)
    yield Arrow(
        points=((MIDDLE + 72, y + 127), (MIDDLE + 40, y + 127), (MIDDLE + 40, y + 82)),
        word="failed: after a wait, again",
        at=(MIDDLE + 150, y + 104),
        dashed=True,
    )
    yield Arrow(
        points=((RIGHT, y + 181), (MIDDLE + INSIDE, y + 181)),
        word=f"failed {policy.attempts} times: a dead letter",
        at=(MIDDLE + 126, y + 158),
        dashed=True,
    )


def _event(y: float) -> Iterator[Box | Arrow]:
    declared = contract_of(BookScanned)
    yield _heading(y - 4, "an event: a fact for each subscriber")
    yield _exchange(MIDDLE + 124, y + 8, 128, EVENTS)
    yield _queue(y + 56, event_queue("notices", declared))
    yield Box(
        kind="ground", x=MIDDLE, y=y + 112, w=INSIDE, h=HIGH, lines=(event_queue("…", declared),)
    )
    yield _note(RIGHT, y + 23, SERVES, "publish()")
    yield Box(kind="process", x=LEFT, y=y + 38, w=CALLS, h=52, lines=("notices", "on_scanned()"))
    yield Box(kind="ground", x=LEFT, y=y + 102, w=CALLS, h=50, lines=("further", "subscribers"))
    yield _across(RIGHT, y + 23, MIDDLE + INSIDE)
    yield _down(MIDDLE + 160, y + 38, y + 56)
    yield Arrow(
        points=(
            (MIDDLE + 220, y + 38),
            (MIDDLE + 220, y + 46),
            (RIGHT - 12, y + 46),
            (RIGHT - 12, y + 127),
            (MIDDLE + INSIDE, y + 127),
        ),
        dashed=True,
    )
    yield _across(MIDDLE, y + 71, LEFT + CALLS)
    yield _across(MIDDLE, y + 127, LEFT + CALLS, dashed=True)


def _legend(y: float) -> Iterator[Box | Arrow]:
    yield Box(kind="process", x=LEFT, y=y, w=CALLS, h=HIGH, lines=("a service",))
    yield _exchange(MIDDLE, y, 116, "an exchange")
    yield Box(kind="queue", x=MIDDLE + 136, y=y, w=116, h=HIGH, lines=("a queue",))


def _heading(y: float, text: str) -> Box:
    return Box(kind="note", x=MIDDLE, y=y - 20, w=INSIDE, h=20, lines=(text,), at_top=True)


def _exchange(x: float, y: float, w: float, name: str) -> Box:
    return Box(kind="exchange", x=x, y=y, w=w, h=HIGH, lines=(name,))


def _queue(y: float, name: str) -> Box:
    return Box(kind="queue", x=MIDDLE, y=y, w=INSIDE, h=HIGH, lines=(name,))


def _note(x: float, y: float, w: float, text: str) -> Box:
    return Box(kind="note", x=x, y=y - 9, w=w, h=18, lines=(text,))


def _across(start: float, y: float, end: float, *, dashed: bool = False) -> Arrow:
    return Arrow(points=((start, y), (end, y)), dashed=dashed)


def _down(x: float, start: float, end: float) -> Arrow:
    return Arrow(points=((x, start), (x, end)))
