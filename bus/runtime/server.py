"""The server of a bus: it starts the consumers of a router, and stops them cleanly."""

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    asynccontextmanager,
    suppress,
)
from functools import partial
from typing import Any

from bus.contracts.contract import require_resolved
from bus.errors import Unavailable
from bus.messaging.context import Sender
from bus.messaging.debug_switch import log_tracebacks
from bus.messaging.handler import Handler, Middleware, compose
from bus.messaging.ports.transport import ConsumerHandle
from bus.messaging.topology.consumer_spec import ConsumerSpec
from bus.messaging.topology.model import merge
from bus.middleware.chaos import inject_handler_faults
from bus.operations.topology.verify import check_policies, no_policies, policies_on
from bus.runtime.consumer_pauses import ConsumerPauses
from bus.runtime.endpoint_consumer import EndpointConsumer
from bus.runtime.endpoint_state import EndpointState
from bus.runtime.exits import contain_exits
from bus.runtime.handler_timeouts import check_handler_timeouts, consumer_timeout_for
from bus.runtime.inbound import compose_inbound
from bus.runtime.job_reports import JobReports
from bus.runtime.jobs.beats import InstanceBeats
from bus.runtime.jobs.durable_jobs import DurableJobs
from bus.runtime.jobs.question_endpoints import answering
from bus.runtime.poison_isolation import CandidateQueue, PoisonIsolation
from bus.runtime.prefetch_follower import following_limits
from bus.runtime.prefetched_consumer import DeliverySource
from bus.runtime.question_topology import question_topology
from bus.runtime.receiver import Receiver
from bus.runtime.requirements import check_has_handlers, required_by, topology_of
from bus.runtime.router import Router
from bus.runtime.service_activator import ServiceActivator, ServiceStack
from bus.runtime.service_runtime import ServiceRuntime
from bus.runtime.settler import Settler
from bus.runtime.transaction_checks import check_transactions

__all__ = ["Server", "receiver_for", "wait_ready"]

log = logging.getLogger("bus")

CANCEL_TIMEOUT_SECONDS = 2.0
"""Seconds to wait for cancelled handlers to end."""


