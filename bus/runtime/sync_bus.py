"""`SyncBus`: the bus for synchronous callers, such as a view of Django or Flask.

The file has no second implementation of the bus. Each method calls the method of a `Bus` that is
open in a background loop.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from operator import attrgetter
from types import TracebackType
from typing import Any, NoReturn, Self, TypeVar, overload

from bus.contracts.contract import (
    Event,
    Job,
    JobClass,
    Kind,
    Message,
    Request,
    check_part,
    contract_of,
)
from bus.errors import BusError, Unavailable
from bus.messaging.context import JobHandle
from bus.messaging.control import ALL, Answer, Question, Target
from bus.messaging.fallback import check_fallback, is_covered, reply_of
from bus.messaging.handler import Middleware
from bus.messaging.service_info import InstanceState
from bus.runtime.background_loop import UNLIMITED_SECONDS
from bus.runtime.bus import Bus
from bus.runtime.bus_arguments import check_bus_arguments
from bus.runtime.client_arguments import check_call
from bus.runtime.job_arguments import check_job
from bus.runtime.sync_job_handle import SyncJobHandle
from bus.runtime.sync_session import Session, changing, refuse_event_loop
from bus.settings import Settings

__all__ = ["SyncBus", "sessions_from"]

R = TypeVar("R", bound=Message | None)
S = TypeVar("S", bound=InstanceState)

PUBLISH_TIMEOUT: Callable[[Settings], float] = attrgetter("publish_timeout")


class SyncBus:
    """The object with which synchronous code sends requests, events and jobs.

    Create one object in each process, at the level of a module, and use it in all threads. The
    first call reads the settings, starts a background thread, and connects. The connection is
    closed by `close`, at the end of a `with` block, or when the interpreter exits.

    A forked process does not use the connection of its parent. It opens a connection of its own at
    its first call. In a thread with a running event loop, each call raises `FailedPrecondition`,
    because it would block the loop: use `Bus` there.

    >>> bus = SyncBus("website")
    >>> transcript = bus.request(GetTranscript(transcript_id=id), timeout=2)
    """

    def __init__(
        self,
        service: str,
        *,
        settings: Settings | None = None,
        client: Sequence[Middleware] | None = None,
    ) -> None:
        """Create a bus that is not connected yet.

        Args:
            service: The name of this service.
            settings: The settings; by default the first call reads them from the environment.
            client: The middlewares for messages that this service sends; by default `CLIENT`.

        Raises:
            ContractError: `service` is not a valid name.
            ConfigurationError: An argument has a wrong type.
        """
        check_bus_arguments(service, {"settings": settings, "client": client})
        check_part(service, "service")
        self.service = service
        self._subject = f"the SyncBus of {service!r}"
        self._new_session: Callable[[], Session] = lambda: Session(
            service, lambda: Bus(service, settings=settings, client=client)
        )
        self._session: Session | None = None
        self._is_closed = False

    @overload
    def request(
        self,
        request: Request[R],
        *,
        timeout: float | None = None,
        wait_for_service: bool = False,
        fallback: R | None = None,
    ) -> R: ...
    @overload
    def request(
        self,
        request: Request[R],
        *,
        timeout: float | None = None,
        wait_for_service: bool = False,
        fallback: Callable[[BusError], R | None],
    ) -> R: ...
    def request(
        self,
        request: Request[R],
        *,
        timeout: float | None = None,
        wait_for_service: bool = False,
        fallback: R | Callable[[BusError], R | None] | None = None,
    ) -> R:
        """Send a request, and wait for its reply.

        Args:
            request: The request to send.
            timeout: Seconds to wait for the reply, and for the connection if this is the first
                call. The default is the timeout of the service in the setting `services`, or the
                setting `request_timeout`. In a thread that a handler has started with
                `asyncio.to_thread`, the deadline of the handler applies as well.
            wait_for_service: True to wait within the timeout until a service serves the request.
            fallback: A reply to return if the service or the broker does not work, or a function
                that receives the error and returns a reply. It replaces errors with the code
                `unavailable`, `resource_exhausted` or `deadline_exceeded`.

        Returns:
            The reply, of the type that the request's class specifies.

        Raises:
            BusError: One of the errors of `Bus.request`, or of `async with Bus(…)` at the first
                call.
            FailedPrecondition: An event loop runs in this thread.
            Unavailable: The bus was closed. Or no connection was open in time, and the request was
                not sent.
        """
        self._check(request, "request", timeout)
        session, contract = self._current(), contract_of(type(request))
        in_loop = None
        if fallback is not None:
            check_fallback(fallback, contract)
            in_loop = _raise
        try:
            return session.run(
                lambda bus, left: bus.request(
                    request, timeout=left, wait_for_service=wait_for_service, fallback=in_loop
                ),
                timeout,
                lambda settings: settings.timeout_of(contract.service),
            )
        except BusError as error:
            if fallback is None or not is_covered(error):
                raise
            # In this thread: a function that blocks must not stop the loop of all threads.
            return reply_of(fallback, contract, error)

    def publish(self, event: Event, *, timeout: float | None = None) -> None:
        """Publish an event, and wait until the broker has confirmed it.

        Args:
            event: An event of this service.
            timeout: Seconds to wait for the confirm, and for the connection if this is the first
                call. The default is the setting `publish_timeout`.

        Raises:
            BusError: One of the errors of `Bus.publish`, or of `async with Bus(…)` at the first
                call.
            FailedPrecondition: An event loop runs in this thread.
            Unavailable: The bus was closed. Or no connection was open in time, and the event was
                not sent.
        """
        self._check(event, "event", timeout)
        self._current().run(
            lambda bus, left: bus.publish(event, timeout=left), timeout, PUBLISH_TIMEOUT
        )

    def submit(self, job: Job[R], *, timeout: float | None = None) -> SyncJobHandle[R]:
        """Submit a job, and wait until the broker has confirmed it.

        Args:
            job: The job to submit.
            timeout: Seconds to wait for the confirm, and for the connection if this is the first
                call. The default is the setting `publish_timeout`.

        Returns:
            A handle, from which the caller reads the job's progress and result.

        Raises:
            BusError: One of the errors of `Bus.submit`, or of `async with Bus(…)` at the first
                call.
            FailedPrecondition: An event loop runs in this thread.
            Unavailable: The bus was closed. Or no connection was open in time, and the job was not
                sent.
        """
        self._check(job, "job", timeout)
        session = self._current()
        handle = session.run(
            lambda bus, left: bus.submit(job, timeout=left), timeout, PUBLISH_TIMEOUT
        )
        return SyncJobHandle(handle, session, self)

    def job(
        self, job: JobClass[Any, R], job_id: str, *, submitter: str | None = None
    ) -> SyncJobHandle[R]:
        """Return the handle of a job that this or another process has submitted.

        The handle asks the service of the job, which must have a durable store (`BUS_STORE`). The
        first call connects. The method sends nothing else, so it does not check that the job
        exists.

        Args:
            job: The class of the job.
            job_id: The attribute `id` of the handle that `submit` returned.
            submitter: The service that submitted the job; by default this service. Another service
                needs the right `jobs = ["read:<name>"]` or `["cancel:<name>"]` in `grants.toml`.

        Raises:
            BusError: One of the errors of `Bus.job`, or of `async with Bus(…)` at the first call.
            FailedPrecondition: An event loop runs in this thread.
            Unavailable: The bus was closed.
        """
        check_job(job, job_id, submitter or self.service)
        session = self._current()

        async def handle_of(bus: Bus) -> JobHandle[R]:
            return bus.job(job, job_id, submitter=submitter)

        handle = session.run(lambda bus, _: handle_of(bus), None, lambda _: UNLIMITED_SECONDS)
        return SyncJobHandle(handle, session, self)

    def ask(
        self,
        question: Question[S],
        target: Target = ALL,
        *,
        window: float = 1.0,
        expected: int | None = None,
    ) -> list[Answer[S]]:
        """Ask live instances, and return the answers that arrive within the window.

        It needs the rights of `Bus.discovery`. There are no announcements for synchronous code.

        Args:
            question: The question, for example `Ping()`.
            target: The instances that answer.
            window: Seconds to wait for answers. The time to connect at the first call is not
                included.
            expected: Number of answers after which the wait ends early.

        Raises:
            BusError: One of the errors of `Asker.ask`, or of `async with Bus(…)` at the first call.
            FailedPrecondition: An event loop runs in this thread.
            Unavailable: The bus was closed.
        """
        return self._current().run(
            lambda bus, _: bus.discovery.ask(question, target, window=window, expected=expected),
            None,
            lambda _: UNLIMITED_SECONDS,
        )

    def close(self) -> None:
        """Close the connection. A call of another thread that is in flight raises an error.

        After that, a call raises `Unavailable` until `with bus:` opens the bus again.
        """
        with changing:
            session, self._session, self._is_closed = self._session, None, True
        if session is not None:
            session.stop()

    def __enter__(self) -> Self:
        """Connect to the broker. The errors are those of `async with Bus(…)`.

        If this fails, a bus that was open before stays open.

        Raises:
            FailedPrecondition: An event loop runs in this thread. The bus stays as it was.
        """
        refuse_event_loop(self._subject)
        with changing:
            before, was_closed = self._session, self._is_closed
            self._is_closed = False
            try:
                session = self._current()
            except BaseException:
                self._is_closed = was_closed
                raise
        try:
            session.connect()
        except BaseException:
            if session is not before:
                self._undo(session, was_closed=was_closed)
            raise
        return self

    def _undo(self, session: Session, *, was_closed: bool) -> None:
        """Close a session that `__enter__` has opened, unless another thread uses it already."""
        with changing:
            if self._session is not session or session.loop.is_in_use:
                return
            self._session, self._is_closed = None, was_closed
        session.stop()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self) -> None:
        session = getattr(self, "_session", None)
        if session is not None and session.loop.is_running:
            session.loop.stop_soon()
            warnings.warn(
                f"{self._subject} was not closed. Call close(), or keep one object "
                "in each process.",
                ResourceWarning,
                source=self,
                stacklevel=2,
            )

    def _check(self, message: Message, kind: Kind, timeout: float | None) -> None:
        """Check the arguments of a call before it connects. An open bus checks them itself."""
        session = self._session
        if session is None or not session.is_open:
            check_call(self.service, message, kind, timeout)

    def _current(self) -> Session:
        """Return the session of this process, and create it at the first call."""
        refuse_event_loop(self._subject)
        session = self._session
        if session is not None and session.loop.is_running:
            return session
        with changing:
            session = self._session
            if session is None or not session.loop.is_running:
                if self._is_closed:
                    raise Unavailable(
                        f"{self._subject} was closed. Enter it again with `with "
                        "bus:`, or use it before it is closed."
                    )
                session = self._session = self._new_session()
        return session


def _raise(error: BusError) -> NoReturn:
    """Raise the error. In the loop, this fallback only lets the bus count the fallback."""
    raise error


@contextmanager
def sessions_from(bus: SyncBus, create: Callable[[], Session]) -> Iterator[None]:
    """Let a bus open its sessions by another function inside the block.

    The kit of tests uses this, so that a bus of the code under test connects to a broker in memory.
    """
    before = bus.__dict__.copy()
    bus.__dict__.update(_new_session=create, _session=None, _is_closed=False)
    try:
        yield
    finally:
        bus.__dict__.update(before)
