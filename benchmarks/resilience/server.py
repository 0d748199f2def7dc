"""The model of the called service: a queue, slots, and the time that a handler takes."""

import asyncio
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from bus.errors import BusError, Unavailable
from bus.messaging.envelope import Envelope

__all__ = ["SERVICE_SECONDS", "Mode", "Server"]

SERVICE_SECONDS = 0.05
"""Mean time of the handler. A single call takes from half to one and a half of it."""

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
        self, capacity: float, seed: int, behaviour: Callable[[float], Mode] = lambda _: "works"
    ) -> None:
        """Create a server.

        Args:
            capacity: Requests that it can handle in a second.
            seed: Seed of the random times of its handler.
            behaviour: Function that returns its behaviour at a time.
        """
        self._slots = max(1, round(capacity * SERVICE_SECONDS))
        self._seconds = self._slots / capacity
        self._random = random.Random(seed)  # noqa: S311 - a model, not a secret
        self._queue: deque[Waiting] = deque()
        self._loop = asyncio.get_running_loop()
        self._behaviour = behaviour
        self.received = 0
        """Requests that have arrived, with all repetitions."""

    def receive(self, envelope: Envelope, reply: "asyncio.Future[Envelope]") -> None:
        """Put a request into the queue, and start its handler if a slot is free."""
        self.received += 1
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
        self._slots -= 1
        seconds = self._seconds * self._random.uniform(0.5, 1.5)
        self._loop.call_later(seconds, self._finish, waiting)

    def _finish(self, waiting: Waiting) -> None:
        self._slots += 1
        if not waiting.reply.done():
            waiting.reply.set_result(waiting.envelope)
        self._start_waiting()


def fail(reply: "asyncio.Future[Envelope]", error: BusError) -> None:
    """Answer with an error of the service, as `check_reply` raises it at the caller."""
    if not reply.done():
        error.origin = "service"
        reply.set_exception(error)
