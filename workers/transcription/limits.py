"""How large a recording may be, in bytes."""

from bus import InvalidArgument, OutOfRange

__all__ = ["check_size"]


def check_size(size: int, max_bytes: int) -> None:
    """Refuse nothing at all, and too much: `InvalidArgument`, `OutOfRange` (not `ResourceExhausted`, which is tried again)."""
    if size == 0:
        raise InvalidArgument("the recording is empty (0 bytes); check that its upload was complete")
    if size > max_bytes:
        raise OutOfRange(f"the recording is larger than {max_bytes:,} bytes; split it, or raise TRANSCRIPTION_MAX_BYTES")
