"""What is being handled now: feeds correlation, causation, trace and deadline into what is sent meanwhile."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from pydantic import ValidationError

from bus.contracts.contract import Event, Job, Message, Request
from bus.errors import InvalidArgument
from bus.messaging.envelope import MAX_TEXT_LENGTH, Envelope, Progress

__all__ = ["Context", "JobHandle", "Sender", "correlated", "correlation", "current", "handling"]

R = TypeVar("R", bound=Message | None)
R_co = TypeVar("R_co", covariant=True)


class JobHandle(Protocol[R_co]):
    """A submitted job, seen by its submitter."""

    @property
    def id(self) -> str:
        """The job's message id."""
        ...

    @property
    def type(self) -> str:
        """The job's type, `<name>.v<version>`."""
        ...

    def updates(self) -> AsyncIterator[Progress]:
        """Progress as it comes; ends with the job."""
        ...

    async def result(self, *, timeout: float | None = None) -> R_co:
        """The job's result; raises what the job raised, or `DeadlineExceeded` after `timeout` seconds."""
        ...


class Sender(Protocol):
    """What a handler can do with the bus."""

    async def request(self, request: Request[R], *, timeout: float | None = None) -> R:
        """Ask, and wait for the answer at most `timeout` seconds."""
        ...

    async def publish(self, event: Event, *, timeout: float | None = None) -> None:
        """Tell; returns when the broker has confirmed."""
        ...

    async def submit(self, job: Job[R], *, timeout: float | None = None) -> JobHandle[R]:
        """Hand over work; returns when the broker has confirmed."""
        ...


@dataclass(slots=True, kw_only=True)
class Context:
    """One message being handled. Not frozen: the deadline policy narrows `deadline`."""

    envelope: Envelope
    bus: Sender
    state: Any = None
    """What the router's lifespan yielded."""
    deadline: int | None = None
    """Milliseconds since the epoch when this handling ends; requests made meanwhile inherit it."""
    report: Callable[[Progress], Awaitable[None]] | None = None

    async def progress(self, progress: float, note: str = "") -> None:
        """Tell the submitter how far the job is, from 0 to 1. Never fails the job: progress that cannot be sent is dropped."""
        if self.report is not None:
            try:
                update = Progress(progress=progress, note=note)
            except ValidationError:
                return  # NaN, say: no number that a message can have
            await self.report(update)


current: ContextVar[Context | None] = ContextVar("bus.current", default=None)
correlation: ContextVar[str | None] = ContextVar("bus.correlation", default=None)


@contextmanager
def handling(context: Context) -> Iterator[Context]:
    """What is sent inside has `context`'s message as its cause."""
    token = current.set(context)
    try:
        yield context
    finally:
        current.reset(token)
        context.deadline = (
            None  # a task that outlives the handling has its cause, and no longer its deadline
        )


@contextmanager
def correlated(correlation_id: str) -> Iterator[str]:
    """What is sent inside, and not while handling a message, has this correlation id; `InvalidArgument` where no header could."""
    if len(correlation_id) > MAX_TEXT_LENGTH or not _is_unicode(correlation_id):
        raise InvalidArgument(f"a correlation id is a text of at most {MAX_TEXT_LENGTH} characters")
    token = correlation.set(correlation_id)
    try:
        yield correlation_id
    finally:
        correlation.reset(token)


def _is_unicode(text: str) -> bool:
    """Whether it has no lone surrogate."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
