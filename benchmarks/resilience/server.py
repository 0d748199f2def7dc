"""The model of the called service: a queue, slots, and the time that a handler takes."""

import asyncio
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from bus.errors import BusError, ResourceExhausted, Unavailable
from bus.messaging.envelope import Envelope
from bus.messaging.resilience.load_shedder import IDLE_SECONDS, LoadShedder
from bus.runtime.stages.shed_load import MAX_RETRY_SECONDS, MIN_RETRY_SECONDS

__all__ = ["SERVICE_SECONDS", "Mode", "Server"]

SERVICE_SECONDS = 0.05
"""Mean time of the handler. A single call takes from half to one and a half of it."""
REFUSAL_SECONDS = 0.001
"""Time for which a refused request uses a slot."""

Mode = Literal["works", "unavailable", "hangs"]
"""Behaviour of the server: it works, answers each request with an error, or never answers."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """One request in the queue."""

    envelope: Envelope
    reply: "asyncio.Future[Envelope]"
    arrived: float
    expires: float


class Server:
    """A server with a first-in-first-out queue.

    As RabbitMQ does, the model drops a request at the head of the queue if its `expiration` has
    passed. A handler that has begun runs to its end, even if the caller has left. A real server
    would let the handler run for the whole `expiration`, because the clocks can differ.
    """

    def __init__(
        self,
        capacity: float,
        seed: int,
        behaviour: Callable[[float], Mode],
        *,
        sheds: bool,
    ) -> None:
        """Create a server.

        Args:
            capacity: Requests that it can handle in a second.
            seed: Seed of the random times of its handler.
            behaviour: Function that returns its behaviour at a time.
            sheds: True if it sheds load, by the rules of the bus.
        """
        self._slots = max(1, round(capacity * SERVICE_SECONDS))
        self._seconds = self._slots / capacity
        self._random = random.Random(seed)  # noqa: S311 - a model, not a secret
        self._queue: deque[Waiting] = deque()
        self._loop = asyncio.get_running_loop()
        self._behaviour = behaviour
        self._shedder = LoadShedder() if sheds else None
        self._free_since: float | None = 0.0
        """Time since which a slot has been free. None if all are in use."""

    def receive(self, envelope: Envelope, reply: "asyncio.Future[Envelope]") -> None:
        """Put a request into the queue, and start its handler if a slot is free."""
        now = self._loop.time()
        expires = now + (envelope.expiration or 0) / 1000
        self._queue.append(Waiting(envelope, reply, now, expires))
        self._start_waiting()

    def _start_waiting(self) -> None:
        while self._slots and self._queue:
            waiting = self._queue.popleft()
            if waiting.expires > self._loop.time():
                self._start(waiting)

    def _start(self, waiting: Waiting) -> None:
        mode = self._behaviour(self._loop.time())
        if mode == "hangs":
            return  # the reply never comes; the queue is not the bottleneck
        if mode == "unavailable":
            fail(waiting.reply, Unavailable("the database is down"))
            return
        error = self._refusal(waiting)
        self._slots -= 1
        if not self._slots:
            self._free_since = None
        if error is not None:
            fail(waiting.reply, error)
            self._loop.call_later(REFUSAL_SECONDS, self._free_slot)
            return
        seconds = self._seconds * self._random.uniform(0.5, 1.5)
        self._loop.call_later(seconds, self._finish, waiting, seconds)

    def _refusal(self, waiting: Waiting) -> ResourceExhausted | None:
        """Return the error of a request that is shed, as the stage `shed_load` does."""
        if self._shedder is None:
            return None
        now, sender = self._loop.time(), waiting.envelope.source
        if self._free_since is not None and now - self._free_since > IDLE_SECONDS:
            self._shedder.queue.learn(sender, 0, now)
            return None
        allowed = waiting.expires - waiting.arrived
        waited = self._shedder.queue.wait_of(sender, now - waiting.arrived, 0, now, allowed)
        if self._shedder.refuses(waited, allowed, "critical", now) is None:
            return None
        after = min(MAX_RETRY_SECONDS, max(MIN_RETRY_SECONDS, waited))
        return ResourceExhausted("the service is overloaded", executed="no", retry_after=after)

    def _finish(self, waiting: Waiting, seconds: float) -> None:
        if not waiting.reply.done():
            waiting.reply.set_result(waiting.envelope)
        if self._shedder is not None and self._shedder.is_sample(self._loop.time()):
            self._shedder.handled(seconds)
        self._free_slot()

    def _free_slot(self) -> None:
        self._slots += 1
        if self._free_since is None:
            self._free_since = self._loop.time()
        self._start_waiting()


def fail(reply: "asyncio.Future[Envelope]", error: BusError) -> None:
    """Answer with an error of the service, as `check_reply` raises it at the caller."""
    if not reply.done():
        error.origin = "service"
        reply.set_exception(error)
