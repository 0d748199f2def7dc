"""`Bus`, the one class that users meet."""

import asyncio
import logging
import os
import secrets
import socket
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from types import TracebackType
from typing import Any, Self, TypeVar

from bus.contracts.contract import Event, Job, Message, Request, check_part
from bus.errors import ConfigurationError, Unavailable
from bus.messaging.context import JobHandle
from bus.messaging.handler import Handler, Middleware, compose
from bus.messaging.ports.inbox import Inbox
from bus.messaging.ports.transport import ConsumerHandle, Transport
from bus.messaging.topology.declarations import BASE_EXCHANGES
from bus.messaging.topology.model import Queue, Topology, merge
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
from bus.operations.topology.verify import check_policies, no_policies, policies_on
from bus.runtime.client import Client
from bus.runtime.endpoint_consumer import EndpointConsumer
from bus.runtime.handler_timeouts import check_handler_timeouts, consumer_timeout_for
from bus.runtime.poison_isolation import PoisonIsolation
from bus.runtime.receiver import Receiver
from bus.runtime.requirements import required_by, topology_of
from bus.runtime.router import Endpoint, Router
from bus.runtime.security import cipher_from_settings, identity_from_settings, operator_signer
from bus.runtime.service_activator import ServiceActivator
from bus.runtime.settler import Settler
from bus.settings import Settings, load_settings
from bus.storage.memory.inbox import MemoryInbox
from bus.transports.rabbitmq import RabbitMQTransport

__all__ = ["Bus"]

log = logging.getLogger("bus")

R = TypeVar("R", bound=Message | None)
CANCEL_TIMEOUT_SECONDS = 2.0
"""Seconds for cancelled handlers to end."""


