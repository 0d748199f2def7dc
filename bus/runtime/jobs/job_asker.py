"""The asker of one job: it sends the questions of the job's handle to the service of the job."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import cast

from bus.contracts.contract import Contract, Message, encode
from bus.errors import (
    BusError,
    DeadlineExceeded,
    FailedPrecondition,
    NotServed,
    Unavailable,
)
from bus.messaging.envelope import ERROR_TYPE, Envelope, ErrorReply
from bus.messaging.jobs.cancellation import cancelled_error
from bus.messaging.jobs.questions import (
    AboutJob,
    CancelJob,
    CarriedUpdate,
    GetJob,
    JobAnswer,
    cancel_contract,
    get_contract,
)
from bus.messaging.jobs.records import JobKey
from bus.messaging.jobs.status import JobStatus
from bus.messaging.timers import format_seconds, utc_date_and_time
from bus.messaging.topology.names import service_of
from bus.runtime.error_subject import add_subject

__all__ = ["Ask", "JobAsker", "JobLook", "has_no_owner"]

ATTEMPT_SECONDS = 2.5
"""Seconds after which a question is sent again, to another instance: the first can be frozen."""
MAX_COPIES = 3
"""Maximum number of copies of a question."""
QUESTION_SECONDS = 10.0
"""Seconds in which the service must answer a question.

It can tell that a job does not exist after two signs of life of each of its instances.
"""
ENVELOPE_BYTES = 16 * 1024
"""Bytes of an answer that are kept for everything except the result."""

Ask = Callable[[Contract, Message, float], Awaitable[Message]]
"""A function that sends a question, and returns its reply within a number of seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobLook:
    """The state of a job, with decrypted updates."""

    status: JobStatus
    progress: Envelope | None
    result: Envelope | None
    """Result, or error. An error of the bus if the job has ended without either."""


