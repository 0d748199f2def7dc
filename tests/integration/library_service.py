"""A service for tests of the command line: it answers, works, fails and hears, and remembers what reached it."""

import asyncio

from bus import Context, Event, Job, Message, NotFound, Request, Router, contract

__all__ = ["BookScanned", "FindBook", "Place", "ScanBook", "heard", "router"]


class Place(Message):
    shelf: str


@contract("library.find", version=1, idempotent=True)
class FindBook(Request[Place]):
    """Where a book stands."""

    title: str
    seconds: float = 0
    """How long to look for it."""


@contract("library.scan", version=1)
class ScanBook(Job[Place]):
    """Make images of its pages."""

    title: str
    seconds: float = 0


@contract("library.scanned", version=1)
class BookScanned(Event):
    """A book can be read."""

    title: str


heard: list[str] = []
router = Router("library")


@router.request(FindBook)
async def find(request: FindBook) -> Place:
    heard.append(request.title)
    await asyncio.sleep(request.seconds)
    if request.title != "Emma":
        raise NotFound("no such book \x1b[2J")
    return Place(shelf="A3 ☃ \x9b2J")


@router.job(ScanBook, concurrency=2)
async def scan(job: ScanBook, context: Context) -> Place:
    heard.append(job.title)
    await context.progress(0.5, "half of it")
    await asyncio.sleep(job.seconds)
    return Place(shelf="B1")


@router.event(BookScanned)
async def on_scanned(event: BookScanned) -> None:
    heard.append(event.title)
