"""The questions about durable jobs, which a service answers beside its own contracts.

Each service has two contracts, `<service>.bus-jobs.get` and `<service>.bus-jobs.cancel`. They are
not in the catalog, because a user does not declare them.
"""

from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from functools import lru_cache
from typing import Final, Literal, get_args

from pydantic import Field

from bus.contracts.contract import Contract, Message
from bus.errors import Undecodable
from bus.messaging.envelope import Envelope
from bus.messaging.jobs.status import JobStatus

__all__ = [
    "JOB_RIGHTS",
    "MAX_REASON_LENGTH",
    "AboutJob",
    "CancelJob",
    "CarriedUpdate",
    "GetJob",
    "JobAnswer",
    "JobRight",
    "cancel_contract",
    "carry",
    "get_contract",
    "is_question",
]

JobRight = Literal["read", "cancel"]
"""Right to ask about the jobs of another submitter, or to cancel them."""
JOB_RIGHTS: Final[tuple[JobRight, ...]] = get_args(JobRight)
QUESTIONS: Final = ".bus-jobs."
"""Part of the names of both contracts, between the service and the operation."""
MAX_REASON_LENGTH = 200
"""Maximum number of characters in the reason of a cancellation."""


class AboutJob(Message):
    """A question about one job."""

    submitter: str
    """Service that submitted the job."""
    id: str
    """Message id of the job."""
    type: str
    """Type of the job, `<name>.v<version>`."""


class GetJob(AboutJob):
    """Question for the state of a job, its last progress and its result."""

    after: int = 0
    """Number of a progress update. The answer has the last update only if its number is higher."""
    result_from: int | None = None
    """Number of bytes of the result that the asker has already. None: without the result."""
    result_bytes: int = Field(default=1024 * 1024, ge=1)
    """Maximum number of bytes of the result that the asker accepts in this answer."""


class CancelJob(AboutJob):
    """Order to cancel a job."""

    reason: str = Field(default="", max_length=MAX_REASON_LENGTH)
    """Reason for the operators. It has no data of the payload."""


class CarriedUpdate(Message):
    """An update of a job as the service has stored it, inside an answer.

    The payload of an encrypted contract is still encrypted for the message that this update is.
    """

    id: str
    type: str
    source: str
    correlation_id: str
    in_reply_to: str | None
    timestamp: int
    error: str | None = None
    headers: dict[str, str | int] = Field(default_factory=dict)
    size: int
    """Number of bytes of the whole body."""
    body: str
    """A part of the body in base64. Its beginning is the `result_from` of the question."""

    @property
    def part(self) -> bytes:
        """The bytes of this part of the body.

        Raises:
            Undecodable: The text is not base64.
        """
        try:
            return b64decode(self.body, validate=True)
        except Base64Error:
            raise Undecodable("the answer of the service has a body that is not base64") from None

    def to_envelope(self, body: bytes) -> Envelope:
        """Return the update with its whole body."""
        return Envelope(
            id=self.id,
            type=self.type,
            role="update",
            source=self.source,
            body=body,
            timestamp=self.timestamp,
            correlation_id=self.correlation_id,
            in_reply_to=self.in_reply_to,
            error=self.error,
            headers=self.headers,
        )


class JobAnswer(Message):
    """Answer to a question about a job."""

    status: JobStatus
    reason: str | None = None
    """Reason of the last error, without values of the payload. None if no attempt failed."""
    is_pruned: bool = False
    """True if retention has removed the payload and the result."""
    progress: CarriedUpdate | None = None
    """Last stored progress update, if its number is higher than `after`."""
    result: CarriedUpdate | None = None
    """Update with the result or the error, if the question asks for it and the job has ended."""


def carry(update: Envelope, start: int = 0, limit: int | None = None) -> CarriedUpdate:
    """Return a stored update with a part of its body, at most `limit` bytes from `start`."""
    end = None if limit is None else start + limit
    return CarriedUpdate(
        id=update.id,
        type=update.type,
        source=update.source,
        correlation_id=update.correlation_id,
        in_reply_to=update.in_reply_to,
        timestamp=update.timestamp,
        error=update.error,
        headers=dict(update.headers),
        size=len(update.body),
        body=b64encode(update.body[start:end]).decode(),
    )


@lru_cache(maxsize=1024)
def get_contract(service: str) -> Contract:
    """Return the contract of `GetJob` of a service."""
    return _contract(service, "get", GetJob)


@lru_cache(maxsize=1024)
def cancel_contract(service: str) -> Contract:
    """Return the contract of `CancelJob` of a service."""
    return _contract(service, "cancel", CancelJob)


def is_question(type_: str) -> bool:
    """Return True if messages of a type are questions about jobs, which the bus itself asks."""
    return QUESTIONS in type_


def _contract(service: str, operation: str, model: type[Message]) -> Contract:
    name = f"{service}{QUESTIONS}{operation}"
    return Contract(
        name=name,
        version=1,
        kind="request",
        model=model,
        reply=JobAnswer,
        permission=name,
        # A second request to cancel a job does not replace the first, so the bus may send it again.
        idempotent=True,
    )