class Bus:
    """A service's connection to the others: asks, tells, hands over work, and serves.

    >>> async with Bus("documentation") as bus:
    ...     transcript = await bus.request(GetTranscript(transcript_id=id), timeout=2)
    """

    def __init__(  # noqa: PLR0913 - what users may choose, each by its name
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
        """`service` is this service's name, `inbox` where it remembers what was handled. `clock` gives seconds since the epoch.

        Raises `ContractError` where `service` is no name, and `ConfigurationError` where the environment's settings are wrong.
        """
        check_part(service, "service")
        self.service = service
        self.settings = settings or load_settings()
        self.instance = f"{socket.gethostname()[:30]}-{os.getpid()}-{secrets.token_hex(6)}"
        self._clock = clock
        self._inbox = MemoryInbox() if inbox is None else inbox  # an empty one is false
        self._transport = transport or RabbitMQTransport(self.settings, name=service, clock=clock)
        limits = {"leeway": self.settings.clock_leeway, "longest": self.settings.request_timeout}
        self._server = server_stack(clock=clock, **limits) if server is None else server
        self._trust = identity_from_settings(service, self.settings, clock=clock)
        signer, verifier = (
            (self._trust.signer, self._trust.verifier) if self._trust else (None, None)
        )
        self._cipher = cipher_from_settings(self.settings)
        refusal = self._trust.check_send_permission if self._trust else None
        layers = with_security(
            client_stack(clock=clock) if client is None else client, self._cipher, signer, refusal
        )
        self._client = Client(
            service,
            self.instance,
            self._transport,
            layers,
            settings=self.settings,
            verifier=verifier,
            cipher=self._cipher,
            clock=clock,
        )
        self._consumptions: list[ConsumerHandle] = []
        self._unsettled = 0
        """How many `serving` blocks begin or end now."""

    async def __aenter__(self) -> Self:
        """Connect. Raises `Unavailable` or `Unauthenticated` within the settings `connect_timeout` and `start_timeout`."""
        try:
            if self._trust is not None:
                await self._trust.start()
            await self._transport.start(self._client.replies, timeout=self.settings.connect_timeout)
            if self.settings.topology == "verify":
                await self._transport.declare(
                    BASE_EXCHANGES
                )  # says at once what is missing; a consumer would try again until the start's deadline
            self._consumptions = [await self._client.start()]
            await self._wait_ready(self._consumptions)
        except BaseException:
            await self._close()
            raise
        return self

    async def _close(self) -> None:
        await self._transport.close()
        if self._trust is not None:
            await self._trust.close()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            await self._close()
        finally:
            self._client.replies.close()  # who still waits hears that nothing will come

    @property
    def ready(self) -> bool:
        """Whether every consumer is registered at the broker now; false while `serving` begins or ends."""
        return (
            not self._unsettled
            and bool(self._consumptions)
            and all(consumption.ready for consumption in self._consumptions)
        )

    async def request(self, request: Request[R], *, timeout: float | None = None) -> R:
        """Ask, and wait for the answer: `Client.request` has the errors. `timeout` in seconds."""
        return await self._client.request(request, timeout=timeout)

    async def publish(self, event: Event, *, timeout: float | None = None) -> None:
        """Tell, and wait for the broker's confirm: `Client.publish` has the errors. `timeout` in seconds."""
        await self._client.publish(event, timeout=timeout)

    async def submit(self, job: Job[R], *, timeout: float | None = None) -> JobHandle[R]:
        """Hand over work, and wait for the broker's confirm: `Client.submit` has the errors. `timeout` in seconds."""
        return await self._client.submit(job, timeout=timeout)

    async def dead_letters(
        self, queue: str, selection: Selection = EVERYTHING, *, limit: int = 100
    ) -> list[DeadLetter]:
        """Look at the first `limit` dead letters of a work queue that fit, by the time of their death, and leave them there.

        At most 10,000 are looked at. Their `record` says why they died. Raises `NotFound` where the queue has no dead-letter
        queue, and `ConnectionLost` where the connection went meanwhile.
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
        """Move dead letters back into their work queue, to be handled anew from attempt 1. What went wrong is in the result.

        Each is acked when the broker has confirmed its copy: killed at any point, nothing is lost, and at most 100 are there twice.
        `extend`: seconds that expired ones get to be handled in; without it they stay. Unless `BUS_AUTH` is off it takes an operator's
        key, `BUS_OPERATOR_KEY`, and a `reason`, and is done three times at most. `rate`: at most so many a second.
        """
        word = (
            await operator_signer(
                self.settings, actor=self.instance, reason=reason, clock=self._clock
            )
            if extend is not None
            else None
        )
        how = ReplayOptions(
            by=self.instance, extend=extend, countersign=word, rate=rate, clock=self._clock
        )
        return await replay(self._transport, dead_letter_queue(queue), selection, how=how)

    async def purge(self, queue: str, selection: Selection) -> PurgeReport:
        """Delete dead letters of a work queue for good: those that fit `selection`, and with `EVERYTHING` all.

        Raises `NotFound` where the queue has no dead-letter queue.
        """
        return await purge(self._transport, dead_letter_queue(queue), selection)

    @asynccontextmanager
    async def serving(self, router: Router) -> AsyncIterator[None]:
        """Serve inside the block, which begins when every consumer is ready and ends with a clean stop.

        The stop: no new messages, what has not started goes back, what has finishes within the setting `stop_grace`,
        and what is still running then is cancelled and delivered again to others.
        """
        if router.name != self.service:
            raise ConfigurationError(
                f"the bus is {self.service!r} and the router {router.name!r}; a service serves its own router"
            )
        policies = (
            partial(policies_on, settings=self.settings)
            if self._transport.has_management_api
            else no_policies
        )
        await check_handler_timeouts(
            router,
            self.settings,
            supported=self._transport.supports_consumer_timeout,
            policies=policies,
        )
        for endpoint in router.endpoints.values():
            self._cipher.check_keys(endpoint.contract.type)
        if self._trust is not None:
            self._trust.check_subscriptions(router.contracts)
        self._unsettled += 1
        try:
            async with self._consume(router):
                self._unsettled -= 1
                try:
                    yield
                finally:
                    self._unsettled += 1
        finally:
            self._unsettled -= 1

    @asynccontextmanager
    async def _consume(self, router: Router) -> AsyncIterator[None]:
        async with router.lifespan() as state, AsyncExitStack() as stack:
            quarantine = PoisonIsolation()
            receivers = self._receivers(router, state, quarantine)
            # All queues before the first consumer: who is answered by one endpoint can rely on the others, and a queue
            # that exists with other arguments is told at once.
            await self._transport.declare(merge(receiver.topology for receiver in receivers))
            if self._transport.has_management_api:
                await check_policies(required_by([router], self.settings), self.settings)
            quarantine.intakes = intakes = [
                EndpointConsumer(self._transport, receiver) for receiver in receivers
            ]
            stack.push_async_callback(self._stop_consuming, receivers, intakes)
            quarantine.start()
            stack.push_async_callback(quarantine.stop)
            for intake in intakes:
                await intake.start()
            await self._wait_ready(intakes)
            self._consumptions += intakes
            log.info("serving", extra={"service": self.service, "endpoints": len(receivers)})
            yield

    async def serve(self, router: Router, *, until: asyncio.Event | None = None) -> None:
        """Serve until `until` is set, or for ever; cancelling is a clean stop, too."""
        async with self.serving(router):
            await (until or asyncio.Event()).wait()

    def _receivers(self, router: Router, state: Any, quarantine: PoisonIsolation) -> list[Receiver]:
        handler = compose(self._server, router)
        needs = topology_of(router, self.settings)
        least = self.settings.consumer_timeout
        return [
            self._receiver(
                each,
                needs[name],
                handler,
                state=state,
                quarantine=quarantine,
                consumer_timeout=consumer_timeout_for(each, router, least=least),
            )
            for name, each in router.endpoints.items()
        ]

    def _receiver(
        self,
        endpoint: Endpoint,
        needs: tuple[Queue, Topology],
        handler: Handler,
        state: Any,
        quarantine: PoisonIsolation,
        consumer_timeout: float | None,
    ) -> Receiver:
        settings, cipher, clock = self.settings, self._cipher, self._clock
        gate = self._trust.guard(endpoint.contract) if self._trust else None
        activator = ServiceActivator(
            endpoint,
            handler,
            sender=self,
            state=state,
            inbox=self._inbox,
            gate=gate,
            cipher=cipher,
            clock=clock,
        )
        settler = Settler(
            endpoint,
            needs[1],
            self._transport,
            service=self.service,
            gate=gate,
            cipher=cipher,
            version=settings.service_version,
            clock=clock,
        )
        return Receiver(
            endpoint,
            *needs,
            activator=activator,
            settler=settler,
            quarantine=quarantine,
            delivery_limit=settings.delivery_limit,
            consumer_timeout=consumer_timeout,
        )

    async def _wait_ready(self, consumptions: Sequence[ConsumerHandle]) -> None:
        try:
            async with asyncio.timeout(self.settings.start_timeout):
                for consumption in consumptions:
                    await consumption.wait_ready()
        except TimeoutError:
            waiting = {c.name: c.last_error or "no answer" for c in consumptions if not c.ready}
            why = "; ".join(f"{name}: {trouble}" for name, trouble in waiting.items())
            raise Unavailable(
                f"not ready after {self.settings.start_timeout:.3g} s: {why}"
            ) from None

    async def _stop_consuming(
        self, receivers: Sequence[Receiver], intakes: Sequence[EndpointConsumer]
    ) -> None:
        self._consumptions = [c for c in self._consumptions if c not in intakes]
        try:
            await asyncio.gather(*(intake.cancel() for intake in intakes))
            for receiver in receivers:
                receiver.stop_accepting()
            await self._drain_receivers(receivers)
            await asyncio.gather(*(intake.close() for intake in intakes))
        except asyncio.CancelledError:  # told to stop a second time: now
            for receiver in receivers:
                receiver.cancel_running()
            raise

    async def _drain_receivers(self, receivers: Sequence[Receiver]) -> None:
        """Let what runs end within the grace, and cancel the rest."""
        try:
            async with asyncio.timeout(self.settings.stop_grace):
                await asyncio.gather(*(receiver.drain() for receiver in receivers))
        except TimeoutError:
            left = sum(receiver.cancel_running() for receiver in receivers)
            log.warning(
                "the grace is over; unfinished work goes back to the broker",
                extra={"unfinished": left},
            )
            with suppress(TimeoutError):
                async with asyncio.timeout(CANCEL_TIMEOUT_SECONDS):
                    await asyncio.gather(*(receiver.drain() for receiver in receivers))
