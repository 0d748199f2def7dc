"""Checks of the arguments of a job's handle."""

from typing import Any

from bus.contracts.contract import Contract, check_part, contract_of, require_resolved
from bus.contracts.limits import describe, is_number
from bus.errors import ConfigurationError, ContractError
from bus.messaging.envelope import MAX_TEXT_LENGTH
from bus.messaging.jobs.questions import MAX_REASON_LENGTH
from bus.messaging.jobs.records import JobKey

__all__ = ["check_after", "check_job", "check_reason"]


def check_job(job: Any, job_id: Any, submitter: Any) -> tuple[Contract, JobKey]:
    """Return the contract and the key of a job that a caller names.

    Args:
        job: Class of the job.
        job_id: Message id of the job.
        submitter: Name of the service that submitted the job.

    Raises:
        ContractError: The class has no contract, or is not a job.
        ConfigurationError: The id or the submitter is not valid.
    """
    contract = contract_of(job)
    if contract.kind != "job":
        raise ContractError(
            f"{contract.type} is a contract of kind {contract.kind}, not job. "
            "Pass the class of the job that was submitted."
        )
    require_resolved(contract)
    if not isinstance(job_id, str) or not 0 < len(job_id) <= MAX_TEXT_LENGTH:
        raise ConfigurationError(
            f"{contract.type}: the id of a job must be a text of 1 to {MAX_TEXT_LENGTH} "
            f"characters, not {_shown(job_id)}. Pass the attribute `id` of its handle."
        )
    if not isinstance(submitter, str):
        raise ConfigurationError(
            f"{contract.type}: submitter must be the name of a service, not {_shown(submitter)}. "
            'Write a name such as "billing", or leave submitter out.'
        )
    check_part(submitter, "service")
    return contract, JobKey(submitter, job_id)


def check_after(after: Any, subject: str) -> int:
    """Return the number of an update.

    Raises:
        ConfigurationError: It is not a whole number from 0.
    """
    if is_number(after, int) and after >= 0:
        return int(after)
    raise ConfigurationError(
        f"{subject}: after must be a whole number from 0, not {describe(after)}. "
        "Pass the attribute `number` of the last update."
    )


def check_reason(reason: Any, subject: str) -> str:
    """Return the reason of a cancellation.

    Raises:
        ConfigurationError: It is not a text, or is too long.
    """
    if isinstance(reason, str) and len(reason) <= MAX_REASON_LENGTH:
        return reason
    raise ConfigurationError(
        f"{subject}: reason must be a text of at most {MAX_REASON_LENGTH} characters, not "
        f"{_shown(reason)}. Write a short reason for the operators."
    )


def _shown(value: Any) -> str:
    """Return the length of a text, or the type of another value. Never show a text itself."""
    if isinstance(value, str):
        return f"{len(value)} characters"
    return "None" if value is None else f"a value of type {type(value).__name__}"