class Server:
    """Serves routers for one service."""

    def __init__(
        self, runtime: ServiceRuntime, layers: Sequence[Middleware], sender: Sender
    ) -> None:
        """Create a server with the middlewares `layers`. Handlers send messages with `sender`."""
        self._runtime = runtime
        self._layers = layers
        self._sender = sender
        self.consumers: list[EndpointConsumer] = []
        """The consumers of all routers, until their last message is settled."""
        self.pauses = ConsumerPauses(runtime.service, runtime.store, runtime.clock)
        """The pauses of these consumers that operators have requested."""

    async def check(self, router: Router) -> None:
        """Check that settings, grants and broker meet the router's requirements.

        Raises:
            ConfigurationError: A requirement is not met, or the router has neither handlers nor a
                lifespan.
            ContractError: The type of a field in a contract is not defined.
        """
        check_has_handlers(router)
        check_transactions(router, self._runtime)
        runtime = self._runtime
        transport, security, settings = runtime.transport, runtime.security, runtime.settings
        has_api = transport.has_management_api
        await check_handler_timeouts(
            router,
            settings,
            supported=transport.supports_consumer_timeout,
            policies=partial(policies_on, settings=settings) if has_api else no_policies,
            has_store=runtime.store is not None,
        )
        for contract in router.contracts:
            require_resolved(contract)
            security.cipher.check_keys(contract.type)
        security.identity.check_subscriptions(router.contracts)

    @asynccontextmanager
    async def consuming(self, router: Router) -> AsyncIterator[list[ConsumerHandle]]:
        """Consume every queue of the router inside the block, and yield the consumers."""
        runtime = self._runtime
        await self._declare_lasting_queues(router)
        async with router.opened(self._sender) as states, AsyncExitStack() as stack:
            stack.enter_context(contain_exits())
            if not router.endpoints:
                log.warning(
                    "%s: the router has no handlers",
                    runtime.service,
                    extra={"service": runtime.service},
                )
            candidates = CandidateQueue()
            jobs = None if runtime.store is None else DurableJobs(runtime, runtime.store)
            receivers = self._receivers(router, states, candidates, jobs)
            # Declare all queues before the first consumer starts. A mismatch is reported before a
            # handler runs. All queues exist before a caller receives the first reply.
            topologies = [receiver.state.spec.topology for receiver in receivers]
            if jobs is not None and jobs.recorders:
                topologies += (
                    each
                    for _, each in question_topology(runtime.service, runtime.settings).values()
                )
            await runtime.transport.declare(merge(topologies))
            if runtime.transport.has_management_api:
                required = required_by(
                    [router], runtime.settings, has_store=runtime.store is not None
                )
                await check_policies(required, runtime.settings)
            consumers = [
                EndpointConsumer(source_for(receiver, runtime, jobs), receiver)
                for receiver in receivers
            ]
            recorders = [] if jobs is None else jobs.recorders
            self.consumers += consumers
            stack.callback(self._forget, consumers)
            beats = None
            if jobs is not None:
                jobs.start()
                stack.push_async_callback(jobs.close)
                beats = await stack.enter_async_context(jobs.beating())
            stack.push_async_callback(self._stop, receivers, consumers, jobs)
            await stack.enter_async_context(self.pauses.following(consumers))
            if runtime.store_rows is not None and jobs is not None:
                queues = [each.name for each in jobs.recorders]
                await stack.enter_async_context(runtime.store_rows.following(queues))
            isolation = PoisonIsolation(candidates, consumers)
            with log_tracebacks(enabled=runtime.settings.debug):
                isolation.start()
                stack.push_async_callback(isolation.stop)
                for consumer in consumers:
                    await consumer.start()
                for recorder in recorders:
                    await recorder.start()
            await wait_ready([*consumers, *recorders], runtime.settings.start_timeout)
            await stack.enter_async_context(following_limits(consumers))
            questions: list[EndpointConsumer] = []
            if beats is not None:  # last, so that no question arrives after the recorders stop
                answering = self._answering(router, beats)
                questions = await stack.enter_async_context(answering)
                await wait_ready(questions, runtime.settings.start_timeout)
            log.info(
                "%s is serving (operations: %d)",
                runtime.service,
                len(receivers),
                extra={"service": runtime.service, "operations": len(receivers)},
            )
            yield [*consumers, *recorders, *questions]

    def _answering(
        self, router: Router, beats: InstanceBeats
    ) -> AbstractAsyncContextManager[list[EndpointConsumer]]:
        """Return the block in which this process answers questions about the router's jobs."""

        def make_receiver(state: EndpointState, handler: Handler) -> Receiver:
            return receiver_for(state, ServiceStack(handler=handler, sender=self._sender))

        jobs = [each for each in router.endpoints.values() if each.contract.kind == "job"]
        return answering(self._runtime, beats, jobs, make_receiver)

    async def _declare_lasting_queues(self, router: Router) -> None:
        """Declare the queues of jobs and events, to which the lifespans can already send messages.

        The queues of requests are declared after the lifespans. Until then a caller learns at once
        that no worker serves its request.
        """
        topology = topology_of(router, self._runtime.settings)
        lasting = [
            topology[name][1]
            for name, endpoint in router.endpoints.items()
            if endpoint.contract.kind != "request"
        ]
        if router.has_lifespan and lasting:
            await self._runtime.transport.declare(merge(lasting))

    def _receivers(
        self,
        router: Router,
        states: Mapping[str, Any],
        candidates: CandidateQueue,
        jobs: DurableJobs | None,
    ) -> list[Receiver]:
        # Innermost, so that all other policies treat an injected fault as a fault of the handler.
        layers = [*self._layers, inject_handler_faults(self._runtime.chaos)]
        handler = compose(layers, router)
        return [
            receiver_for(
                each,
                ServiceStack(
                    handler=handler, sender=self._sender, state=states[each.endpoint.queue]
                ),
                jobs,
            )
            for each in endpoint_states(router, self._runtime, candidates)
        ]

    def _forget(self, consumers: Sequence[EndpointConsumer]) -> None:
        self.consumers = [each for each in self.consumers if each not in consumers]

    async def _stop(
        self,
        receivers: Sequence[Receiver],
        consumers: Sequence[ConsumerHandle],
        jobs: DurableJobs | None,
    ) -> None:
        if jobs is not None:
            receivers = [*receivers, *jobs.receivers]
            consumers = [*consumers, *jobs.recorders]
        try:
            await asyncio.gather(*(consumer.cancel() for consumer in consumers))
            for receiver in receivers:
                receiver.stop_accepting()
            if jobs is not None:
                jobs.stop_recording()
            await self._drain(receivers)
            await asyncio.gather(*(consumer.close() for consumer in consumers))
        except asyncio.CancelledError:  # a second signal requests an immediate stop
            for receiver in receivers:
                receiver.cancel_running()
            raise

    async def _drain(self, receivers: Sequence[Receiver]) -> None:
        """Wait up to `stop_grace` seconds for running messages. Cancel messages that still run."""
        try:
            async with asyncio.timeout(self._runtime.settings.stop_grace):
                await asyncio.gather(*(receiver.drain() for receiver in receivers))
        except TimeoutError:
            unfinished = sum(receiver.cancel_running() for receiver in receivers)
            service, grace = self._runtime.service, self._runtime.settings.stop_grace
            log.warning(
                "%s: the grace period of %g s is over; %d unfinished messages are requeued",
                service,
                grace,
                unfinished,
                extra={"service": service, "grace": grace, "unfinished": unfinished},
            )
            with suppress(TimeoutError):
                async with asyncio.timeout(CANCEL_TIMEOUT_SECONDS):
                    await asyncio.gather(*(receiver.drain() for receiver in receivers))


