"""The model of the callers: processes that send requests at random times."""

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from benchmarks.resilience.server import Server
from bus import Message, Request, contract
from bus.contracts.contract import contract_of
from bus.errors import BusError, DeadlineExceeded
from bus.messaging.envelope import Envelope, new_id
from bus.messaging.handler import Handler, compose
from bus.messaging.resilience.call_policy import CallPolicy
from bus.messaging.resilience.destinations import Destinations
from bus.middleware.stacks import call_policies
from bus.testing import wall_clock

__all__ = ["TIMEOUT_SECONDS", "Caller", "Counts"]

TIMEOUT_SECONDS = 4.0
"""Seconds that a caller waits for the final reply."""


class Quote(Message):
    """The reply."""


@contract("simulator.quote", version=1, idempotent=True)
class GetQuote(Request[Quote]):
    """The request of all callers. It may be repeated, because it is idempotent."""


OPERATION = contract_of(GetQuote).type


@dataclass
class Counts:
    """The calls of all callers, by the second in which they began."""

    calls: Counter[int] = field(default_factory=Counter)
    good: Counter[int] = field(default_factory=Counter)
    """Calls with a reply in time."""
    sent: Counter[int] = field(default_factory=Counter)
    """Messages of the calls, with all repetitions."""


class Caller:
    """One calling process, with policies and a state of its own."""

    def __init__(self, server: Server, policy: CallPolicy, counts: Counts, seed: int) -> None:
        """Create a caller that does not send yet."""
        self._server, self._counts = server, counts
        self._name = f"caller-{seed}"
        self._random = random.Random(seed)  # noqa: S311 - a model, not a secret
        self._loop = asyncio.get_running_loop()
        self._calls: set[asyncio.Task[None]] = set()
        self._tick: asyncio.TimerHandle | None = None
        destinations = Destinations({}, policy, timer=self._loop.time, clock=wall_clock)
        self._stack: Handler = compose(call_policies(destinations.of(OPERATION)), self._send)

    def start(self, rate: Callable[[], float]) -> None:
        """Send calls from now on, independently of their replies, `rate()` a second on average."""
        self._tick = self._loop.call_later(self._random.expovariate(rate()), self._start_call, rate)

    def stop(self) -> None:
        """Begin no further calls."""
        if self._tick is not None:
            self._tick.cancel()

    async def wait_idle(self) -> None:
        """Wait for the calls in flight."""
        if self._calls:
            await asyncio.wait(self._calls)

    def _start_call(self, rate: Callable[[], float]) -> None:
        call = self._loop.create_task(self._call())
        self._calls.add(call)
        call.add_done_callback(self._calls.discard)
        self.start(rate)

    async def _call(self) -> None:
        second, now = int(self._loop.time()), wall_clock()
        self._counts.calls[second] += 1
        envelope = Envelope(
            id=new_id(),
            type=OPERATION,
            role="request",
            source=self._name,
            body=b"{}",
            timestamp=second,
            deadline=int((now + TIMEOUT_SECONDS) * 1000),
        )
        try:
            await self._stack(envelope)
        except BusError:
            return
        self._counts.good[second] += 1

    async def _send(self, envelope: Envelope) -> Envelope | None:
        """Send a request, and wait for its reply for the time of one attempt."""
        self._counts.sent[envelope.timestamp] += 1
        remaining = (envelope.deadline or 0) / 1000 - wall_clock()
        limit = envelope.limits.attempt_timeout if envelope.limits else None
        seconds = remaining if limit is None else min(limit, remaining)
        reply: asyncio.Future[Envelope] = self._loop.create_future()
        timer = self._loop.call_later(seconds, expire, reply, limit is None or limit < remaining)
        self._server.receive(envelope.replace(expiration=int(seconds * 1000)), reply)
        try:
            return await reply
        finally:
            timer.cancel()


def expire(reply: "asyncio.Future[Envelope]", had_full_time: bool) -> None:  # noqa: FBT001 - a timer
    """Fail a request without a reply in time, as the client does."""
    if not reply.done():
        error = DeadlineExceeded(f"{OPERATION}: no reply in time.", maybe_executed=True)
        error.origin, error.had_full_time = "service", had_full_time
        reply.set_exception(error)
