"""A service for tests, some of whose messages end its process as a fault in native code does: at once, with all that it holds.

What is done and what kills is written down, a line each, in the file that the variable `MORTAL_DIARY` names.
"""

import asyncio
import os
from collections import Counter
from pathlib import Path

from bus import Context, Event, Job, Router, contract

__all__ = ["KILLER", "SLOW", "Noted", "Tidy", "entries", "router"]

KILLER, SLOW = "killer", "slow"
ON_THEIR_WAY = 0.2
"""Seconds in which the acks of what is done reach the broker: a neighbour's second effect would be nobody's fault."""
SLOWLY = 0.5
"""Seconds of work: longer than who kills beside it lets it live."""


@contract("mortal.tidy", version=1)
class Tidy(Job[None]):
    name: str
    together: int
    """How many are there when it first kills."""


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
        while not entries(diary, "killed") and len(here) < together:  # noqa: ASYNC110 - a file is asked
            await asyncio.sleep(0.01)
        await asyncio.sleep(ON_THEIR_WAY)
        write(diary, "killed", name, len(here))
        os._exit(1)
    while not entries(diary, "killed"):  # noqa: ASYNC110 - a file is asked; until then it is there, and has done nothing
        await asyncio.sleep(0.05)
    if name.startswith(SLOW):
        await asyncio.sleep(SLOWLY)
    write(diary, "done", name, attempt)
    del here[name]


def write(diary: Path, *entry: object) -> None:
    with diary.open("a", encoding="utf-8") as file:
        print(*entry, file=file)


def entries(diary: Path, what: str) -> list[tuple[str, int]]:
    """Names, with the attempt of what is done, and the company of what killed."""
    lines = diary.read_text(encoding="utf-8").splitlines() if diary.exists() else []
    return [(name, int(number)) for kind, name, number in map(str.split, lines) if kind == what]
