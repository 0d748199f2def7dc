"""What waits for an answer: calls for their reply, job handles for progress and result."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from typing import Generic, TypeVar, cast
from weakref import WeakValueDictionary

from bus.contracts.contract import Contract, Message, decode
from bus.errors import BusError, ConnectionLost, ContractViolation, DeadlineExceeded, NotServed, Unknown, error_for
from bus.messaging.envelope import ERROR_TYPE, PROGRESS_SUFFIX, REPLY_SUFFIX, Envelope, ErrorReply, Progress
from bus.messaging.timers import Deadlines

__all__ = ["JobHandle", "Replies", "answer_of", "error_in"]

R = TypeVar("R", bound=Message | None)

MOST_UPDATES = 1000
"""Updates that a handle keeps for a reader that lags; older ones are of no interest to anybody."""


def answer_of(contract: Contract, answer: Envelope) -> Message | None:
    """The reply's or result's message; raises the error that an error reply carries."""
    error = error_in(answer)
    if error is not None:
        raise error
    if answer.type != f"{contract.type}{REPLY_SUFFIX}":
        raise Unknown(f"{contract.type} was answered with {answer.type}; is its service another version of the bus?")
    return cast("Message | None", decode(contract.reply, answer.body))


def error_in(answer: Envelope) -> BusError | None:
    """The error that an error reply carries."""
    if answer.type != ERROR_TYPE:
        return None
    body: ErrorReply = decode(ErrorReply, answer.body)
    return error_for(body.code, body.message, maybe_executed=body.maybe_executed)


class Replies:
    """The map of calls and jobs that wait; the observer of what concerns them."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop
        self._deadlines = Deadlines()
        self._calls: dict[str, _Call] = {}
        self._jobs: WeakValueDictionary[str, JobHandle[Message | None]] = WeakValueDictionary()
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

    def follow(self, handle: "JobHandle[R]") -> None:
        """Updates of the job go to `handle` for as long as somebody holds it."""
        self._jobs[handle.id] = cast("JobHandle[Message | None]", handle)

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


class Asked:
    """What was sent, as far as an answer is held to it."""

    __slots__ = ("lasting", "proofs", "type")

    def __init__(self, type_: str, *, lasting: bool) -> None:
        self.type = type_
        self.proofs: tuple[str, ...] = ()
        """The token, or of a job the proof of each attempt: an error that answers something else is none."""
        self.lasting = lasting
        """Whether its answers prove themselves: those of a job do, whose result may be a long time in coming."""


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


class JobHandle(Generic[R]):
    """A submitted job, seen by its submitter. It hears of the job as long as its process and its bus live."""

    def __init__(self, job_id: str, contract: Contract, *, patience: float) -> None:
        """`patience` is how long, in seconds, `result` and `updates` wait at most: a job ends at its `expires`."""
        self.id = job_id
        self.type = contract.type
        self.asked = Asked(contract.type, lasting=True)
        self._contract = contract
        self._patience = patience
        self._updates: deque[Progress] = deque(maxlen=MOST_UPDATES)
        self._count = 0
        self._changed = asyncio.Event()
        self._answer: Envelope | None = None
        self._deaf = False

    def end(self) -> None:
        """Nothing more will be heard: who waits is told so."""
        self._deaf = True
        self._tell()

    def take(self, envelope: Envelope) -> None:
        """An update from the worker. What comes after the result is dropped."""
        if self._answer is not None:
            return
        if envelope.type == f"{self._contract.type}{PROGRESS_SUFFIX}":
            self._note(envelope)
        else:
            self._answer = envelope
        self._tell()

    def _tell(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def _note(self, envelope: Envelope) -> None:
        try:
            self._updates.append(decode(Progress, envelope.body))
        except ContractViolation:
            return  # what is no progress is worth nothing, and must not end the consumer that brought it
        self._count += 1

    async def updates(self) -> AsyncIterator[Progress]:
        """Progress as it comes, from the first on; ends with the job."""
        seen = 0
        while True:
            while seen < self._count:
                seen = max(seen, self._count - len(self._updates))
                yield self._updates[seen - self._count]
                seen += 1
            if self._answer is not None:
                return
            self._check()
            await self._wait(self._patience)

    async def result(self, *, timeout: float | None = None) -> R:
        """The job's result; raises what the job raised at last, or `DeadlineExceeded` after `timeout` seconds.

        `ConnectionLost` where the bus was closed before.
        """
        patience = self._patience if timeout is None else timeout
        try:
            async with asyncio.timeout(patience):
                while self._answer is None:
                    self._check()
                    await self._changed.wait()
        except TimeoutError:
            raise DeadlineExceeded(f"job {self.id} is not done after {patience:.3g} s; it goes on") from None
        return cast("R", answer_of(self._contract, self._answer))

    def _check(self) -> None:
        if self._deaf:
            raise ConnectionLost(f"job {self.id}: the bus was closed before its result came; it goes on", maybe_executed=True)

    async def _wait(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._changed.wait()
        except TimeoutError:
            raise DeadlineExceeded(f"job {self.id} has not been heard of for {seconds:.3g} s") from None
