"""Size limits of a recording, in bytes."""

from bus import InvalidArgument, OutOfRange

__all__ = ["check_size"]


def check_size(size: int, max_bytes: int) -> None:
    """Raise `InvalidArgument` for an empty recording, and `OutOfRange` for a too large recording.

    `ResourceExhausted` is not used, because the bus would retry the job.
    """
    if size == 0:
        raise InvalidArgument("the recording is empty (0 bytes). Check that its upload completed.")
    if size > max_bytes:
        problem = f"the recording is larger than {max_bytes:,} bytes"
        raise OutOfRange(f"{problem}. Split it, or raise TRANSCRIPTION_MAX_BYTES.")
