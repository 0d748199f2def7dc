"""Requests that wait until a service serves their type (`wait_for_service=True`).

The broker returns a request that no queue accepts, so the client can safely publish it again. The
requests of one type take turns. So a thousand waiting requests cost the broker as much as one.

A request waits outside the circuit breaker and the bulkhead, and passes them at each publish. So a
waiting request holds no permit of its service, and does not prevent the probes of the breaker.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from random import uniform
from typing import Final

from bus.errors import BusError, NotServed, Unavailable
from bus.messaging.call_limits import timeout_advice
from bus.messaging.envelope import Envelope
from bus.messaging.handler import Handler
from bus.messaging.timers import format_seconds
from bus.messaging.topology.names import service_of
from bus.runtime.start_listener import StartListener

__all__ = ["ServiceWaits"]

FIRST_SECONDS, MAX_SECONDS = 0.1, 1.0
"""Maximum seconds before the first repeated publish, and before each later one."""
MIN_PART: Final = 0.5
"""Smallest part of these seconds. The wait is random, so that processes do not publish together."""
MAX_DOUBLINGS = 10
INHERITED_PART = 0.9
"""Part of its timeout below which a request has the deadline of another message."""


class ServiceWaits:
    """The requests of one client that wait until a service serves their type."""

    def __init__(self, remaining: Callable[[Envelope], float]) -> None:
        """Create the object without waiting requests.

        Args:
            remaining: Function that returns the seconds until the deadline of a request.
        """
        self._remaining = remaining
        self.ids: dict[str, float] = {}
        """The requests that wait until a service serves them: their ids, and their timeouts."""
        self.listener = StartListener(self.on_started)
        self._queues: dict[str, _WaitingQueue] = {}
        """The requests that were returned or rejected at least once, by type."""

    @contextmanager
    def waiting(self, message_id: str, seconds: float) -> Iterator[None]:
        """Let a request that is sent inside the block wait until a service serves it.

        Args:
            message_id: The id of the request.
            seconds: The timeout of the request.
        """
        self.ids[message_id] = seconds
        try:
            yield
        finally:
            del self.ids[message_id]

    def layer(self, inner: Handler) -> Handler:
        """Return a handler that lets the requests in `ids` wait. Others pass through it."""
        ids = self.ids

        def call(envelope: Envelope) -> Awaitable[Envelope | None]:
            if envelope.id in ids:
                return self._call(envelope, inner)
            return inner(envelope)

        return call

    async def _call(self, request: Envelope, send: Handler) -> Envelope | None:
        """Send a request until a service serves its type, and return the reply.

        A request that the circuit breaker rejects waits, too.

        Raises:
            NotServed: No service served the type until the deadline. The request was certainly not
                handled.
            Unavailable: The circuit breaker of the operation was open until the deadline.
            BusError: The error of the reply, or of the attempt to send the request.
        """
        seconds, remaining = self.ids[request.id], self._remaining(request)
        if remaining < seconds * INHERITED_PART:
            seconds = remaining
        result = await _attempt(request, send)
        if not isinstance(result, BusError):
            return result
        if not self._queues:
            self.listener.begin()
        queue = self._queues.setdefault(request.type, _WaitingQueue(request.type))
        queue.members += 1
        try:
            while isinstance(result, BusError):
                try:
                    async with asyncio.timeout(self._remaining(request)):
                        await queue.wait()
                except TimeoutError:
                    if isinstance(result, NotServed):
                        raise _not_started(request, seconds) from result
                    raise result from None
                result = await _attempt(request, send)
            queue.release()
            return result
        finally:
            queue.members -= 1
            if not queue.members:
                del self._queues[request.type]
            if not self._queues:
                self.listener.end()
            del result  # a reference cycle: its traceback has this frame

    @property
    def services(self) -> frozenset[str]:
        """The services for which a request waits now."""
        return frozenset(map(service_of, self._queues))

    def on_started(self, service: str) -> None:
        """Publish the waiting requests of a service at once, because the service has started."""
        for type_, queue in self._queues.items():
            if service_of(type_) == service:
                queue.release()

    def close(self) -> None:
        """Let each waiting request raise `Unavailable`, because the bus is closed."""
        self.listener.end()
        for queue in self._queues.values():
            queue.close()


async def _attempt(request: Envelope, send: Handler) -> Envelope | BusError | None:
    """Send a request, and return the reply or the error after which the request can wait.

    A request can wait if the broker has returned it, or if the circuit breaker has rejected it.
    Among the errors of this process, only that rejection has a `retry_after`.
    """
    try:
        return await send(request)
    except NotServed as error:
        return error
    except Unavailable as error:
        if error.origin != "local" or error.retry_after is None:
            raise
        return error


def _not_started(request: Envelope, seconds: float) -> NotServed:
    return NotServed(
        f"{request.type}: the service {service_of(request.type)} did not start to serve it within "
        f"{format_seconds(seconds)}. Start the service in a version that has a handler for it, or "
        f"{timeout_advice(request.limits)}."
    )


class _WaitingQueue:
    """The requests of one type that wait for their next publish.

    In each round, one request is published. If the broker has returned no request since the last
    round, the number of requests of a round doubles.
    """

    def __init__(self, type_: str) -> None:
        self.members = 0
        """The number of requests that wait here, or were published again and have no reply."""
        self._type = type_
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._rounds = 0
        self._size = 1
        self._has_returned = True
        self._timer: asyncio.TimerHandle | None = None

    async def wait(self) -> None:
        """Wait until the request may be published again.

        Raises:
            Unavailable: The bus was closed.
        """
        loop = asyncio.get_running_loop()
        turn: asyncio.Future[None] = loop.create_future()
        self._has_returned = True
        self._waiting.append(turn)
        if self._timer is None:
            self._start_timer(loop)
        try:
            await turn
        finally:
            if turn in self._waiting:  # the call was cancelled, or its deadline passed
                self._waiting.remove(turn)

    def release(self) -> None:
        """Let all requests be published again."""
        self._stop_timer()
        self._publish_next(len(self._waiting))

    def close(self) -> None:
        """Let all requests raise `Unavailable`."""
        self._stop_timer()
        for turn in self._waiting:
            if not turn.done():
                turn.set_exception(
                    Unavailable(
                        f"{self._type}: the bus was closed before a service served the request. "
                        "Send it again with an open bus."
                    )
                )

    def _publish_next(self, number: int) -> None:
        while number and self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                number -= 1

    def _start_timer(self, loop: asyncio.AbstractEventLoop) -> None:
        longest = min(MAX_SECONDS, FIRST_SECONDS * 2 ** min(self._rounds, MAX_DOUBLINGS))
        wait = uniform(MIN_PART, 1) * longest  # noqa: S311 - the number is not a secret
        self._timer = loop.call_later(wait, self._on_timer, loop)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _on_timer(self, loop: asyncio.AbstractEventLoop) -> None:
        """Publish the requests of the next round."""
        self._timer = None
        self._rounds += 1
        self._size = 1 if self._has_returned else self._size * 2
        self._has_returned = False
        self._publish_next(self._size)
        if self._waiting:
            self._start_timer(loop)
