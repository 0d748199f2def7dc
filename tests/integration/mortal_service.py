"""A service for tests in which some messages kill the process.

They end it as a crash in native code does: at once, with all its unsettled deliveries. The file in
the variable `MORTAL_DIARY` has a line for each message that was handled or that killed the process.
"""

import asyncio
import os
from collections import Counter
from pathlib import Path

from bus import Context, Event, Job, Router, contract

__all__ = ["KILLER", "SLOW", "Noted", "Tidy", "entries", "router"]

KILLER, SLOW = "killer", "slow"
ON_THEIR_WAY = 0.2
"""Seconds for the acks of handled messages to reach the broker.

Without this wait a handled message could be redelivered, and handling it twice would not be a bug.
"""
SLOWLY = 0.5
"""Seconds of work of a slow message, which are more than the time until the process is killed."""


@contract("mortal.tidy", version=1)
class Tidy(Job[None]):
    name: str
    together: int
    """Number of messages in the process when the killer first kills it."""


@contract("mortal.noted", version=1)
class Noted(Event):
    name: str
    together: int


router = Router("mortal")
here = Counter[str]()


@router.job(Tidy, concurrency=200)
async def tidy(job: Tidy, context: Context) -> None:
    await handled(job.name, job.together, context.envelope.attempt)


@router.event(Noted, concurrency=200)
async def noted(event: Noted, context: Context) -> None:
    await handled(event.name, event.together, context.envelope.attempt)


async def handled(name: str, together: int, attempt: int) -> None:
    diary = Path(os.environ["MORTAL_DIARY"])
    here[name] += 1
    if name.startswith(KILLER):
        # The state is in a file of another process, so it is polled.
        while not entries(diary, "killed") and len(here) < together:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        await asyncio.sleep(ON_THEIR_WAY)
        write(diary, "killed", name, len(here))
        os._exit(1)
    # Until the first kill a message only waits in the process.
    while not entries(diary, "killed"):  # noqa: ASYNC110
        await asyncio.sleep(0.05)
    if name.startswith(SLOW):
        await asyncio.sleep(SLOWLY)
    write(diary, "done", name, attempt)
    del here[name]


def write(diary: Path, *entry: object) -> None:
    with diary.open("a", encoding="utf-8") as file:
        print(*entry, file=file)


def entries(diary: Path, what: str) -> list[tuple[str, int]]:
    """Return the names of one kind of entry, each with a number.

    The number is the attempt of a handled message. For a killer it is the number of messages that
    were in the process, with the killer.
    """
    lines = diary.read_text(encoding="utf-8").splitlines() if diary.exists() else []
    return [(name, int(number)) for kind, name, number in map(str.split, lines) if kind == what]
