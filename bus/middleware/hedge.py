"""Hedged requests: if the reply to a request is late, a second copy of the request is sent.

Source: Dean and Barroso, "The Tail at Scale", Communications of the ACM 56(2), 2013.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from bus.errors import BusError, ConnectionLost, DeadlineExceeded, executed_of
from bus.messaging.envelope import Envelope
from bus.messaging.handler import Handler, Middleware
from bus.messaging.instruments import CALLS_HEDGED, CALLS_REJECTED
from bus.messaging.resends import mark_in_doubt
from bus.messaging.resilience.destinations import Destination

__all__ = ["hedge"]

Copy = Coroutine[Any, Any, Envelope | None]
"""The call of a second copy."""


def hedge(destination: Destination, *, is_sent: Callable[[str], bool]) -> Middleware:
    """Send a second copy of an idempotent request if no reply arrives in `policy.hedge_after`.

    The copies have the same message id, and one deadline. The first final answer ends the call, and
    the other copy is cancelled at this client. A service can handle the two copies. An error that a
    repetition can solve is not final while the other copy is in flight. If one process has joined
    the copies, its error answers both, and ends the call.

    A request has at most one second copy in each attempt, and the copy takes a token of the retry
    budget. A request that waits for a connection, a slot or the start of the service has no second
    copy, because it would only add load.

    Args:
        destination: The called operation, with its policy and the retry budget of its service.
        is_sent: Function that returns True if the request with this message id was sent, and waits
            for its reply.
    """
    after, budget = destination.policy.hedge_after or 0.0, destination.budget
    count, labels = destination.meter.count, destination.labels

    def layer(inner: Handler) -> Handler:
        def send_copy(envelope: Envelope) -> Copy | None:
            if budget is not None and not budget.take():
                count(CALLS_REJECTED, (*labels, "budget"))
                return None
            count(CALLS_HEDGED, labels)
            return _call(inner, envelope)

        def call(envelope: Envelope) -> Awaitable[Envelope | None]:
            return _HedgedCall(after, is_sent, send_copy).run(inner, envelope)

        return call

    return layer


async def _call(inner: Handler, envelope: Envelope) -> Envelope | None:
    """Call the handler in a coroutine, because some handlers raise before they return one."""
    return await inner(envelope)


class _HedgedCall:
    """One request, with its second copy if there is one.

    The first copy runs in the task of the caller. So a reply that is not late costs one timer, and
    no task.
    """

    __slots__ = (
        *("_after", "_cancels", "_copy", "_envelope", "_failure", "_has_won"),
        *("_is_in_doubt", "_is_sent", "_send_copy", "_task", "_timer", "_was_sent"),
    )

    def __init__(
        self,
        after: float,
        is_sent: Callable[[str], bool],
        send_copy: Callable[[Envelope], Copy | None],
    ) -> None:
        self._after = after
        self._is_sent = is_sent
        self._send_copy = send_copy
        self._task: asyncio.Task[object] | None = None
        """The task of the caller while it waits for the first copy."""
        self._copy: asyncio.Task[Envelope | None] | None = None
        self._failure: BusError | None = None
        """The error of the first copy, while the second copy decides the call."""
        self._has_won = False
        """True if the second copy has ended the call, and the first copy was cancelled."""
        self._is_in_doubt = False
        """True if the service may have executed a copy that failed."""
        self._was_sent = True
        """False if the first copy was not sent yet when the present timer began."""

    async def run(self, inner: Handler, envelope: Envelope) -> Envelope | None:
        """Send the request, and return the first final answer."""
        self._envelope = envelope
        task = self._task = asyncio.current_task()
        self._cancels = 0 if task is None else task.cancelling()
        self._start_timer()
        try:
            try:
                return await inner(envelope)
            except asyncio.CancelledError:
                if not self._has_won or self._has_other_cancel():
                    raise
            except BusError as error:
                if self._ends_call(error):
                    if not self._is_in_doubt:
                        raise
                    raise mark_in_doubt(error) from None
            finally:
                self._task = None
                self._timer.cancel()
            return await self._end_of_copy()
        finally:
            if self._copy is not None:
                self._copy.cancel()
                self._copy = self._failure = None  # an error would be a reference cycle

    def _start_timer(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self._after, self._on_time)

    def _on_time(self) -> None:
        """Send the second copy. Wait again if the first copy was not sent in all this time."""
        was_sent, self._was_sent = self._was_sent, self._is_sent(self._envelope.id)
        if not (was_sent and self._was_sent):
            self._start_timer()
            return
        copy = self._send_copy(self._envelope)
        if copy is not None:
            self._copy = asyncio.get_running_loop().create_task(copy)
            self._copy.add_done_callback(self._on_copy_done)

    def _on_copy_done(self, copy: asyncio.Task[Envelope | None]) -> None:
        """End the wait for the first copy if the second copy has a final answer."""
        if copy.cancelled():
            return
        error = copy.exception()
        if error is None or _is_answer(error):
            if self._task is not None:
                self._has_won = True
                self._task.cancel()
        elif isinstance(error, BusError):
            self._is_in_doubt |= executed_of(error) != "no"

    def _has_other_cancel(self) -> bool:
        """Remove this object's cancellation. Return True if the caller was cancelled as well."""
        return self._task is not None and self._task.uncancel() > self._cancels

    def _ends_call(self, error: BusError) -> bool:
        """Return True if the error of the first copy is the result, and False if the copy decides.

        A lost connection fails both copies, and the client then sends the request again. The time
        of both copies ends with the time of the first. An error that answers both copies is the
        last reply.
        """
        if self._copy is None:
            return True
        if self._copy.done():
            failure = self._copy.exception()
            return failure is not None and not _is_answer(failure)
        if _is_answer(error) or isinstance(error, ConnectionLost | DeadlineExceeded):
            return True
        if error.answered_copies > 1:
            return True
        self._is_in_doubt |= executed_of(error) != "no"
        self._failure = error
        return False

    async def _end_of_copy(self) -> Envelope | None:
        """Return the reply to the second copy, or raise its error."""
        assert self._copy is not None  # noqa: S101 - only a copy can decide the call
        try:
            return await self._copy
        except BusError as error:
            is_unsent = error.origin == "local" and executed_of(error) == "no"
            if self._failure is not None and is_unsent:
                raise self._failure from None
            if not self._is_in_doubt:
                raise
            raise mark_in_doubt(error) from None


def _is_answer(error: BaseException) -> bool:
    """Return True if a service has returned the error, and a repetition cannot solve it."""
    return isinstance(error, BusError) and error.origin == "service" and not error.retryable
