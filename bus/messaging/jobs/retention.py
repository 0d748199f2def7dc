"""The time for which a store remembers a job that has ended."""

from typing import Final

from bus.messaging.jobs.records import JobRecord

__all__ = ["COPIES_SECONDS", "PRUNED", "can_have_copies"]

COPIES_SECONDS: Final = 3 * 31 * 24 * 3600.0
"""Longest time for which operators can extend an expired message: three times, 31 days each."""

PRUNED: Final = "{id}: retention has removed the payload of this job. Submit a new job."
"""Text of the error for a retry of a job without its payload."""


def can_have_copies(record: JobRecord, now: float) -> bool:
    """Return True if a copy of the message can still arrive, so that its key must be remembered.

    A message without `expires` never expires, so its copies can always arrive.
    """
    if record.expires is None:
        return True
    return now < max(record.expires, record.recorded_at) + COPIES_SECONDS
