"""The answers to questions about the durable jobs of this service."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import cast

from bus.contracts.contract import decode
from bus.errors import (
    BusError,
    FailedPrecondition,
    NotFound,
    ResourceExhausted,
    Unauthenticated,
    Unavailable,
    Unimplemented,
)
from bus.messaging.context import current
from bus.messaging.envelope import Envelope
from bus.messaging.jobs.cancellation import cancelled_error
from bus.messaging.jobs.questions import (
    AboutJob,
    CancelJob,
    GetJob,
    JobAnswer,
    JobRight,
    cancel_contract,
    carry,
    get_contract,
)
from bus.messaging.jobs.records import CancelRequest, JobKey, JobRecord
from bus.messaging.jobs.status import status_of
from bus.messaging.ports.store import Store
from bus.messaging.topology.names import split_version
from bus.runtime.handler_result import encode_result
from bus.runtime.jobs.queue_passes import QueuePasses
from bus.runtime.service_runtime import ServiceRuntime

__all__ = ["JobAnswers"]

ANSWER_MARGIN_SECONDS = 0.5
"""Seconds before the deadline of a question at which the answer "unknown" is sent."""
MIN_ANSWER_SECONDS = 0.1
LONGEST_SECONDS = 30.0
"""Seconds to answer a question without a deadline."""
ENVELOPE_BYTES = 16 * 1024
"""Bytes of an answer that are kept for everything except the result."""
FIRST_LOOK_SECONDS, LONGEST_LOOK_SECONDS, LOOK_GROWTH = 0.02, 0.5, 1.5
"""Seconds between two looks for a job that may not be recorded yet, and their growth."""
LOOKS_AT_ONCE = 4
"""Number of questions that read the store at the same time, so that jobs have connections."""
MAX_WAITING, MAX_WAITING_OF_ASKER = 128, 64
"""Maximum number of questions about unknown jobs that wait, and of those that one service asks.

