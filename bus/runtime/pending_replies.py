"""What waits for an answer: calls for their reply, job handles for progress and result."""

import asyncio
from typing import cast
from weakref import WeakValueDictionary

from bus.contracts.contract import Message
from bus.errors import BusError, ConnectionLost, DeadlineExceeded, NotServed
from bus.messaging.envelope import Envelope
from bus.messaging.timers import Deadlines
from bus.runtime.job_handle import PendingJob
from bus.runtime.pending_request import Asked, R

__all__ = ["Replies"]


class Replies:
    """The map of calls and jobs that wait; the observer of what concerns them."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop
        self._deadlines = Deadlines()
        self._calls: dict[str, _Call] = {}
        self._jobs: WeakValueDictionary[str, PendingJob[Message | None]] = WeakValueDictionary()
        self.late = 0
        """Replies for which nobody waited any more."""
        self.undeliverable = 0
        """Replies of ours whose caller was gone."""

    def begin(self) -> None:
        """From now on calls wait on the running loop."""
        self._loop = asyncio.get_running_loop()

    def expect(self, message_id: str, seconds: float, type_: str, token: str | None = None) -> asyncio.Future[Envelope]:
        """A call that waits for the reply to `message_id`, and fails with `DeadlineExceeded` after `seconds`. `forget` it in the end.

        `type_` is what was asked, `token` what it was asked with.
        """
        loop = self._loop
        call: asyncio.Future[Envelope] = loop.create_future()
        waiting = self._calls[message_id] = _Call(call, type_, token)
        self._deadlines.add(loop, call, loop.time() + seconds, waiting.late)
        return call

    def forget(self, message_id: str, call: asyncio.Future[Envelope]) -> None:
        """Nobody waits for it any more, however that came."""
        del self._calls[message_id]
        self._deadlines.discard(self._loop, call)
        if not call.cancel() and not call.cancelled():
            call.exception()  # looked at, or asyncio would report that nobody did

    def follow(self, handle: "PendingJob[R]") -> None:
        """Updates of the job go to `handle` for as long as somebody holds it."""
        self._jobs[handle.id] = cast("PendingJob[Message | None]", handle)

    def sent(self, job: Envelope) -> None:
        """Another attempt to send it, with a proof of its own."""
        handle = self._jobs.get(job.id)
        if handle is not None and job.proof is not None:
            handle.asked.proofs = (*handle.asked.proofs, job.proof)

    def take(self, envelope: Envelope) -> None:
        """Hand a reply or update to who waits for it; what nobody waits for is counted and dropped."""
        target = envelope.in_reply_to or ""
        call = self._calls.get(target)
        if call is not None and not call.answer.done():
            call.answer.set_result(envelope)
        elif (handle := self._jobs.get(target)) is not None:
            handle.take(envelope)
        else:
            self.late += 1

    def asked(self, envelope: Envelope) -> "Asked | None":
        """The request or job that this answers; None where nobody waits for it."""
        target = envelope.in_reply_to or ""
        call = self._calls.get(target)
        if call is not None:
            return call
        handle = self._jobs.get(target)
        return None if handle is None else handle.asked

    def refused(self, envelope: Envelope, why: str) -> None:
        """An answer that is not the service's is dropped: the right one may come yet. Who waits in vain hears of it at the end."""
        call = self._calls.get(envelope.in_reply_to or "")
        if call is not None:
            call.refused = why

    def returned(self, message_id: str, reason: str) -> None:
        """A request that no queue takes fails at once; a reply that comes back had a caller that is gone."""
        call = self._calls.get(message_id)
        if call is None:
            self.undeliverable += 1
        elif not call.answer.done():
            call.answer.set_exception(NotServed(f"nobody serves it ({reason}); start the service that does, in this version"))

    def failed(self, message_id: str, error: BusError) -> None:
        """A request that the broker refused, or dropped with its channel, fails at once."""
        call = self._calls.get(message_id)
        if call is not None and not call.answer.done():
            call.answer.set_exception(error)

    def lost(self) -> None:
        """Every call under way fails now: its reply queue went with the connection."""
        for call in self._calls.values():
            if not call.answer.done():
                call.answer.set_exception(ConnectionLost("the connection went while waiting for the reply", maybe_executed=True))

    def end(self) -> None:
        """The bus is closed: no reply comes any more, and no result."""
        self.lost()
        for handle in [*self._jobs.values()]:
            handle.end()


class _Call(Asked):
    """A call that waits."""

    __slots__ = ("answer", "refused")

    def __init__(self, answer: "asyncio.Future[Envelope]", type_: str, token: str | None) -> None:
        self.answer = answer
        self.type = type_
        self.lasting = False
        self.proofs = () if token is None else (token,)
        self.refused: str | None = None
        """Why the last answer that came was none."""

    def late(self) -> None:
        """Its time is up."""
        if not self.answer.done():
            why = f"; one that came was refused: {self.refused}" if self.refused else ""
            self.answer.set_exception(DeadlineExceeded(f"no reply within the deadline{why}", maybe_executed=True))
