"""The work of the buses of one test: running handlers, calls in progress, and failures."""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from bus.errors import BusError
from bus.messaging.envelope import Envelope
from bus.messaging.failure_origin import mark_remote_cause
from bus.messaging.handler import Handler, Middleware
from bus.messaging.supervision import is_own_cancel

__all__ = ["Call", "HandlerRun", "Work", "chain_causes", "record_failures", "record_sent"]


@dataclass(slots=True, kw_only=True)
class HandlerRun:
    """A message that a handler is handling, or whose result is not settled yet."""

    envelope: Envelope
    began: float = field(default_factory=time.monotonic)
    has_ended: bool = False
    """True if the handler has ended, and the bus settles the message."""


@dataclass(slots=True, kw_only=True)
class Call:
    """A request, publish or submit of a bus that has not returned yet."""

    service: str
    envelope: Envelope
    began: float = field(default_factory=time.monotonic)


class Work:
    """The running handlers and calls of all buses, and what has happened until now."""

    def __init__(self, changed: Callable[[], None]) -> None:
        """Create an empty record. `changed` is called each time that some work has ended."""
        self._changed = changed
        self.runs: dict[asyncio.Task[object], HandlerRun] = {}
        """The running handlers, by the task that handles and settles the message."""
        self.calls: list[Call] = []
        self.handlers: dict[str, str] = {}
        """The name of the handler of each served queue."""
        self.failures: dict[str, BaseException] = {}
        """The last exception of a handler, by message id."""
        self.failed_types: dict[str, str] = {}
        """The types of the messages in `failures`, by message id."""
        self.sent: dict[str, Envelope] = {}
        """The messages that the buses have sent, by message id. A job keeps its first attempt."""

    @contextmanager
    def calling(self, call: Call) -> Iterator[None]:
        """Count a call inside the block."""
        self.calls.append(call)
        try:
            yield
        finally:
            self.calls.remove(call)
            self._changed()

    @contextmanager
    def handling(self, envelope: Envelope) -> Iterator[None]:
        """Count a running handler inside the block, and then until its task has ended."""
        run, task = HandlerRun(envelope=envelope), asyncio.current_task()
        if task is not None:
            self.runs[task] = run
            task.add_done_callback(self._end_run)
        try:
            yield
        finally:
            run.has_ended = True

    def _end_run(self, task: asyncio.Task[object]) -> None:
        self.runs.pop(task, None)
        self._changed()


def record_failures(work: Work) -> Middleware:
    """Return the outermost server middleware: it keeps the exceptions of the handlers."""

    def layer(inner: Handler) -> Handler:
        async def call(envelope: Envelope) -> Envelope | None:
            __tracebackhide__ = True
            with work.handling(envelope):
                try:
                    return await inner(envelope)
                except (KeyboardInterrupt, GeneratorExit):
                    raise
                except BaseException as error:
                    if isinstance(error, asyncio.CancelledError) and is_own_cancel():
                        raise  # the bus stops the handler
                    work.failures[envelope.id] = error
                    work.failed_types[envelope.id] = envelope.type
                    raise

        return call

    return layer


def chain_causes(work: Work, service: str) -> Middleware:
    """Return the outermost client middleware.

    It counts the calls of the service. If a call fails because of a handler in this process, the
    handler's exception becomes the `__cause__` of the error.
    """

    def layer(inner: Handler) -> Handler:
        async def call(envelope: Envelope) -> Envelope | None:
            __tracebackhide__ = True
            with work.calling(Call(service=service, envelope=envelope)):
                try:
                    return await inner(envelope)
                except BusError as error:
                    cause = work.failures.get(envelope.id)
                    if cause is None or error.__cause__ is not None:
                        raise
                    mark_remote_cause(error)
                    raise error from cause

        return call

    return layer


def record_sent(work: Work) -> Middleware:
    """Return the innermost client middleware: it keeps the messages that the service sends.

    A request is recorded before it is sent. An event or job is recorded when the broker has
    confirmed it.
    """

    def layer(inner: Handler) -> Handler:
        async def call(envelope: Envelope) -> Envelope | None:
            __tracebackhide__ = True
            if envelope.role == "request":
                work.sent.setdefault(envelope.id, envelope)
            reply = await inner(envelope)
            work.sent.setdefault(envelope.id, envelope)
            return reply

        return call

    return layer
