"""Waiting until the buses of a test have nothing left to do."""

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache

from bus.contracts.limits import check_seconds
from bus.messaging.plurals import count_noun
from bus.messaging.topology.names import parse_queue_name
from bus.runtime.job_reports import RESULT_TASK
from bus.testing.work import Call, HandlerRun, Work
from bus.transports.memory import MemoryBroker

__all__ = ["Unsettled", "wait_settled"]

QUIET_TURNS = 10
"""Turns of the event loop in which nothing may be in progress.

One turn is not enough: a task of the test that has received a reply needs a few turns to send its
next message.
"""


class Unsettled(AssertionError):
    """The buses of a test still had something to do, or can never end it.

    The text lists each queue and each call that is not settled.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class Remaining:
    """Descriptions of the messages, handlers and calls that are not settled yet."""

    in_progress: list[str]
    stuck: list[str]
    """Messages that no consumer of this test will ever receive."""
    results: list[asyncio.Task[object]] = field(default_factory=list)
    """Tasks of the bus that send the result of a job again."""


NOTHING = Remaining(in_progress=[], stuck=[])


async def wait_settled(broker: MemoryBroker, work: Work, *, timeout: float, retries: bool) -> None:
    """Wait until nothing is in progress. `MemoryBuses.settled` describes the rules."""
    __tracebackhide__ = True
    quiet, remaining = 0, NOTHING
    seconds = check_seconds(timeout, "timeout", "settled", shortest=0)
    with _alarm(seconds, broker) as is_over:
        while quiet < QUIET_TURNS:
            remaining = _find_remaining(broker, work, retries=retries)
            if not remaining.in_progress:
                quiet += 1
                await asyncio.sleep(0)
            elif not is_over.is_set():
                quiet = 0
                _report_end(remaining.results, broker)
                await broker.activity.wait()
            else:
                raise Unsettled(
                    f"the buses are not settled after {seconds:.3g} s."
                    f"{_listed([*remaining.in_progress, *remaining.stuck])}\n"
                    "End each handler and call, or pass a longer timeout."
                )
    if remaining.stuck:
        raise Unsettled(
            f"the buses cannot settle.{_listed(remaining.stuck)}\n"
            "Serve the service of each queue in the test before `settled`."
        )


@contextmanager
def _alarm(seconds: float, broker: MemoryBroker) -> Iterator[threading.Event]:
    """Set the yielded event after `seconds` of real time, and wake the waiting test.

    A thread counts the time, because the clock of a `VirtualLoop` jumps to each timer of the loop.
    """
    loop, is_over = asyncio.get_running_loop(), threading.Event()

    def ring() -> None:
        is_over.set()
        loop.call_soon_threadsafe(broker.activity.changed)

    timer = threading.Timer(seconds, ring)
    timer.daemon = True
    timer.start()
    try:
        yield is_over
    finally:
        timer.cancel()
        timer.join()  # otherwise the timer could call a closed loop


def _find_remaining(broker: MemoryBroker, work: Work, *, retries: bool) -> Remaining:
    runs: dict[str, list[HandlerRun]] = {}
    for run in work.runs.values():
        runs.setdefault(run.envelope.queue or "", []).append(run)
    in_progress, stuck = [], []
    for queue in dict.fromkeys([*broker.queues, *runs]):
        role = _role(queue)
        ready = _ready(broker, queue) if queue in broker else 0
        if role == "retry" and retries and ready:
            in_progress.append(f"{queue}: {count_noun(ready, 'message')} for a later attempt")
        if role in ("retry", "dead"):
            continue
        parts = _in_progress(broker, queue, ready, work, runs.get(queue, []))
        if parts:
            in_progress.append(f"{queue}: {', '.join(parts)}")
        elif ready:
            stuck.append(f"{queue}: {count_noun(ready, 'message')} and no consumer")
    in_progress += [_describe_call(call) for call in work.calls]
    results = [task for task in asyncio.all_tasks() if task.get_name().startswith(RESULT_TASK)]
    in_progress += [f"{task.get_name()}: the broker has not accepted it" for task in results]
    return Remaining(in_progress=in_progress, stuck=stuck, results=results)


@lru_cache(maxsize=4096)
def _role(queue: str) -> str | None:
    parsed = parse_queue_name(queue)
    return None if parsed is None else parsed.role


def _ready(broker: MemoryBroker, queue: str) -> int:
    """Return the number of ready messages. Without a consumer, expiring messages do not count."""
    if broker.is_consumed(queue):
        return broker.depth(queue)
    if _role(queue) == "retry":
        return broker.depth(queue)
    return sum(message.expires_at is None for message in broker.queue(queue).peek())


def _in_progress(
    broker: MemoryBroker, queue: str, ready: int, work: Work, runs: list[HandlerRun]
) -> list[str]:
    parts = []
    if ready and broker.is_consumed(queue):
        parts.append(f"{count_noun(ready, 'message')} ready")
    if unacked := broker.unacked(queue):
        parts.append(f"{count_noun(unacked, 'message')} unacked")
    for run in runs:
        name, seconds = work.handlers.get(queue, "of another bus"), _since(run.began)
        if run.has_ended:
            parts.append(f"message {run.envelope.id} of handler {name} is not settled")
        else:
            parts.append(f"handler {name} runs for {seconds}")
    return parts


def _describe_call(call: Call) -> str:
    envelope, seconds = call.envelope, _since(call.began)
    waits = "has no reply" if envelope.role == "request" else "has no confirm"
    return f"{call.service}: the {envelope.role} {envelope.type} {waits} for {seconds}"


def _report_end(tasks: list[asyncio.Task[object]], broker: MemoryBroker) -> None:
    def changed(_task: asyncio.Task[object]) -> None:
        broker.activity.changed()

    for task in tasks:
        task.add_done_callback(changed)


def _since(began: float) -> str:
    return f"{time.monotonic() - began:.2g} s"


def _listed(lines: list[str]) -> str:
    return "".join(f"\n- {line}" for line in lines)
