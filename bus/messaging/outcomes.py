"""Outcomes: the label that tells whether a message succeeded, or with which error it failed."""

import asyncio
from typing import Final

from bus.errors import Cancelled, Internal, code_of

__all__ = ["OK", "outcome_of"]

OK: Final = "ok"


def outcome_of(error: BaseException | None) -> str:
    """Return `ok`, or the code of an error. The function never raises an error."""
    if error is None:
        return OK
    if isinstance(error, asyncio.CancelledError):
        return Cancelled.code
    try:
        code: object = code_of(error)
    except Exception:  # noqa: BLE001 - a user's class can have a property that fails
        return Internal.code
    return code if isinstance(code, str) else Internal.code
