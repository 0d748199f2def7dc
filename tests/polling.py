"""Waiting for a condition instead of a fixed time."""

import asyncio
import time
from collections.abc import Callable

# Seconds. A condition takes a fraction of a second, and several seconds on a busy machine.
DEADLINE = 40.0
POLL = 0.02
BRIEF = 0.001


async def until(
    condition: Callable[[], object], what: str, seconds: float = DEADLINE, *, poll: float = POLL
) -> None:
    """Return once `condition()` is true, or fail after `seconds` with `what` in the text.

    The condition is checked every `poll` seconds. To see the loss of a connection, pass
    `poll=BRIEF`, because the client can be connected again within milliseconds.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds:g} s without success for {what}"
        await asyncio.sleep(poll)
