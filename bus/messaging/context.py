"""Context: the message that is being handled now, and the interfaces that handlers use.

Messages that a handler sends inherit correlation, causation, trace, deadline and criticality from
the message that it handles.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, overload

from pydantic import ValidationError

from bus.contracts.contract import Event, Job, JobClass, Message, Request
from bus.contracts.criticality import Criticality
from bus.errors import BusError, InvalidArgument
from bus.messaging.cancellation import Cancellation
from bus.messaging.envelope import MAX_TEXT_LENGTH, Envelope, Progress
from bus.messaging.idempotency import idempotency_key
from bus.messaging.jobs.status import JobStatus
from bus.messaging.progress_bounds import bound_progress

__all__ = [
    "Context",
    "JobHandle",
    "Sender",
    "correlated",
    "correlation",
    "correlation_of",
    "current",
    "handling",
]

R = TypeVar("R", bound=Message | None)
R_co = TypeVar("R_co", covariant=True)


class JobHandle(Protocol[R_co]):
    """Handle of a submitted job. It provides the job's progress and result.

    The handle receives updates until its bus is closed. The job continues also after that. If the
    service of the job has a durable store, `Bus.job` returns another handle in any process.

    >>> handle = await bus.submit(CloseMonth(month=month))
    >>> async for update in handle.updates():
    ...     print(f"{update.progress:.0%} {update.note}")
    >>> summary = await handle.result()
    """

    @property
    def id(self) -> str:
        """Message id of the job."""
        ...

    @property
    def type(self) -> str:
        """Type of the job, `<name>.v<version>`."""
        ...

    async def status(self) -> JobStatus:
        """Ask the service of the job for its state. The service must have a durable store.

        Raises:
            NotFound: The service has no such job. Or this service has not submitted the job, and
                has no right to read it.
            FailedPrecondition: The job with this id has another type.
            Unavailable: The service does not answer in time, or has no durable store. Or one of its
                instances has not recorded yet what it received, and can hold the job.
        """
        ...

    async def cancel(self, *, reason: str = "") -> JobStatus:
        """Request the cancellation of the job, and return its state after that.

        A job that waits is cancelled at once. A running handler is asked to end, and is cancelled
        after a grace period. A job that has ended does not change.

        Args:
            reason: Text for operators, at most 200 characters.

        Raises:
            ConfigurationError: The reason is not a text, or is too long.
            BusError: One of the errors of `status`.
        """
        ...

    def updates(self, *, after: int = 0) -> AsyncIterator[Progress]:
        """Yield the progress updates of the job, until the job ends.

        Args:
            after: Number of the last update that the caller knows. Only later ones are yielded.

        Raises:
            ConfigurationError: `after` is not a whole number from 0.
            ConnectionLost: The bus was closed before the job ended.
            DeadlineExceeded: No valid update arrived for the number of seconds in the setting
                `message_ttl`. If an update was rejected, the text has the reason.
        """
        ...

    async def result(self, *, timeout: float | None = None) -> R_co:
        """Wait for the result of the job.

        Args:
            timeout: Seconds to wait. The default is the setting `message_ttl`, the time until a job
                expires.

        Returns:
            The result of the handler.

        Raises:
            BusError: The error of the last attempt. Its error code determines its class. Or one of
                the errors of `status`, for a handle of `Bus.job`.
            Cancelled: The job was cancelled. The text has the reason.
            DeadlineExceeded: No valid result arrived in time. If an update was rejected, the text
                has the reason. Otherwise the job continues.
            ConnectionLost: The bus was closed before the job ended. The job continues.
        """
        ...


class Sender(Protocol):
    """Interface of `context.bus`, by which a handler sends messages.

    A `Bus` implements it, so a function that takes a `Sender` works inside and outside handlers.
    """

    @overload
    async def request(
        self,
        request: Request[R],
        *,
        timeout: float | None = None,
        wait_for_service: bool = False,
        fallback: R | None = None,
    ) -> R: ...
    @overload
    async def request(
        self,
        request: Request[R],
        *,
        timeout: float | None = None,
        wait_for_service: bool = False,
        fallback: Callable[[BusError], R | None],
    ) -> R: ...
    async def request(
        self,
        request: Request[R],
        *,
        timeout: float | None = None,
        wait_for_service: bool = False,
        fallback: R | Callable[[BusError], R | None] | None = None,
    ) -> R:
        """Send a request, and wait for its reply.

        Args:
            request: Request to send.
            timeout: Seconds to wait for the reply. The default is the timeout of the service in the
                setting `services`, or the setting `request_timeout`.
            wait_for_service: True to wait within the timeout until a service serves the request.
            fallback: A reply to return if the service or the broker does not work, or a function
                that receives the error and returns a reply. It replaces errors with the code
                `unavailable`, `resource_exhausted` or `deadline_exceeded`.

        Returns:
            The reply. The request's class specifies its type.

        Raises:
            BusError: The error of the handler. Its error code determines its class. The handler may
                have acted before it raised the error.
            NotServed: No service has served the contract for a minute. The error is raised without
                a wait for the timeout, unless `wait_for_service` is true.
            PermissionDenied: This service has no grant for the contract.
            DeadlineExceeded: No reply arrived in time.
            ConnectionLost: The connection was lost before the reply arrived. `maybe_executed` is
                true.
            Unavailable: The broker could not be reached. The request was not sent.
        """
        ...

    async def publish(self, event: Event, *, timeout: float | None = None) -> None:
        """Publish an event, and wait until the broker has confirmed it.

        Args:
            event: Event that belongs to this service.
            timeout: Seconds to wait for the confirm. The default is the setting `publish_timeout`.

        Raises:
            ContractError: The event belongs to another service.
            PermissionDenied: This service has no grant for the contract.
            ResourceExhausted: A queue was full until the timeout. `maybe_executed` is true.
            Unavailable: The event was certainly not sent.
            DeadlineExceeded: No confirm arrived in time. If `maybe_executed` is true, the event may
                have been published.
            ConnectionLost: The connection was lost before the confirm. `maybe_executed` is true.
        """
        ...

    async def submit(self, job: Job[R], *, timeout: float | None = None) -> JobHandle[R]:
        """Submit a job, and wait until the broker has confirmed it.

        Args:
            job: Job to submit.
            timeout: Seconds to wait for the confirm. The default is the setting `publish_timeout`.

        Returns:
            A handle that provides the job's progress and result.

        Raises:
            NotServed: No queue accepts the job.
            PermissionDenied: This service has no grant for the contract.
            ResourceExhausted: The queue was full until the timeout. `maybe_executed` is true.
            Unavailable: The job was certainly not sent.
            DeadlineExceeded: No confirm arrived in time. If `maybe_executed` is true, the job may
                have been queued.
            ConnectionLost: The connection was lost before the confirm. `maybe_executed` is true.
        """
        ...

    def job(
        self,
        job: JobClass[Any, R],
        job_id: str,
        *,
        submitter: str | None = None,
    ) -> JobHandle[R]:
        """Return the handle of a job that this or another process has submitted.

        The service of the job must have a durable store (`BUS_STORE`).

        Args:
            job: Class of the job.
            job_id: Attribute `id` of the handle that `submit` returned.
            submitter: Service that submitted the job. The default is this service.

        Raises:
            ContractError: The class has no contract, or is not a job.
            ConfigurationError: `job_id` is not a text of 1 to 1024 characters.
        """
        ...


@dataclass(slots=True, kw_only=True)
class Context:
    """Message that is being handled, and the objects that its handler can use.

    A handler receives the context in the parameter with the annotation `Context`. The class is not
    frozen, because the deadline policy shortens `deadline`.
    """

    envelope: Envelope
    """Envelope of the message. Examples of its attributes are `id`, `source` and `attempt`."""
    bus: Sender
    """Sender of the handler's own messages. They inherit correlation, causation, trace and
    criticality."""
    state: Any = None
    """Object that the lifespan of the handler's router yielded."""
    deadline: int | None = None
    """Time when the handler must end, in milliseconds since the epoch.

    Requests that the handler sends inherit this deadline.
    """
    criticality: Criticality | None = None
    """Criticality of the message. None sets no limit.

    Messages that the handler sends have at most this criticality.
    """
    report: Callable[[Progress], Awaitable[None]] | None = None
    """Function that sends progress. None if no submitter waits for progress."""
    session: Any = None
    """Session of a transactional handler, an `AsyncSession` of SQLAlchemy. None for other handlers.

    The bus commits it after the handler. The parameter with the annotation `AsyncSession` receives
    it, too.
    """
    cancellation: Cancellation | None = None
    """Request to cancel the job. None if the job cannot be cancelled."""

    @property
    def cancelled(self) -> bool:
        """True if the cancellation of the job was requested. Any thread may read it.

        The handler should then clean up and end, within `BUS_CANCEL_GRACE` seconds (10). After
        that, its task is cancelled. A handler that returns all the same has succeeded. It is
        always False for requests and events, and for jobs of a service without a store.
        """
        return self.cancellation is not None and self.cancellation.is_requested

    async def wait_cancelled(self) -> None:
        """Wait until the cancellation of the job is requested, without a time limit."""
        await (self.cancellation or Cancellation()).wait()

    @property
    def idempotency_key(self) -> str:
        """Key for the writes of this handler: 64 hexadecimal digits.

        The key is the same if the message is redelivered, retried or replayed. Another handler,
        sender or message id has another key. `uuid5(NAMESPACE, context.idempotency_key)` derives a
        UUID from it.

        The message id alone is not a safe key, because another service can send a message with the
        same id. With `BUS_AUTH=off` nothing proves the sender, so any client can repeat a key.
        """
        return idempotency_key(self.envelope)

    async def progress(self, progress: float, note: str = "") -> None:
        """Send the progress of the job to its submitter.

        A failure of this method never fails the job. Progress that cannot be sent is dropped.

        Args:
            progress: Completed part of the work, from 0 to 1. Another number becomes the nearest
                of these.
            note: Text for the submitter. It is cut after 1024 characters.
        """
        if self.report is not None:
            try:
                update = bound_progress(Progress(progress=progress, note=note))
            except ValidationError:
                return  # The value is invalid, for example NaN, which JSON cannot express.
            await self.report(update)


