"""The endpoints of the questions about jobs. They are not in the router of the user."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from bus.contracts.contract import Contract
from bus.contracts.retry_policy import RetryPolicy
from bus.errors import BusError
from bus.messaging.envelope import Envelope, error_reply
from bus.messaging.handler import Handler, compose
from bus.messaging.topology.consumer_spec import ConsumerSpec
from bus.messaging.topology.names import request_queue
from bus.middleware.deadline import server_deadline
from bus.runtime.endpoint import Endpoint
from bus.runtime.endpoint_consumer import EndpointConsumer
from bus.runtime.endpoint_state import EndpointState
from bus.runtime.job_reports import JobReports
from bus.runtime.jobs.answers import JobAnswers
from bus.runtime.jobs.beats import InstanceBeats
from bus.runtime.jobs.queue_passes import QueuePasses
from bus.runtime.poison_isolation import CandidateQueue
from bus.runtime.question_topology import question_topology
from bus.runtime.receiver import Receiver
from bus.runtime.service_runtime import ServiceRuntime

__all__ = ["QUESTION_CONCURRENCY", "answering"]

QUESTION_CONCURRENCY = 256
"""Number of questions that a process answers at the same time.

At most half of them wait until earlier jobs are recorded, so others are answered while these wait.
"""

MakeReceiver = Callable[[EndpointState, Handler], Receiver]


@asynccontextmanager
async def answering(
    runtime: ServiceRuntime,
    beats: InstanceBeats,
    jobs: Iterable[Endpoint],
    make_receiver: MakeReceiver,
) -> AsyncIterator[list[EndpointConsumer]]:
    """Answer questions about jobs inside the block. Yield the consumers of the questions.

    Enter the block after the recorders are ready, and leave it before they stop. The recorded time
    of this instance does not move any more after the block.

    Args:
        runtime: Objects that all parts of this process share, with a store.
        beats: Signs of life of this instance.
        jobs: Endpoints of the jobs that this instance serves.
        make_receiver: Function that returns the receiver of an endpoint with a handler.
    """
    store, reports = runtime.store, JobReports(runtime)
    if store is None:
        raise ValueError("the service has no store")
    passes = QueuePasses(runtime, store, beats)
    queues = {endpoint.contract.type: endpoint.queue for endpoint in jobs}
    answers = JobAnswers(runtime, store, passes, queues, _reporter(runtime, reports))
    deadline = server_deadline(clock=runtime.clock, leeway=runtime.settings.clock_leeway)
    handler = compose([deadline], answers)
    receivers = [make_receiver(state, handler) for state in _states(runtime, answers.contracts)]
    consumers = [EndpointConsumer(runtime.transport, receiver) for receiver in receivers]
    try:
        for consumer in consumers:
            await consumer.start()
        yield consumers
    finally:
        beats.freeze()
        await _stop(receivers, consumers)
        await passes.close()
        await reports.close()


async def _stop(receivers: Sequence[Receiver], consumers: Sequence[EndpointConsumer]) -> None:
    """End the questions at once. Their senders ask another instance."""
    for consumer in consumers:
        await consumer.cancel()
    for receiver in receivers:
        receiver.stop_accepting()
        receiver.cancel_running()
    for receiver in receivers:
        await receiver.drain()
    for consumer in consumers:
        await consumer.close()


def _reporter(
    runtime: ServiceRuntime, reports: JobReports
) -> Callable[[Envelope, BusError], Awaitable[None]]:
    async def report(job: Envelope, error: BusError) -> None:
        update = error_reply(job, error, source=runtime.service, has_run=False)
        await reports.report_result(job, update, retry=False)

    return report


def _states(runtime: ServiceRuntime, contracts: Iterable[Contract]) -> list[EndpointState]:
    topologies = question_topology(runtime.service, runtime.settings)
    states = []
    for contract in contracts:
        queue, topology = topologies[request_queue(contract)]
        endpoint = Endpoint(
            contract=contract,
            function=_no_function,
            wants_context=False,
            queue=queue.name,
            concurrency=QUESTION_CONCURRENCY,
            retry=RetryPolicy(attempts=1),
            is_internal=True,
        )
        spec = ConsumerSpec(
            queue=queue,
            topology=topology,
            prefetch=QUESTION_CONCURRENCY,
            max_body_bytes=runtime.settings.max_message,
        )
        states.append(
            EndpointState(
                endpoint=endpoint,
                spec=spec,
                runtime=runtime,
                guard=runtime.security.guard(contract, is_open=True),
                candidates=CandidateQueue(),
            )
        )
    return states


async def _no_function(*_: Any) -> None:
    """Stand in for the function of an endpoint. `JobAnswers` handles the messages instead."""