It is lower than the number of questions that a process answers. So others are answered while these
wait.
"""
RETRY_SECONDS = 2.0
"""Seconds after which a question may be asked again that was refused because too many wait."""

Report = Callable[[Envelope, BusError], Awaitable[None]]
"""A function that tells the submitter of a job that the job has ended with an error."""


class JobAnswers:
    """Answers `GetJob` and `CancelJob`. An instance is the handler of both contracts."""

    def __init__(
        self,
        runtime: ServiceRuntime,
        store: Store,
        passes: QueuePasses,
        queues: Mapping[str, str],
        report: Report,
    ) -> None:
        """Create the handler.

        Args:
            runtime: Objects that all parts of this process share.
            store: Store of the service.
            passes: Waits for the jobs that are not recorded yet.
            queues: Work queue of each type of job that this instance serves.
            report: Tells the submitter that a waiting job was cancelled.
        """
        self._runtime = runtime
        self._store = store
        self._passes = passes
        self._queues = queues
        self._report = report
        self._looks = asyncio.Semaphore(LOOKS_AT_ONCE)
        self._waiting: Counter[str] = Counter()
        """Number of questions of each asker that wait until earlier jobs are recorded."""
        self.contracts = (get_contract(runtime.service), cancel_contract(runtime.service))

    async def __call__(self, envelope: Envelope) -> Envelope:
        """Answer a question.

        Raises:
            NotFound: The job was never submitted, or the sender has no right to know of it.
            FailedPrecondition: The job has another type than the question.
            ResourceExhausted: Too many questions about unknown jobs wait already.
            Unauthenticated: The sender has not signed the order to cancel this job.
            Unavailable: The store cannot be reached. Or an instance can still hold the job.
            ContractViolation: The payload is not a question.
        """
        contract = next((each for each in self.contracts if each.type == envelope.type), None)
        if contract is None:
            raise Unimplemented(f"{self._runtime.service} does not answer {envelope.type}")
        question = decode(contract.model, envelope.body, subject=contract.type)
        asker = envelope.source
        if isinstance(question, CancelJob):
            answer = await self._cancel(question, asker)
        else:
            get = cast("GetJob", question)
            answer = self._describe(await self._find(get, asker, "read"), get)
        return encode_result(envelope, contract, answer, self._runtime.service)

    async def _cancel(self, question: CancelJob, asker: str) -> JobAnswer:
        verifier = self._runtime.security.identity.verifier
        order = question.to_order(asker, self._runtime.service)
        fault = verifier.check_reply(order, asker, is_job=True)
        if fault is not None:
            problem = f"the order to cancel the job is not signed by {asker!r}: {fault}"
            raise Unauthenticated(problem)
        before = await self._find(question, asker, "cancel")
        request = CancelRequest(by=asker, reason=question.reason, at=await self._store.now())
        after = await self._store.jobs.cancel(before.key, request)
        if after is None:
            raise _not_found(question)
        if after.state == "cancelled" and not before.has_ended and before.envelope is not None:
            # A job that waits has no worker that reports its end.
            await self._report(before.envelope, cancelled_error(status_of(after)))
        return JobAnswer(status=status_of(after))

    def _describe(self, record: JobRecord, question: GetJob) -> JobAnswer:
        progress, start, result = record.progress, question.result_from, None
        is_new = progress is not None and progress.number > question.after
        if start is not None and record.result is not None:
            limit = min(question.result_bytes, self._most_result_bytes())
            result = carry(record.result, max(start, 0), limit)
        update = None if progress is None or not is_new else progress.update
        return JobAnswer(
            status=status_of(record),
            reason=None if record.failure is None else record.failure.reason,
            is_pruned=record.is_pruned,
            progress=None if update is None else carry(update),
            result=result,
        )

    def _most_result_bytes(self) -> int:
        """Return the maximum number of bytes of a result in one answer, which is in base64."""
        return max((self._runtime.settings.max_message - ENVELOPE_BYTES) * 3 // 4, 1024)

    # --- Rights, and jobs that are not in the store ---

    async def _find(self, question: AboutJob, asker: str, right: JobRight) -> JobRecord:
        """Return a job that the asker may know of.

        A job that is hidden from the asker takes the same steps as one that does not exist. So
        neither the text nor the time of the answer shows a difference.
        """
        may_access = self._rights(question, asker, right)
        key = JobKey(question.submitter, question.id)

        async def look() -> JobRecord | None:
            async with self._looks:
                return may_access(await self._store.jobs.find(key))

        record = await look()
        if record is None:
            with self._place(asker):
                record = await self._look_until_recorded(look, question.type) or await look()
        if record is None:
            raise _not_found(question)
        if record.type != question.type:
            raise FailedPrecondition(
                f"the job with this id has the type {record.type}. Ask for it with the class of "
                "this type."
            )
        return record

    @contextmanager
    def _place(self, asker: str) -> Iterator[None]:
        """Hold one of the places for questions about unknown jobs inside the block.

        Raises:
            ResourceExhausted: All places, or all of this asker, are taken.
        """
        is_full = self._waiting.total() >= MAX_WAITING
        if is_full or self._waiting[asker] >= MAX_WAITING_OF_ASKER:
            raise ResourceExhausted(
                f"{self._runtime.service!r} looks for too many jobs that are not in its store. "
                "Ask again later, and for fewer unknown ids at once.",
                retry_after=RETRY_SECONDS,
            )
        self._waiting[asker] += 1
        try:
            yield
        finally:
            self._waiting[asker] -= 1
            if not self._waiting[asker]:
                del self._waiting[asker]

    def _rights(
        self, question: AboutJob, asker: str, right: JobRight
    ) -> Callable[[JobRecord | None], JobRecord | None]:
        """Return a function that hides a job from an asker without the right."""
        identity, is_submitter = self._runtime.security.identity, asker == question.submitter
        if not is_submitter:  # for its effect: a new right is read before the job is looked up
            identity.may_access_jobs(asker, right, _name_of(question.type))

        def visible(record: JobRecord | None) -> JobRecord | None:
            if record is None or is_submitter:
                return record
            is_granted = identity.may_access_jobs(asker, right, _name_of(record.type))
            return record if is_granted else None

        return visible

    async def _look_until_recorded(
        self, look: Callable[[], Awaitable[JobRecord | None]], type_: str
    ) -> JobRecord | None:
        """Look for a job until it is there, or until each earlier job of its type is recorded.

        A job that was submitted just now is recorded within milliseconds.
        """
        recorded = asyncio.ensure_future(self._wait_recorded(type_))
        pause = FIRST_LOOK_SECONDS
        try:
            while not recorded.done():
                await asyncio.wait([recorded], timeout=pause)
                pause = min(pause * LOOK_GROWTH, LONGEST_LOOK_SECONDS)
                if not recorded.done() and (record := await look()) is not None:
                    return record
            await recorded
        finally:
            recorded.cancel()
        return None

    async def _wait_recorded(self, type_: str) -> None:
        """Wait until each job of a type is recorded that was submitted before this call.

        Raises:
            Unavailable: That is not known in time. Or this instance does not serve the type, so
                another instance must answer.
        """
        queue = self._queues.get(type_)
        if queue is None:
            raise Unavailable(
                f"the instance of {self._runtime.service!r} that answered does not serve {type_}, "
                "and has no such job in its store. Check the class, and the version of the service."
            )
        try:
            async with asyncio.timeout(self._seconds_left()):
                await self._passes.wait_recorded(queue)
        except TimeoutError:
            raise Unavailable(
                f"{self._runtime.service!r} cannot tell yet whether it has the job. Not all of its "
                "instances have recorded what they received. Ask again."
            ) from None

    def _seconds_left(self) -> float:
        context = current.get()
        deadline = None if context is None else context.deadline
        if deadline is None:
            return LONGEST_SECONDS
        left = deadline / 1000 - self._runtime.clock() - ANSWER_MARGIN_SECONDS
        return max(left, MIN_ANSWER_SECONDS)


def _name_of(type_: str) -> str:
    parts = split_version(type_)
    return type_ if parts is None else parts[0]


def _not_found(question: AboutJob) -> NotFound:
    return NotFound(
        f"the service has no such job of the submitter {question.submitter!r}. "
        "Check the id, and the name of the service that submitted the job. Another service needs "
        "a right to its jobs (`jobs` in the grants)."
    )
