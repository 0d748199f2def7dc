"""Results of handlers that need a dependency: they open and close its breaker (ADR 0040)."""

from bus.errors import Unavailable
from bus.messaging.dependency_wait import DEPENDENCY_FAILURES, DEPENDENCY_RETURNS, count_of
from bus.messaging.timers import format_seconds
from bus.runtime.dependency_gate import DependencyGate
from bus.runtime.endpoint_state import EndpointState
from bus.runtime.inbound_message import (
    DependencyReturn,
    HandlingResult,
    InboundHandler,
    InboundMessage,
    InboundStage,
    pass_through,
)

__all__ = ["watch_dependency"]

PROBE_SECONDS = 300.0
"""Seconds after which a request that is a probe counts as lost. A request has no time limit."""


def watch_dependency(state: EndpointState) -> InboundStage:
    """Return the stage that reports each result of the handler to the gate of its dependency.

    A request is refused at once while the dependency is down, because its caller waits. An event or
    job that fails because of the dependency returns by a retry tier, with its attempt unchanged.
    """
    gate, tier = state.dependency, state.endpoint.dependency_tier
    if gate is None:
        return pass_through

    def stage(inner: InboundHandler) -> InboundHandler:
        async def call(message: InboundMessage) -> HandlingResult:
            permit = message.permit
            if permit is None:
                permit = gate.enter_at_once(message.envelope.source, PROBE_SECONDS)
                if permit is None:
                    return _refused(message, gate, tier)
            message.permit = None
            try:
                result = await inner(message)
            except BaseException:  # such as the cancellation of a service that stops
                gate.ignore(permit)
                raise
            error = result.error
            if error is None:
                gate.succeed(permit)
            elif (failure := gate.dependency.failure_in(error)) is None:
                gate.ignore(permit)
            else:
                gate.fail(permit, failure)
                if tier is not None:
                    result.dependency_return = _return_of(message, gate, tier)
            return result

        return call

    return stage


def _return_of(message: InboundMessage, gate: DependencyGate, tier: str) -> DependencyReturn | None:
    """Return the decision about a message that failed because of its dependency.

    None lets the retry policy decide: the breaker is closed, and the message has failed so often
    that the message itself can be the cause.
    """
    headers, dependency = message.envelope.headers, gate.dependency
    is_open = gate.is_open
    failures = count_of(headers, DEPENDENCY_FAILURES)
    if not is_open and failures >= dependency.consecutive_failures:
        return None
    gate.count_return()
    return DependencyReturn(
        dependency=dependency.name,
        tier=tier,
        is_failure_counted=not is_open,
        # The submitter learns about the first return while the breaker is open.
        is_reported=is_open and count_of(headers, DEPENDENCY_RETURNS) <= failures,
    )


def _refused(message: InboundMessage, gate: DependencyGate, tier: str | None) -> HandlingResult:
    """Return the result of a message that cannot start. An event or job returns by a retry tier.

    An event or job has a permit already, unless a chaos experiment repeats it.
    """
    name, seconds = gate.dependency.name, gate.retry_after
    error = Unavailable(
        f"{message.envelope.type}: the dependency {name} of the service is down ({gate.cause}). "
        f"Try again in {format_seconds(seconds)}.",
        executed="no",
        retry_after=seconds,
    )
    decision = None if tier is None else DependencyReturn(dependency=name, tier=tier)
    return HandlingResult(error=error, dependency_return=decision)