def endpoint_states(
    router: Router, runtime: ServiceRuntime, candidates: CandidateQueue
) -> list[EndpointState]:
    """Return the state of each endpoint of a router."""
    required = topology_of(router, runtime.settings)
    minimum = runtime.settings.consumer_timeout
    return [
        EndpointState(
            endpoint=endpoint,
            spec=ConsumerSpec(
                queue=required[name][0],
                topology=required[name][1],
                prefetch=endpoint.concurrency,
                max_body_bytes=runtime.settings.max_message,
                consumer_timeout=consumer_timeout_for(endpoint, router, least=minimum),
            ),
            runtime=runtime,
            guard=runtime.security.guard(endpoint.contract),
            candidates=candidates,
        )
        for name, endpoint in router.endpoints.items()
    ]


def source_for(
    receiver: Receiver, runtime: ServiceRuntime, jobs: DurableJobs | None
) -> DeliverySource:
    """Return the source of a receiver's messages: the feed of durable jobs, or the transport."""
    feed = None if jobs is None else jobs.feed_of(receiver.state.spec.queue.name)
    return feed or runtime.transport


def receiver_for(
    state: EndpointState, stack: ServiceStack, jobs: DurableJobs | None = None
) -> Receiver:
    """Return the receiver of one endpoint. It runs the inbound stages, `stack` and a settler."""
    if jobs is not None and state.endpoint.contract.kind == "job":
        return jobs.receiver_for(state, stack)
    reports = JobReports(state.runtime)
    activator = ServiceActivator(state, stack, reports)
    handle = compose_inbound(state, activator.handle)
    return Receiver(state, handle, Settler(state, reports))


async def wait_ready(consumers: Sequence[ConsumerHandle], seconds: float) -> None:
    """Wait until every consumer is registered. After `seconds`, raise `Unavailable`."""
    try:
        async with asyncio.timeout(seconds):
            for consumer in consumers:
                await consumer.wait_ready()
    except TimeoutError:
        errors = {each.name: each.last_error or "no answer" for each in consumers if not each.ready}
        why = "; ".join(f"{name}: {error}" for name, error in errors.items())
        raise Unavailable(f"consumers are not ready after {seconds:.3g} s: {why}") from None
