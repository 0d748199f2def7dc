"""Every stage that an incoming message passes before the server's stack, outermost first.

A stage is similar to a middleware, but receives an `InboundMessage`, because it needs the
deliveries. ADR 0001 has the reasons. The last stage calls the `ServiceActivator`. The
`ServiceActivator` calls the server's stack (`bus/middleware/stacks.py`), and the stack calls the
router.
"""

from collections.abc import Callable, Sequence
from functools import reduce

from bus.runtime.endpoint_state import EndpointState
from bus.runtime.inbound_message import InboundHandler, InboundStage
from bus.runtime.stages.acknowledge_at_most_once import acknowledge_at_most_once
from bus.runtime.stages.adapt_concurrency import adapt_concurrency
from bus.runtime.stages.authenticate import authenticate
from bus.runtime.stages.claim_message import claim_message
from bus.runtime.stages.commit_writes import commit_writes
from bus.runtime.stages.decrypt import decrypt
from bus.runtime.stages.deduplicate import deduplicate
from bus.runtime.stages.enter_in_flight import enter_in_flight
from bus.runtime.stages.hold_for_dependency import hold_for_dependency
from bus.runtime.stages.inject_delivery_faults import inject_delivery_faults
from bus.runtime.stages.isolate_poison import isolate_poison
from bus.runtime.stages.join_in_flight import join_in_flight
from bus.runtime.stages.limit_concurrency import limit_concurrency
from bus.runtime.stages.limit_rate import limit_rate
from bus.runtime.stages.measure import measure
from bus.runtime.stages.pass_markers import pass_markers
from bus.runtime.stages.recall_result import recall_result
from bus.runtime.stages.record_span import record_span
from bus.runtime.stages.reject_expired import reject_expired
from bus.runtime.stages.reject_malformed import reject_malformed
from bus.runtime.stages.reject_oversized import reject_oversized
from bus.runtime.stages.shed_load import shed_load
from bus.runtime.stages.start_with_permit import start_with_permit
from bus.runtime.stages.watch_dependency import watch_dependency

__all__ = ["INBOUND", "RECORDING", "RUNNING", "compose_inbound"]

Stage = Callable[[EndpointState], InboundStage]

INBOUND: tuple[Stage, ...] = (
    reject_oversized,  # first: without its body, the message cannot be compared or authenticated
    join_in_flight,  # early: a redelivery of a running message must not start another run
    hold_for_dependency,  # before a candidate's turn and a slot, which other messages need
    isolate_poison,  # before a slot is taken: a candidate waits until other messages have ended
    limit_concurrency,  # before the checks, because they take time
    start_with_permit,  # with a slot: the dependency can have failed during the wait for it
    authenticate,  # before any result is read: a forged sender must not receive a stored reply
    inject_delivery_faults,  # outside of the deduplication, as a lost reply or ack would be
    recall_result,  # a handled message whose ack was lost is not handled again
    limit_rate,  # of verified callers only; a result that exists already uses no token
    shed_load,  # before the ack and the inbox: a refused request was not handled
    acknowledge_at_most_once,  # a request that must not run twice is acked before it runs
    deduplicate,  # a copy of a handled message has no second effect
    claim_message,  # instead of `deduplicate` for a transactional handler, so at its place
    reject_malformed,
    reject_expired,
    decrypt,  # late: retries and dead letters contain the encrypted payload
    watch_dependency,  # late: only the handler's own result shows whether the dependency is up
    record_span,  # late: only a message that reaches the handler has a span
    adapt_concurrency,  # late: its latency is the handler's, as that of `measure`
    measure,  # late: the time of an attempt has no waits for slots, keys or the inbox
    commit_writes,  # last: a failed commit is a failure of the attempt, for all stages before
)


RECORDING: tuple[Stage, ...] = (
    reject_oversized,  # first: without its body, the message cannot be compared or authenticated
    join_in_flight,  # a redelivery of a job that waits for the store
    pass_markers,  # before the check of the sender: a marker is not a message of the contract
    authenticate,  # before the row is written, because the row is trusted from then on
    inject_delivery_faults,  # outside of the row, which is the deduplication
    reject_malformed,
)
"""Stages of the recorder of a job queue, with a store. Its innermost handler writes the row."""

RUNNING: tuple[Stage, ...] = (
    enter_in_flight,
    hold_for_dependency,  # before a candidate's turn and a slot, which other jobs need
    isolate_poison,  # before a slot is taken: a candidate waits until other messages have ended
    limit_concurrency,
    start_with_permit,  # with a slot: the dependency can have failed during the wait for it
    recall_result,  # of a job that was lost too often
    claim_message,  # the row is the claim already, so this stage only opens the transaction
    reject_expired,
    decrypt,  # late: the row contains the encrypted payload
    watch_dependency,  # late: only the handler's own result shows whether the dependency is up
    record_span,  # late: only a job that reaches the handler has a span
    adapt_concurrency,  # late: its latency is the handler's, as that of `measure`
    measure,  # late: the time of an attempt has no waits for slots
    commit_writes,  # last: a failed commit is a failure of the attempt, for all stages before
)
"""Stages of a job that was claimed from a store. Its sender was authenticated by the recorder."""


def compose_inbound(
    state: EndpointState, handler: InboundHandler, stages: Sequence[Stage] | None = None
) -> InboundHandler:
    """Return `handler` inside the stages of one endpoint, which are `INBOUND` by default.

    Stages that the endpoint does not need are left out.
    """
    chosen = INBOUND if stages is None else stages
    return reduce(lambda inner, stage: stage(state)(inner), reversed(chosen), handler)
