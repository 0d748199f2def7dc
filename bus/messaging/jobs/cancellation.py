"""The error of a job that was cancelled."""

from bus.errors import Cancelled
from bus.messaging.jobs.status import JobStatus

__all__ = ["cancelled_error"]


def cancelled_error(status: JobStatus) -> Cancelled:
    """Return the error that a reader of the result of a cancelled job gets."""
    by = "" if status.cancelled_by is None else f" by {status.cancelled_by}"
    reason = f": {status.cancel_reason}" if status.cancel_reason else ""
    return Cancelled(f"the job was cancelled{by}{reason}")
