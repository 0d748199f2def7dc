"""What waits for an answer: calls for their reply, job handles for progress and result."""

import asyncio
from typing import cast
from weakref import WeakValueDictionary

from bus.contracts.contract import Message
from bus.errors import BusError, ConnectionLost, DeadlineExceeded, NotServed
from bus.messaging.envelope import Envelope
from bus.messaging.timers import SharedTimer
from bus.runtime.job_handle import PendingJob
from bus.runtime.pending_request import PendingRequest, R

__all__ = ["PendingReplies"]


class PendingReplies:
    """The map of calls and jobs that wait; the observer of what concerns them."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop
        self._deadlines = SharedTimer()
        self._calls: dict[str, PendingCall] = {}
        self._jobs: WeakValueDictionary[str, PendingJob[Message | None]] = WeakValueDictionary()
        self.late = 0
        """Replies for which nobody waited any more."""
        self.undeliverable = 0
        """Replies of ours whose caller was gone."""

    def start(self) -> None:
        """From now on calls wait on the running loop."""
        self._loop = asyncio.get_running_loop()

    def register(
        self, message_id: str, seconds: float, type_: str, token: str | None = None
    ) -> asyncio.Future[Envelope]:
        """A call that waits for the reply to `message_id`, and fails with `DeadlineExceeded` after `seconds`. `forget` it in the end.

        `type_` is what was asked, `token` what it was asked with.
        """
        loop = self._loop
        call: asyncio.Future[Envelope] = loop.create_future()
        waiting = self._calls[message_id] = PendingCall(call, type_, token)
        self._deadlines.add(loop, call, loop.time() + seconds, waiting.on_deadline)
        return call

    def discard(self, message_id: str, call: asyncio.Future[Envelope]) -> None:
        """Nobody waits for it any more, however that came."""
        del self._calls[message_id]
        self._deadlines.discard(self._loop, call)
        if not call.cancel() and not call.cancelled():
            call.exception()  # looked at, or asyncio would report that nobody did

    def track_job(self, handle: "PendingJob[R]") -> None:
        """Updates of the job go to `handle` for as long as somebody holds it."""
        self._jobs[handle.id] = cast("PendingJob[Message | None]", handle)

    def record_job_sent(self, job: Envelope) -> None:
        """Another attempt to send it, with a proof of its own."""
        handle = self._jobs.get(job.id)
        if handle is not None and job.proof is not None:
            handle.request.proofs = (*handle.request.proofs, job.proof)

    def dispatch(self, envelope: Envelope) -> None:
        """Hand a reply or update to who waits for it; what nobody waits for is counted and dropped."""
        target = envelope.in_reply_to or ""
        call = self._calls.get(target)
        if call is not None and not call.answer.done():
            call.answer.set_result(envelope)
        elif (handle := self._jobs.get(target)) is not None:
            handle.on_update(envelope)
        else:
            self.late += 1

    def find_request(self, envelope: Envelope) -> "PendingRequest | None":
        """The request or job that this answers; None where nobody waits for it."""
        target = envelope.in_reply_to or ""
        call = self._calls.get(target)
        if call is not None:
            return call
        handle = self._jobs.get(target)
        return None if handle is None else handle.request

    def record_rejected_reply(self, envelope: Envelope, why: str) -> None:
        """An answer that is not the service's is dropped: the right one may come yet. Who waits in vain hears of it at the end."""
        call = self._calls.get(envelope.in_reply_to or "")
        if call is not None:
            call.rejection = why

    def on_return(self, message_id: str, reason: str) -> None:
        """A request that no queue takes fails at once; a reply that comes back had a caller that is gone."""
        call = self._calls.get(message_id)
        if call is None:
            self.undeliverable += 1
        elif not call.answer.done():
            call.answer.set_exception(
                NotServed(
                    f"nobody serves it ({reason}); start the service that does, in this version"
                )
            )

    def on_publish_failed(self, message_id: str, error: BusError) -> None:
        """A request that the broker refused, or dropped with its channel, fails at once."""
        call = self._calls.get(message_id)
        if call is not None and not call.answer.done():
            call.answer.set_exception(error)

    def on_connection_lost(self) -> None:
        """Every call under way fails now: its reply queue went with the connection."""
        for call in self._calls.values():
            if not call.answer.done():
                call.answer.set_exception(
                    ConnectionLost(
                        "the connection went while waiting for the reply", maybe_executed=True
                    )
                )

    def close(self) -> None:
        """The bus is closed: no reply comes any more, and no result."""
        self.on_connection_lost()
        for handle in [*self._jobs.values()]:
            handle.close()


class PendingCall(PendingRequest):
    """A call that waits."""

    __slots__ = ("answer", "rejection")

    def __init__(self, answer: "asyncio.Future[Envelope]", type_: str, token: str | None) -> None:
        self.answer = answer
        self.type = type_
        self.is_job = False
        self.proofs = () if token is None else (token,)
        self.rejection: str | None = None
        """Why the last answer that came was none."""

    def on_deadline(self) -> None:
        """Its time is up."""
        if not self.answer.done():
            why = f"; one that came was refused: {self.rejection}" if self.rejection else ""
            self.answer.set_exception(
                DeadlineExceeded(f"no reply within the deadline{why}", maybe_executed=True)
            )
