"""The lifetime of a job that begins its next life."""

from bus.messaging.envelope import Envelope
from bus.messaging.jobs.records import JobRecord

__all__ = ["in_life", "next_expires"]


def next_expires(record: JobRecord, now: float) -> float | None:
    """Return when the next life of a job expires, in seconds since the epoch.

    A life is as long as the message was to live when it was submitted. With the old time, an
    expired job would expire again at once. None: the job does not expire.

    Args:
        record: The failed job.
        now: Present time in seconds since the epoch.
    """
    if record.expires is None:
        return None
    begins = [life.at for life in record.lives] or [record.submitted_at]
    # Copies of the message live until the old time, so a new one is never earlier.
    return max(record.expires, now + record.expires - begins[-1])


def in_life(envelope: Envelope, life: int, expires: float | None) -> Envelope:
    """Return the message of a job, which expires with the life of this attempt.

    Args:
        envelope: Message as received.
        life: Number of the life. The first one ends with the message.
        expires: Time when this life expires, in seconds since the epoch.
    """
    if life == 1 or expires is None:
        return envelope
    return envelope.replace(expires=round(expires * 1000))
