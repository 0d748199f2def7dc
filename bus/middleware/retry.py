"""Retries of the client: a request is sent again after an error of the called service.

A retry adds load to a service that has a problem. So it is sent only if it is safe, if the service
permits it, and if the retry budget of the service has a token.
"""

import asyncio
from typing import Final

from bus.contracts.contract import CATALOG, Catalog
from bus.errors import BusError, DeadlineExceeded, executed_of
from bus.messaging.backoff import backoff
from bus.messaging.call_limits import limits_of_attempt
from bus.messaging.envelope import Envelope
from bus.messaging.handler import Handler, Middleware
from bus.messaging.instruments import CALLS_REJECTED, CALLS_RETRIED
from bus.messaging.resends import mark_in_doubt, tell_resend
from bus.messaging.resilience.destinations import Destination

__all__ = ["DEFAULT_RETRIES", "retry"]

DEFAULT_RETRIES: Final = 2
"""Maximum number of retries of a request if the settings give no number."""
RETRIED_CODES: Final = frozenset(
    {"unavailable", "resource_exhausted", "aborted", "deadline_exceeded"}
)
"""Codes of temporary problems.

`internal` is not one of them. It is an exception that the handler did not expect, so the next
attempt most likely fails in the same way.
"""
ANSWER_CODES: Final = frozenset(
    {"not_found", "already_exists", "invalid_argument", "failed_precondition", "out_of_range"}
)
"""Codes with which a service that works answers. Such a call refills the budget, too."""


def retry(destination: Destination, *, catalog: Catalog = CATALOG) -> Middleware:
    """Repeat a request after an error of the service, until `envelope.deadline`.

    All attempts have the same message id. A request is repeated only in these conditions:

    - The service has sent the error, or has not answered within the time of the attempt.
    - The service permits it with `retryable`, and the error has a code of `RETRIED_CODES`.
    - It is safe: no handler has begun the request, or its contract is idempotent.
    - The wait ends before the deadline. The wait is the service's `retry_after`, or else a random
      time (full jitter).
    - `policy.retries` permits a further attempt, and the retry budget has a token.

    An attempt that timed out while the broker did not answer is repeated, too, if that is safe. It
    takes no token, as a resend after a lost connection. Only the deadline and the setting `retries`
    limit these attempts.

    Otherwise the last error of the service is raised. This error is also raised if a policy of this
    process rejects a further attempt. If an earlier attempt may have reached a handler,
    `maybe_executed` is true.

    Args:
        destination: The called operation, with its policy and the retry budget of its service.
        catalog: Contracts of this process.
    """
    decision = _Decision(destination, catalog)
    budget, attempt_timeout = destination.budget, destination.policy.attempt_timeout
    deposit = _ignore if budget is None else budget.succeeded

    def layer(inner: Handler) -> Handler:
        async def call(envelope: Envelope) -> Envelope | None:
            attempt, counted, in_doubt, sent = 1, 0, False, envelope
            failure: BusError | None = None
            if attempt_timeout is not None:
                sent = _attempt_of(envelope, attempt_timeout, 1)
            try:
                while True:
                    try:
                        reply = await inner(sent)
                    except BusError as error:
                        if failure is not None and _is_rejection(error):
                            # Nothing was sent. The call fails because of the service's error.
                            raise _last_error(failure, in_doubt=in_doubt) from None
                        counted += not error.was_broker_silent
                        wait = decision.wait_for(envelope, error, attempt, counted)
                        if wait is None:
                            if not in_doubt:
                                raise
                            raise mark_in_doubt(error) from None
                        in_doubt = in_doubt or executed_of(error) != "no"
                        tell_resend(error)
                        failure = error
                    else:
                        deposit()
                        return reply
                    await asyncio.sleep(wait)
                    attempt += 1
                    sent = _attempt_of(envelope, attempt_timeout, attempt)
            finally:
                failure = None  # a reference cycle: its traceback has this frame

        return call

    return layer


class _Decision:
    """The decision after a failed attempt: the wait until the next one, or the end of the call."""

    def __init__(self, destination: Destination, catalog: Catalog) -> None:
        policy = destination.policy
        self._destination = destination
        self._retries = policy.retries
        self._catalog = catalog

    def wait_for(
        self, envelope: Envelope, error: BusError, attempt: int, counted: int
    ) -> float | None:
        """Return the seconds until the next attempt, or None if no further attempt is permitted.

        Args:
            envelope: The request.
            error: Error of the last attempt.
            attempt: Number of the last attempt, from 1.
            counted: Number of attempts that have failed while the broker answered.
        """
        destination = self._destination
        budget = destination.budget
        if _is_unanswered_by_broker(error) and self._is_safe(error):
            budget = None
        elif not self._is_retried(error):
            if budget is not None and error.origin == "service" and error.code in ANSWER_CODES:
                budget.succeeded()
            return None
        wait = backoff(attempt) if error.retry_after is None else error.retry_after
        is_late = (
            envelope.deadline is not None
            and (destination.clock() + wait) * 1000 >= envelope.deadline
        )
        if is_late or not self._has_retry_left(attempt, counted):
            return None
        if budget is not None and not budget.take():
            destination.meter.count(CALLS_REJECTED, (*destination.labels, "budget"))
            return None
        if error.origin == "service":
            destination.meter.count(CALLS_RETRIED, destination.labels)
        return wait

    def _has_retry_left(self, attempt: int, counted: int) -> bool:
        """Return True if the number of attempts permits a further one.

        Without a setting, a broker that stays silent longer than some attempts fails no call.
        """
        if self._retries is None:
            return counted <= DEFAULT_RETRIES
        return attempt <= self._retries

    def _is_retried(self, error: BusError) -> bool:
        """Return True if the service permits a retry, and if the retry is safe."""
        if error.origin != "service" or not error.retryable or error.code not in RETRIED_CODES:
            return False
        return self._is_safe(error)

    def _is_safe(self, error: BusError) -> bool:
        """Return True if a second execution is not possible, or does no harm."""
        if executed_of(error) == "no":
            return True
        contract = self._catalog.get(self._destination.type)
        return contract is not None and contract.idempotent


def _is_unanswered_by_broker(error: BusError) -> bool:
    """Return True if an attempt has timed out, and the broker may be the cause."""
    return error.origin == "broker" and isinstance(error, DeadlineExceeded)


def _attempt_of(envelope: Envelope, attempt_timeout: float | None, attempt: int) -> Envelope:
    limits = limits_of_attempt(envelope.limits, attempt_timeout, attempt)
    return envelope.replace(limits=limits)


def _is_rejection(error: BusError) -> bool:
    """Return True if a policy of this process has rejected an attempt, such as a breaker.

    An attempt that was in flight when the bus was closed is not one of them: it can have run.
    """
    return error.origin == "local" and error.code in RETRIED_CODES and executed_of(error) == "no"


def _last_error(error: BusError, *, in_doubt: bool) -> BusError:
    return mark_in_doubt(error) if in_doubt else error


def _ignore() -> None:
    """Do nothing, because the destination has no budget."""