current: ContextVar[Context | None] = ContextVar("bus.current", default=None)
correlation: ContextVar[str | None] = ContextVar("bus.correlation", default=None)


def correlation_of(envelope: Envelope) -> str:
    """Return the correlation id that a message gets when it is sent now."""
    context = current.get()
    if context is not None:
        return context.envelope.correlation_id or context.envelope.id
    return envelope.correlation_id or correlation.get() or envelope.id


@contextmanager
def handling(context: Context) -> Iterator[Context]:
    """Set the current context inside the block.

    The message of the context is the cause of all messages that are sent inside the block.
    """
    token = current.set(context)
    try:
        yield context
    finally:
        current.reset(token)
        # An asyncio task that the handler started can run longer than the handler. Messages from
        # that task still name the handled message as their cause. They have no deadline.
        context.deadline = None


@contextmanager
def correlated(correlation_id: str) -> Iterator[str]:
    """Set the correlation id of messages that are sent inside the block.

    The block has no effect in a handler, because messages that a handler sends inherit the
    correlation id of the message that it handles.

    Args:
        correlation_id: Text of at most 1024 characters.

    Raises:
        InvalidArgument: The text is too long, or contains a lone surrogate.
    """
    if len(correlation_id) > MAX_TEXT_LENGTH or not _is_unicode(correlation_id):
        raise InvalidArgument(
            f"the correlation id is not valid Unicode of at most {MAX_TEXT_LENGTH} characters. "
            f"Pass another text."
        )
    token = correlation.set(correlation_id)
    try:
        yield correlation_id
    finally:
        correlation.reset(token)


def _is_unicode(text: str) -> bool:
    """Return True if the text has no lone surrogate."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
