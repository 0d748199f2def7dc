"""Waiting for a condition, never for a time."""

import asyncio
import time
from collections.abc import Callable

DEADLINE = 40.0  # seconds; what is waited for takes a fraction of one, and a loaded machine may take several
POLL = 0.02


async def until(condition: Callable[[], object], what: str, seconds: float = DEADLINE) -> None:
    """Return once `condition()` is true; fail, naming what was waited for, when it has not become so."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds:g} s in vain for {what}"
        await asyncio.sleep(POLL)
