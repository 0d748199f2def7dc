"""`Bus`: the object with which a service sends messages and serves its router."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, Self, TypeVar, cast, overload

from bus.contracts.contract import Event, Job, JobClass, Message, Request, check_part
from bus.contracts.limits import check_count, check_seconds
from bus.errors import BusError, ConfigurationError
from bus.messaging.context import JobHandle
from bus.messaging.debug_switch import log_tracebacks
from bus.messaging.handler import Middleware
from bus.messaging.ports.inbox import Inbox
from bus.messaging.ports.store import Store
from bus.messaging.ports.transport import ConsumerHandle, Transport
from bus.messaging.topology.declarations import BASE_EXCHANGES
from bus.messaging.topology.names import dead_letter_queue
from bus.middleware.stacks import client_stack, with_spans
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
from bus.runtime.bus_arguments import check_bus_arguments, check_router
from bus.runtime.chaos_orders import SETTINGS, SETTINGS_REASON, check_chaos_targets
from bus.runtime.client import Client
from bus.runtime.consumer_pauses import add_consumer_orders
from bus.runtime.discovery.asker import Asker
from bus.runtime.discovery.discovery import discovery_of
from bus.runtime.forking import protect_parent
from bus.runtime.instance_report import InstanceReport, State
from bus.runtime.life_cycle import LifeCycle, running_loop
from bus.runtime.router import Router
from bus.runtime.security import operator_signer, security_from_settings
from bus.runtime.server import Server, wait_ready
from bus.runtime.service_names import check_configured_services
from bus.runtime.service_parts import build_runtime, default_server_stack, order_executor
from bus.runtime.store_life import StoreLife
from bus.settings import Settings, load_settings
from bus.storage.configured_store import configured_store
from bus.storage.memory.inbox import MemoryInbox
from bus.transports.rabbitmq import RabbitMQTransport

__all__ = ["Bus"]

R = TypeVar("R", bound=Message | None)


class Bus:
    """The object with which a service sends requests, events and jobs, and serves its router.

    A bus belongs to the event loop that enters it. After its block, it can be entered again, also
    in another event loop. Outside of its block, each operation raises `Unavailable`. In another
    event loop, each operation raises `FailedPrecondition`.

    >>> async with Bus("documentation") as bus:
    ...     transcript = await bus.request(GetTranscript(transcript_id=id), timeout=2)
    """

    def __init__(  # noqa: PLR0913 - the choices of a user, each a keyword
        self,
        service: str,
        *,
        settings: Settings | None = None,
        transport: Transport | None = None,
        client: Sequence[Middleware] | None = None,
        server: Sequence[Middleware] | None = None,
        inbox: Inbox | None = None,
        store: Store | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Create a bus that is not connected yet.

        Args:
            service: The name of this service.
            settings: The settings; by default they are read from the environment.
            transport: The transport; by default RabbitMQ at the setting `url`.
            client: The middlewares for messages that this service sends; by default `CLIENT`.
            server: The middlewares for messages that this service handles; by default `SERVER`.
            inbox: The store of handled messages; by default the memory of this process.
            store: The durable store; by default the one in the setting `store`. The bus opens it
                when it serves a router.
            clock: A function that returns seconds since the epoch.

        Raises:
            ContractError: `service` is not a valid name.
            ConfigurationError: A setting is invalid or missing, or an argument has a wrong type.
        """
        check_bus_arguments(
            service,
            {
                "settings": settings,
                "transport": transport,
                "client": client,
                "server": server,
                "inbox": inbox,
                "store": store,
                "clock": clock,
            },
        )
        check_part(service, "service")
        self.service = service
        self.settings = settings or load_settings()
        self._clock = clock
        self._transport = transport or RabbitMQTransport(self.settings, name=service, clock=clock)
        self._security = security_from_settings(service, self.settings, clock=clock)
        # `inbox or MemoryInbox()` would replace an empty inbox, because it is falsy.
        self._inbox = MemoryInbox() if inbox is None else inbox
        self._store = (
            configured_store(self.settings, service, clock=None if clock is time.time else clock)
            if store is None
            else store
        )
        self._client_layers = client_stack(clock=clock) if client is None else client
        self._server_layers = (
            default_server_stack(self.settings, clock) if server is None else server
        )
        self._life = LifeCycle(service)
        self._build()

    def _build(self) -> None:
        """Create the parts that belong to one connection."""
        runtime = build_runtime(
            self.service,
            self.settings,
            self._transport,
            security=self._security,
            inbox=self._inbox,
            store=self._store,
            clock=self._clock,
        )
        self.instance = runtime.instance
        self._store_life = StoreLife(self._store, self.settings, self.service)
        self._started: float | None = None
        self._report = InstanceReport(
            runtime,
            started=lambda: self._started,
            state=lambda: self._state,
            consumers=lambda: self._server.consumers,
        )
        self._chaos = runtime.chaos
        self._has_begun_chaos = False
        orders = order_executor(runtime, self._report.state, self._served_types)
        self._discovery = discovery_of(runtime, self._report, orders.execute)
        self._client = Client(runtime, with_spans(self._client_layers, runtime.spans))
        if self.settings.discovery == "on":
            self._client.waits.listener.announcements = self._discovery.announcements
        self._server = Server(runtime, self._server_layers, self)
        add_consumer_orders(orders, self._server.pauses)
        self._consumers: list[ConsumerHandle] = []
        self._changing = 0
        """The number of `serving` blocks that are starting or stopping."""
        self._stopping = 0
        """The number of `serving` blocks that are stopping."""
        self._has_announced_stop = False

    async def __aenter__(self) -> Self:
        """Connect to the broker, and start to receive replies.

        Raises:
            Unavailable: The connection was not open within `connect_timeout` seconds for each host.
                Or the consumer of replies was not ready within `start_timeout` seconds.
            Unauthenticated: Every host of the broker refused the user name or the password.
            FailedPrecondition: The bus is open already, or is opening or closing.
        """
        if self._life.begin():
            self._build()
        protect_parent()
        self._started = self._clock()
        try:
            await self._security.identity.start()
            check_configured_services(self.settings.registry, self.service, self._security.identity)
            with log_tracebacks(enabled=self.settings.debug):
                await self._transport.start(
                    self._client.replies, timeout=self.settings.connect_timeout
                )
            if self.settings.topology == "verify":
                # If an exchange is missing, this check raises an error immediately. Without the
                # check, the consumer of replies would retry until `start_timeout`.
                await self._transport.declare(BASE_EXCHANGES)
            with log_tracebacks(enabled=self.settings.debug):
                self._consumers = [await self._client.start()]
            await wait_ready(self._consumers, self.settings.start_timeout)
            await self._discovery.start()
        except BaseException:
            await self._close()
            raise
        self._life.opened()
        return self

    def _served_types(self) -> list[str]:
        return [each.state.endpoint.contract.type for each in self._server.consumers]

    async def _close(self) -> None:
        self._chaos.stop("the bus closes")
        self._client.replies.begin_close()
        try:
            try:
                await self._discovery.close()
            finally:  # also if this task is cancelled
                await self._transport.close()
            await self._security.identity.close()
        finally:
            self._client.close()  # callers that still wait receive an error
            try:
                await self._store_life.close()
            finally:
                self._life.closed()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._life.closing():
            self._announce_stop()
            await self._close()

    def _announce_stop(self) -> None:
        """Announce once that this process stops, when a `serving` block or the bus ends."""
        if not self._has_announced_stop:
            self._has_announced_stop = True
            self._discovery.announce("stopping")

    @property
    def discovery(self) -> Asker:
        """The object that asks live instances about their state, over the control channel.

        It asks while the bus is open. It needs the grant `control = ["read"]` with `BUS_AUTH=on`.
        """
        return self._discovery

    @property
    def ready(self) -> bool:
        """True if every consumer is registered at the broker now.

        It is False while a `serving` block starts or stops, and while a connection is refused
        because its host belongs to another cluster.
        """
        return (
            self._life.is_open
            and not self._changing
            and bool(self._consumers)
            and not self._transport.is_refused
            and all(consumer.ready for consumer in self._consumers)
        )

    @property
    def report(self) -> InstanceReport:
        """The state, the contracts, the measurements and the last messages of this bus."""
        return self._report

    @property
    def _state(self) -> State:
        if self._life.is_closing or self._stopping:
            return "draining"
        if not self._life.is_open or self._changing:
            return "starting"
        return "ready" if self.ready else "not-ready"

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
        """Send a request, and wait for its reply. `Client.request` lists the errors.

        Args:
            request: The request to send.
            timeout: Seconds to wait for the reply. The default is the timeout of the service in the
                setting `services`, or the setting `request_timeout`.
            wait_for_service: True to wait within the timeout until a service serves the request.
            fallback: A reply to return if the service or the broker does not work, or a function
                that receives the error and returns a reply. It replaces errors with the code
                `unavailable`, `resource_exhausted` or `deadline_exceeded`.
        """
        if self._life.loop is not running_loop():
            raise self._life.error()
        return await self._client.request(
            request, timeout=timeout, wait_for_service=wait_for_service, fallback=fallback
        )

    async def publish(self, event: Event, *, timeout: float | None = None) -> None:
        """Publish an event, and wait for the broker's confirm.

        `Client.publish` lists the errors.
        """
        if self._life.loop is not running_loop():
            raise self._life.error()
        await self._client.publish(event, timeout=timeout)

    async def submit(self, job: Job[R], *, timeout: float | None = None) -> JobHandle[R]:
        """Submit a job, and wait for the broker's confirm. `Client.submit` lists the errors."""
        if self._life.loop is not running_loop():
            raise self._life.error()
        return await self._client.submit(job, timeout=timeout)

    def job(
        self,
        job: JobClass[Any, R],
        job_id: str,
        *,
        submitter: str | None = None,
    ) -> JobHandle[R]:
        """Return the handle of a job that this or another process has submitted.

        The handle asks the service of the job, which must have a durable store (`BUS_STORE`). The
        method itself sends nothing, so it does not check that the job exists.

        Args:
            job: The class of the job.
            job_id: The attribute `id` of the handle that `submit` returned.
            submitter: The service that submitted the job; by default this service. Another service
                needs the right `jobs = ["read:<name>"]` or `["cancel:<name>"]` in `grants.toml`.

        Raises:
            ContractError: The class has no contract, or is not a job. Or `submitter` is not a valid
                name.
            ConfigurationError: `job_id` is not a text of 1 to 1024 characters.
            Unavailable: The bus is not open.
            FailedPrecondition: The bus belongs to another event loop.
        """
        self._life.check()
        return self._client.job(cast("type[Message]", job), job_id, submitter)

    async def dead_letters(
        self, queue: str, selection: Selection = EVERYTHING, *, limit: int = 100
    ) -> list[DeadLetter]:
        """Return dead letters of a work queue, the oldest first. Do not remove the dead letters.

        At most 10,000 dead letters are read. The attribute `record` of a dead letter has the reason
        why the message was dead-lettered.

        Args:
            queue: The work queue.
            selection: The dead letters to return.
            limit: The maximum number to return, at least 1.

        Raises:
            ConfigurationError: `limit` is not a whole number of at least 1.
            NotFound: The queue has no dead-letter queue.
            ConnectionLost: The connection was lost while the dead letters were read.
        """
        self._life.check()
        check_count(limit, "limit", queue)
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
        """Move dead letters back into their work queue. They start again at attempt 1.

        A dead letter is acked only after the broker has confirmed its copy in the work queue. If
        the process is killed, no message is lost, and at most 100 messages are duplicated. If an
        error ends the replay early, the report has the error.

        Args:
            queue: The work queue.
            selection: The dead letters to move.
            extend: Seconds from now in which services accept the expired messages of this replay.
                Without `extend`, expired messages stay dead letters. If `BUS_AUTH` is not `off`,
                `extend` requires an operator's key (`BUS_OPERATOR_KEY`), and a message can be
                extended at most three times.
            reason: The reason for the extension. Each extended message records this reason.
            rate: The maximum number of dead letters to move per second.

        Raises:
            ConfigurationError: `extend` is not a finite number of seconds above 0, or `rate` is not
                a finite number above 0.
        """
        self._life.check()
        countersign = None
        if extend is not None:
            check_seconds(extend, "extend", queue)
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
            selection: The dead letters to delete; `EVERYTHING` for all.

        Raises:
            NotFound: The queue has no dead-letter queue.
        """
        self._life.check()
        return await purge(self._transport, dead_letter_queue(queue), selection)

    @asynccontextmanager
    async def serving(self, router: Router) -> AsyncIterator[None]:
        """Serve a router inside the block. The block starts when every consumer is ready.

        At the end of the block, the consumers stop. Messages without a running handler are
        requeued. Running handlers continue for up to `stop_grace` seconds. Handlers that still run
        after this time are cancelled, and the broker delivers the messages of these handlers again.

        Raises:
            ConfigurationError: The router belongs to another service. Or the settings, grants or
                broker do not meet the requirements of the router. Or its lifespan does not return
                an async context manager.
            ContractError: The type of a field in a contract is not defined.
        """
        self._life.check()
        check_router(self.service, router)
        if router.name != self.service:
            raise ConfigurationError(
                f"the bus belongs to the service {self.service!r}, but the router belongs to "
                f"{router.name!r}. Serve the router with Bus({router.name!r})."
            )
        await self._store_life.open()
        await self._server.check(router)
        await self._store_life.compare(self._discovery)
        self._begin_chaos(router)
        self._changing += 1
        is_stopping = False
        try:
            async with self._server.consuming(router) as consumers:
                self._consumers += consumers
                self._changing -= 1
                self._has_announced_stop = False
                self._discovery.forget_info()
                self._discovery.announce("started")
                try:
                    yield
                finally:
                    self._changing += 1
                    self._stopping += 1
                    is_stopping = True
                    self._announce_stop()
                    self._consumers = [each for each in self._consumers if each not in consumers]
                    self._discovery.forget_info()
        finally:
            self._changing -= 1
            self._stopping -= is_stopping

    def _begin_chaos(self, router: Router) -> None:
        """Start the experiment in the settings, when the bus serves its first router."""
        plan = self.settings.chaos_plan
        if plan is None:
            return
        check_chaos_targets(plan, self.service, [each.type for each in router.contracts])
        if not self._has_begun_chaos:
            self._has_begun_chaos = True
            self._chaos.start(plan, by=SETTINGS, reason=SETTINGS_REASON)

    async def serve(self, router: Router, *, until: asyncio.Event | None = None) -> None:
        """Serve a router until the event `until` is set, or forever if `until` is None.

        A cancellation of `serve` also stops the service cleanly.
        """
        check_bus_arguments(self.service, {"until": until})
        async with self.serving(router):
            await (until or asyncio.Event()).wait()
