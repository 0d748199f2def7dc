"""`Bus`: a service's connection to the other services."""

import asyncio
import os
import secrets
import socket
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Self, TypeVar

from bus.contracts.contract import Event, Job, Message, Request, check_part
from bus.errors import ConfigurationError
from bus.messaging.context import JobHandle
from bus.messaging.handler import Middleware
from bus.messaging.ports.inbox import Inbox
from bus.messaging.ports.transport import ConsumerHandle, Transport
from bus.messaging.topology.declarations import BASE_EXCHANGES
from bus.messaging.topology.names import dead_letter_queue
from bus.middleware.stacks import client_stack, server_stack, with_security
from bus.operations.dead_letters import (
    EVERYTHING,
    DeadLetter,
    PurgeReport,
    ReplayOptions,
    ReplayReport,
    Selection,
    browse,
    purge,
    replay,
)
from bus.runtime.client import Client
from bus.runtime.router import Router
from bus.runtime.security import operator_signer, security_from_settings
from bus.runtime.server import Server, wait_ready
from bus.runtime.service_runtime import ServiceRuntime
from bus.settings import Settings, load_settings
from bus.storage.memory.inbox import MemoryInbox
from bus.transports.rabbitmq import RabbitMQTransport

__all__ = ["Bus"]

R = TypeVar("R", bound=Message | None)


