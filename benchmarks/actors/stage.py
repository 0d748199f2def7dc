"""The protocol between the driver and an actor, and the measurements of an actor.

The module imports only the standard library: the peers run in environments of their own.

The driver writes a line `verb key=value …` to the actor's standard input, and reads one line of
JSON from its standard output. The actor first writes `{"ready": true}` without an order. A result
`{"error": …}` fails the run.
"""

import asyncio
import gc
import json
import os
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

__all__ = [
    "REPLY_TIMEOUT",
    "URL",
    "Call",
    "Gathering",
    "Order",
    "Result",
    "Window",
    "WrongReply",
    "closed_loop",
    "in_time",
    "obey",
    "obey_blocking",
    "open_loop",
    "published",
    "sliding",
    "summary",
]

URL = os.environ.get("BUS_URL", "amqp://guest:guest@127.0.0.1/")
REPLY_TIMEOUT = 10.0
"""Seconds after which a missing reply fails the run."""
STALL = 150.0
"""Seconds after which a consumer that has not received every message fails the run."""

Result = dict[str, Any]
Verb = Callable[["Order"], Awaitable[Result]]
Call = Callable[[], Awaitable[object]]
Due = Callable[[float], Awaitable[object]]
"""A call that receives the time at which it was due, from `time.perf_counter`."""


class WrongReply(Exception):
    """A reply that does not match its request; it fails the run."""


@dataclass(frozen=True)
class Order:
    """One line from the driver."""

    verb: str
    words: Mapping[str, str]

    @classmethod
    def parse(cls, line: str) -> "Order":
        """Parse `verb key=value …`."""
        verb, *pairs = line.split()
        return cls(verb, dict(pair.partition("=")[::2] for pair in pairs))

    def integer(self, key: str, default: int = 0) -> int:
        """Return an argument as an integer."""
        return int(self.words.get(key, default))

    def real(self, key: str, default: float = 0.0) -> float:
        """Return an argument as a float."""
        return float(self.words.get(key, default))

    @property
    def watch(self) -> list[int]:
        """The ids of the processes of which the CPU time is measured."""
        return [int(pid) for pid in self.words.get("watch", "").split(",") if pid]


def cpu_clock(pid: int) -> float:
    """Return the CPU seconds of all threads of a process, for any process.

    The value is the sum that getrusage reports, with a resolution of nanoseconds.
    """
    try:
        # clock_getcpuclockid(3): Linux's clock id for another process
        return time.clock_gettime(((~pid) << 3) | 2)
    except (OSError, OverflowError, AttributeError):
        return 0.0


@dataclass
class Window:
    """The time from `begin` to `end`, and the CPU time of the watched processes in it."""

    watch: Sequence[int]
    began: float = 0.0
    ended: float = 0.0
    before: list[float] = field(default_factory=list)
    after: list[float] = field(default_factory=list)

    def begin(self) -> None:
        """Start the window now."""
        self.before = [cpu_clock(pid) for pid in self.watch]
        self.began = time.monotonic()

    def end(self) -> None:
        """End the window now; the last call counts."""
        self.ended = time.monotonic()
        self.after = [cpu_clock(pid) for pid in self.watch]

    def result(self, count: int, **more: object) -> Result:
        """Return the result for the driver."""
        used = [after - before for before, after in zip(self.before, self.after, strict=True)]
        return {
            "count": count,
            "seconds": self.ended - self.began,
            "began": self.began,
            "ended": self.ended,
            "cpu": used,
            **more,
        }


def percentile(ordered: Sequence[float], share: float) -> float:
    """Return a percentile of sorted values by nearest rank."""
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def summary(latencies: list[float]) -> Result:
    """Return percentiles in milliseconds."""
    ordered = sorted(latencies)
    shares = {"p50": 0.5, "p99": 0.99, "p999": 0.999}
    return (
        {name: percentile(ordered, share) * 1e3 for name, share in shares.items()}
        if ordered
        else {}
    )


async def closed_loop(call: Call, order: Order) -> Result:
    """Run `in_flight` callers for `seconds`; each calls again as soon as it has its answer."""
    window, latencies, clock = Window(order.watch), list[float](), time.perf_counter
    until = clock() + order.real("seconds")

    async def caller() -> None:
        while (began := clock()) < until:
            await call()
            latencies.append(clock() - began)

    gc.collect()
    window.begin()
    until = clock() + order.real("seconds")
    await asyncio.gather(*(caller() for _ in range(order.integer("in_flight"))))
    window.end()
    return window.result(len(latencies), **summary(latencies))


class Paced:
    """Calls at fixed times.

    A thread keeps the time, since the timers of an event loop have a resolution of a millisecond.
    """

    def __init__(self, call: Due, order: Order) -> None:
        """Schedule `rate` calls a second for `seconds`."""
        self.call, self.rate = call, order.real("rate")
        self.total = int(self.rate * order.real("seconds"))
        self.latencies: list[float] = []
        self.tasks: set[asyncio.Task[None]] = set()
        self.loop = asyncio.get_running_loop()
        self.done: asyncio.Future[None] = self.loop.create_future()

    def keep_time(self) -> None:
        """Start all calls that are due, late ones too; runs in a thread."""
        start, sent = time.perf_counter(), 0
        while sent < self.total and not self.done.done():
            upto = min(self.total, int((time.perf_counter() - start) * self.rate) + 1)
            if upto > sent:
                self.loop.call_soon_threadsafe(
                    self.fire, [start + number / self.rate for number in range(sent, upto)]
                )
                sent = upto
            time.sleep(max(0.0, start + sent / self.rate - time.perf_counter()))

    def fire(self, dues: list[float]) -> None:
        """Start one task for each call."""
        for due in dues:
            task = self.loop.create_task(self.one(due))
            self.tasks.add(task)
            task.add_done_callback(self.ended)

    async def one(self, due: float) -> None:
        """Make one call, and record its latency from the time at which it was due."""
        await self.call(due)
        self.latencies.append(time.perf_counter() - due)

    def ended(self, task: "asyncio.Task[None]") -> None:
        """End the run on the first failure or the last success."""
        self.tasks.discard(task)
        error = task.exception()
        if self.done.done():
            return
        if error is not None:
            self.done.set_exception(error)
        elif len(self.latencies) == self.total:
            self.done.set_result(None)


