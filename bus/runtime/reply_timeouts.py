"""The text of the error of a request that has no reply in time."""

from bus.errors import DeadlineExceeded
from bus.messaging.call_limits import CallLimits, attempt_advice, timeout_advice
from bus.messaging.timers import format_seconds
from bus.runtime.pending_request import PendingRequest

__all__ = ["describe_timeout", "name_broker"]

SERVICE_ADVICE = "Check that the service runs and is not overloaded, or "
"""Beginning of the advice if the service can be the cause."""
SILENT_BROKER = (
    "RabbitMQ did not answer in this time either. Check that it runs, and can be reached."
)
RECOVERING_BROKER = (
    "RabbitMQ, the connection or this process was interrupted in this time, or shortly before. "
    "Check that RabbitMQ runs, and that no handler blocks the event loop."
)


def describe_timeout(request: PendingRequest, seconds: float, limits: CallLimits | None) -> str:
    """Return the text of the error.

    Args:
        request: The request that has no reply.
        seconds: Seconds that the client has waited for the reply.
        limits: The limits of the request. The text names the setting that is the timeout.
    """
    remedy, attempt = timeout_advice(limits), ""
    if limits is not None and limits.attempt_timeout is not None:
        attempt = f" in attempt {limits.attempt}"
        if limits.attempt_timeout < seconds:
            seconds, remedy = limits.attempt_timeout, attempt_advice(limits)
    advice = (
        f"A reply was rejected: {request.rejection}"
        if request.rejection
        else f"{SERVICE_ADVICE}{remedy}."
    )
    return f"{request.type}: no reply within {format_seconds(seconds)}{attempt}. {advice}"


def name_broker(error: DeadlineExceeded) -> None:
    """Let the error of a request without a reply name the broker instead of the service.

    An error with the reason of a rejected reply keeps its text.
    """
    fact, found, _ = str(error).partition(SERVICE_ADVICE)
    if found:
        error.args = (fact + (SILENT_BROKER if error.was_broker_silent else RECOVERING_BROKER),)