class Bus:
    """A service's connection to the other services.

    It sends requests, events and jobs, and serves a router.

    >>> async with Bus("documentation") as bus:
    ...     transcript = await bus.request(GetTranscript(transcript_id=id), timeout=2)
    """

    def __init__(  # noqa: PLR0913 - all options of a bus, by keyword
        self,
        service: str,
        *,
        settings: Settings | None = None,
        transport: Transport | None = None,
        client: Sequence[Middleware] | None = None,
        server: Sequence[Middleware] | None = None,
        inbox: Inbox | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Create a bus that is not connected yet.

        Args:
            service: The name of this service.
            settings: The settings; by default they are read from the environment.
            transport: The transport; by default RabbitMQ at the setting `url`.
            client: The client's stack; by default `CLIENT`.
            server: The server's stack; by default `SERVER`.
            inbox: The store of handled messages; by default the memory of this process.
            clock: A function that returns seconds since the epoch.

        Raises:
            ContractError: `service` is not a valid name.
            ConfigurationError: A setting is invalid or missing.
        """
        check_part(service, "service")
        self.service = service
        self.settings = settings or load_settings()
        self.instance = f"{socket.gethostname()[:30]}-{os.getpid()}-{secrets.token_hex(6)}"
        self._clock = clock
        self._transport = transport or RabbitMQTransport(self.settings, name=service, clock=clock)
        self._security = security_from_settings(service, self.settings, clock=clock)
        runtime = ServiceRuntime(
            service=service,
            transport=self._transport,
            settings=self.settings,
            instance=self.instance,
            security=self._security,
            inbox=MemoryInbox() if inbox is None else inbox,  # an empty inbox is falsy
            clock=clock,
        )
        layers = client_stack(clock=clock) if client is None else client
        self._client = Client(runtime, with_security(layers, self._security))
        limits = {"leeway": self.settings.clock_leeway, "longest": self.settings.request_timeout}
        stack = server_stack(clock=clock, **limits) if server is None else server
        self._server = Server(runtime, stack, self)
        self._consumers: list[ConsumerHandle] = []
        self._changing = 0
        """The number of `serving` blocks that are starting or stopping."""

    async def __aenter__(self) -> Self:
        """Connect.

        Raises:
            Unavailable: The connection was not open within the setting `connect_timeout`, or the
                reply consumer was not ready within the setting `start_timeout`.
            Unauthenticated: The broker refused the user.
        """
        try:
            await self._security.identity.start()
            await self._transport.start(self._client.replies, timeout=self.settings.connect_timeout)
            if self.settings.topology == "verify":
                # Report a missing exchange at once. Without this check, the reply consumer would
                # retry until `start_timeout`.
                await self._transport.declare(BASE_EXCHANGES)
            self._consumers = [await self._client.start()]
            await wait_ready(self._consumers, self.settings.start_timeout)
        except BaseException:
            await self._close()
            raise
        return self

    async def _close(self) -> None:
        await self._transport.close()
        await self._security.identity.close()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            await self._close()
        finally:
            self._client.replies.close()  # each caller that still waits receives an error

    @property
    def ready(self) -> bool:
        """True if every consumer is registered, and no `serving` block is starting or stopping."""
        return (
            not self._changing
            and bool(self._consumers)
            and all(consumer.ready for consumer in self._consumers)
        )

    async def request(self, request: Request[R], *, timeout: float | None = None) -> R:
        """Send a request, and wait for its reply. `Client.request` lists the errors."""
        return await self._client.request(request, timeout=timeout)

    async def publish(self, event: Event, *, timeout: float | None = None) -> None:
        """Publish an event, and wait for the broker's confirm.

        `Client.publish` lists the errors.
        """
        await self._client.publish(event, timeout=timeout)

    async def submit(self, job: Job[R], *, timeout: float | None = None) -> JobHandle[R]:
        """Submit a job, and wait for the broker's confirm. `Client.submit` lists the errors."""
        return await self._client.submit(job, timeout=timeout)

    async def dead_letters(
        self, queue: str, selection: Selection = EVERYTHING, *, limit: int = 100
    ) -> list[DeadLetter]:
        """Return dead letters of a work queue, the oldest first, and leave them in their queue.

        At most 10,000 dead letters are inspected. The attribute `record` of a dead letter contains
        the cause.

        Args:
            queue: The work queue.
            selection: The filter for dead letters. The default returns all.
            limit: The maximum number of dead letters to return.

        Raises:
            NotFound: The queue has no dead-letter queue.
            ConnectionLost: The connection was lost while the dead letters were read.
        """
        return await browse(self._transport, queue, selection, limit=limit)

    async def replay(
        self,
        queue: str,
        selection: Selection = EVERYTHING,
        *,
        extend: float | None = None,
        reason: str | None = None,
        rate: float | None = None,
    ) -> ReplayReport:
        """Move dead letters back into their work queue, where they start again at attempt 1.

        The bus acks a dead letter after the broker has confirmed its copy in the work queue. If the
        process ends during the replay, no message is lost, and at most 100 are duplicated. If an
        error ends the replay early, the report contains this error.

        Args:
            queue: The work queue.
            selection: The filter for dead letters. The default moves all.
            extend: Seconds from now in which expired messages may still be handled. Without
                `extend`, expired messages stay in the dead-letter queue.
                An extension requires an operator's key (`BUS_OPERATOR_KEY`) unless `BUS_AUTH` is
                off, and is possible at most three times for each message.
            reason: The reason of the extension, which is recorded on each message.
            rate: The maximum number of messages to move per second.
        """
        countersign = None
        if extend is not None:
            countersign = await operator_signer(
                self.settings, actor=self.instance, reason=reason, clock=self._clock
            )
        options = ReplayOptions(
            by=self.instance,
            extend=extend,
            countersign=countersign,
            rate=rate,
            clock=self._clock,
        )
        return await replay(self._transport, dead_letter_queue(queue), selection, how=options)

    async def purge(self, queue: str, selection: Selection) -> PurgeReport:
        """Delete dead letters of a work queue permanently.

        Args:
            queue: The work queue.
            selection: The filter for dead letters. `EVERYTHING` deletes all.

        Raises:
            NotFound: The queue has no dead-letter queue.
        """
        return await purge(self._transport, dead_letter_queue(queue), selection)

    @asynccontextmanager
    async def serving(self, router: Router) -> AsyncIterator[None]:
        """Serve a router inside the block. The block starts when every consumer is ready.

        At the end of the block the consumers stop, and messages that have not started are requeued.
        Running handlers may finish within the setting `stop_grace`. After that they are cancelled,
        and the broker delivers their messages again.

        Raises:
            ConfigurationError: The router belongs to another service, or the settings, the grants
                or the broker do not meet the router's requirements.
        """
        if router.name != self.service:
            raise ConfigurationError(
                f"the router belongs to the service {router.name!r}, but the bus to "
                f"{self.service!r}. Serve the router with a bus of the same name."
            )
        await self._server.check(router)
        self._changing += 1
        try:
            async with self._server.consuming(router) as consumers:
                self._consumers += consumers
                self._changing -= 1
                try:
                    yield
                finally:
                    self._changing += 1
                    self._consumers = [each for each in self._consumers if each not in consumers]
        finally:
            self._changing -= 1

    async def serve(self, router: Router, *, until: asyncio.Event | None = None) -> None:
        """Serve a router until `until` is set or this task is cancelled, and then stop cleanly."""
        async with self.serving(router):
            await (until or asyncio.Event()).wait()