class JobAsker:
    """Sends the questions about one job."""

    def __init__(
        self,
        contract: Contract,
        key: JobKey,
        *,
        ask: Ask,
        decrypt: Callable[[Envelope], Envelope],
        max_message: int,
    ) -> None:
        """Create the asker.

        Args:
            contract: Contract of the job.
            key: Submitter and id of the job.
            ask: Function that sends a question.
            decrypt: Function that decrypts an update with the keys of this service.
            max_message: Maximum number of bytes of an answer that this service reads.
        """
        self._contract = contract
        self._key = key
        self._ask = ask
        self._decrypt = decrypt
        self._part_bytes = max((max_message - ENVELOPE_BYTES) * 3 // 4, 1024)

    async def status(self) -> JobStatus:
        """Return the state of the job, without its result."""
        return (await self._get(result_from=None)).status

    async def cancel(self, reason: str) -> JobStatus:
        """Request the cancellation of the job, and return its state after that."""
        contract = cancel_contract(service_of(self._contract.type))
        return (await self._send(contract, CancelJob(**self._about, reason=reason))).status

    async def look(self, *, after: int) -> JobLook:
        """Return the state of the job, its progress after a number, and its result.

        Raises:
            NotFound: The service has no such job, or this service may not read it.
            FailedPrecondition: The job has another type. Or retention has removed its result.
            Unavailable: The service has not answered.
        """
        answer = await self._get(after=after, result_from=0)
        progress = answer.progress
        return JobLook(
            status=answer.status,
            progress=None
            if progress is None
            else self._decrypt(progress.to_envelope(progress.part)),
            result=await self._result(answer) if answer.status.has_ended else None,
        )

    async def _result(self, answer: JobAnswer) -> Envelope:
        """Return the result of a job that has ended.

        If a cancelled or failed job has no update, return an error with its reason. If a job was
        cancelled while its handler ended, the reason of the cancellation has priority.
        """
        status = answer.status
        if status.state == "cancelled":
            return self._error(cancelled_error(status).code, str(cancelled_error(status)))
        if answer.result is not None:
            return self._decrypt(answer.result.to_envelope(await self._body(answer.result)))
        if answer.is_pruned:
            raise self._named(
                FailedPrecondition(
                    f"the job has {status.state}, but its result was removed after the time for "
                    f"which the service keeps it (it ended {_moment(status.ended_at)}). "
                    "Read results earlier, or raise BUS_RETAIN_SUCCEEDED or "
                    "BUS_RETAIN_FAILED of the service."
                )
            )
        return self._error(status.code or "unknown", answer.reason or f"the job has {status.state}")

    async def _body(self, result: CarriedUpdate) -> bytes:
        """Return the whole body of a result. An answer has only a part of a large one."""
        body, size = result.part, result.size
        while len(body) < size:
            part = (await self._get(result_from=len(body))).result
            if part is None or part.id != result.id or not part.part:
                problem = "the result has changed while it was read. Ask again."
                raise self._named(Unavailable(problem))
            body += part.part
        return body

    def _error(self, code: str, text: str) -> Envelope:
        """Return an error reply, as the submitter would have received it."""
        error = ErrorReply(code=code, message=text, retryable=False)
        return Envelope(
            id=self._key.id,
            type=ERROR_TYPE,
            role="update",
            source=service_of(self._contract.type),
            body=encode(error),
            error=code,
            in_reply_to=self._key.id,
        )

    # --- Questions ---

    @property
    def _about(self) -> dict[str, str]:
        return {"submitter": self._key.submitter, "id": self._key.id, "type": self._contract.type}

    async def _get(self, *, after: int = 0, result_from: int | None) -> JobAnswer:
        contract = get_contract(service_of(self._contract.type))
        question = GetJob(
            **self._about, after=after, result_from=result_from, result_bytes=self._part_bytes
        )
        return await self._send(contract, question)

    async def _send(self, contract: Contract, question: AboutJob) -> JobAnswer:
        try:
            return cast("JobAnswer", await self._ask_instances(contract, question))
        except NotServed as error:
            raise self._named(
                Unavailable(
                    f"no instance of {contract.service!r} answers questions about jobs. Start the "
                    "service, and set its BUS_STORE: only a service with a durable store keeps the "
                    "state of its jobs."
                )
            ) from error
        except DeadlineExceeded as error:
            raise self._named(
                Unavailable(
                    f"no instance of {contract.service!r} has answered within "
                    f"{format_seconds(QUESTION_SECONDS)}. Check that the service runs, and that "
                    "its BUS_STORE is set."
                )
            ) from error
        except BusError as error:
            raise self._renamed(error, contract) from error.__cause__

    async def _ask_instances(self, contract: Contract, question: AboutJob) -> Message:
        """Send a question, and copies of it to other instances while none answers.

        A copy does no harm, because all questions are idempotent. An instance that proves that the
        job does not exist needs longer than an attempt, so the earlier copies stay valid.
        """
        ends = asyncio.get_running_loop().time() + QUESTION_SECONDS
        copies: list[asyncio.Future[Message]] = []
        try:
            while True:
                if len(copies) < MAX_COPIES:
                    left = ends - asyncio.get_running_loop().time()
                    copies.append(asyncio.ensure_future(self._ask(contract, question, left)))
                await asyncio.wait(
                    [each for each in copies if not each.done()],
                    timeout=ATTEMPT_SECONDS if len(copies) < MAX_COPIES else None,
                    return_when=asyncio.FIRST_COMPLETED,
                )
                ended = [each for each in copies if each.done()]
                for each in ended:
                    if not _may_be_answered(each.exception()):
                        return each.result()
                if ended and len(ended) == len(copies):
                    return min(ended, key=_is_silent).result()
        finally:
            for each in copies:
                each.cancel()
            await asyncio.gather(*copies, return_exceptions=True)

    def _renamed(self, error: BusError, question: Contract) -> BusError:
        """Let the text of an error begin with the job instead of the question."""
        text = str(error).removeprefix(f"{question.type}: ")
        if error.args == (str(error),):
            error.args = (text,)
            error.__dict__.pop("detail", None)
        return self._named(error)

    def _named(self, error: BusError) -> BusError:
        return add_subject(error, self._contract.type, self._key.id)


def _may_be_answered(error: BaseException | None) -> bool:
    """Return True if another instance may answer a question that has failed with an error."""
    return isinstance(error, BusError) and error.retryable and not isinstance(error, NotServed)


def _is_silent(copy: "asyncio.Future[Message]") -> bool:
    """Return True if no instance has answered a copy of a question."""
    return isinstance(copy.exception(), DeadlineExceeded)


def has_no_owner(error: BaseException) -> bool:
    """Return True if the broker has no queue for questions about the jobs of the service."""
    return isinstance(error.__cause__, NotServed)


def _moment(seconds: float | None) -> str:
    return "earlier" if seconds is None else f"at {utc_date_and_time(seconds)}"