async def open_loop(call: Call, order: Order) -> Result:
    """Make `rate` calls a second for `seconds`, independent of the answers."""
    return await in_time(lambda _: call(), order)


async def in_time(call: Due, order: Order) -> Result:
    """Make `rate` calls a second for `seconds`, each with the time at which it was due."""
    window, paced = Window(order.watch), Paced(call, order)
    gc.collect()
    window.begin()
    threading.Thread(target=paced.keep_time, daemon=True).start()
    await asyncio.wait_for(paced.done, order.real("seconds") + STALL)
    window.end()
    return window.result(paced.total, **summary(paced.latencies))


async def published(
    send: Callable[[int], Awaitable[object]], numbers: Iterator[int], order: Order
) -> Result:
    """Run `in_flight` senders, which await their confirms, for `seconds` or until `count` are sent.

    `sum` in the result is the sum of the numbers sent.
    """
    window, clock, count = Window(order.watch), time.monotonic, order.integer("count")
    left = iter(range(count)) if count else iter(int, 1)
    until = clock() + (order.real("seconds") if not count else 1e9)
    sent = total = 0

    async def sender() -> None:
        nonlocal sent, total
        for _ in left:
            if clock() > until:
                return
            number = next(numbers)
            await send(number)
            sent += 1
            total += number

    gc.collect()
    window.begin()
    until = clock() + (order.real("seconds", 1e9) or 1e9)
    await asyncio.gather(*(sender() for _ in range(order.integer("in_flight"))))
    window.end()
    return window.result(sent, sum=total)


class Gathering:
    """A count of the messages that a consumer handles, from the first to the `count`-th."""

    def __init__(self) -> None:
        """Start without an expected message."""
        self.window = Window([])
        self.seen = self.total = 0
        self.wanted = -1
        self.limit = 0.0
        self.began = False
        self.done = asyncio.Event()

    def expect(self, order: Order) -> Result:
        """Expect `count` messages from now on."""
        gc.collect()
        self.window = Window(order.watch)
        self.seen = self.total = 0
        self.wanted = order.integer("count")
        self.began = False
        self.limit = order.real("limit")
        self.done.clear()
        return {"count": self.wanted}

    def saw(self, number: int) -> None:
        """Record one message that was handled and acked."""
        if self.seen >= self.wanted:
            return  # delivered before the consumer stopped
        if not self.began:
            self.window.begin()
            self.began = True
        self.seen += 1
        self.total += number
        if self.seen == self.wanted:
            self.window.end()
            self.done.set()

    async def complete(self) -> Result:
        """Wait for all messages, and return the result; the rate is that of all but the first."""
        try:
            await asyncio.wait_for(self.done.wait(), self.limit or STALL)
        except TimeoutError:
            if not self.limit or not self.seen:
                raise
            self.wanted = -1  # the messages until now count; a million can take too long
            self.window.end()
        return self.window.result(self.seen, sum=self.total)

    async def obey(self) -> None:
        """Obey `expect` and then `complete`, for a consumer that consumes continuously."""

        async def expect(order: Order) -> Result:
            result = self.expect(order)
            self.window.begin()  # CPU time counts from the first publish, as the driver's time does
            self.began = True
            return result

        async def complete(_: Order) -> Result:
            return await self.complete()

        await obey(expect=expect, complete=complete)


def sliding(send: Callable[[], Callable[[], object]], order: Order) -> Result:
    """Run a closed loop of a blocking client.

    `send` returns a function that waits for the answer; the oldest call is awaited first.
    """
    window, latencies, clock = Window(order.watch), list[float](), time.perf_counter
    waiting: list[tuple[float, Callable[[], object]]] = []
    gc.collect()
    window.begin()
    until = clock() + order.real("seconds")
    while waiting or clock() < until:
        while clock() < until and len(waiting) < order.integer("in_flight"):
            waiting.append((clock(), send()))
        if not waiting:
            break
        began, answer = waiting.pop(0)
        answer()
        latencies.append(clock() - began)
    window.end()
    return window.result(len(latencies), **summary(latencies))


def say(result: Mapping[str, object]) -> None:
    """Write one line to the driver."""
    sys.stdout.write(json.dumps(result) + "\n")
    sys.stdout.flush()


async def obey(**verbs: Verb) -> None:
    """Execute the driver's orders until it closes standard input."""
    lines = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(lines), sys.stdin
    )
    say({"ready": True})
    while line := (await lines.readline()).decode():
        order = Order.parse(line)
        try:
            say(await verbs[order.verb](order))
        except Exception as error:  # noqa: BLE001 - the driver must receive any error
            say({"error": f"{type(error).__name__}: {error}"})


def obey_blocking(**verbs: Callable[[Order], Result]) -> None:
    """Execute the driver's orders without an event loop, until it closes standard input."""
    say({"ready": True})
    for line in sys.stdin:
        order = Order.parse(line)
        try:
            say(verbs[order.verb](order))
        except Exception as error:  # noqa: BLE001 - as above
            say({"error": f"{type(error).__name__}: {error}"})
