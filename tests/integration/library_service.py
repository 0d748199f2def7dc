"""A service for tests of the command line.

It handles requests, jobs and events, can fail, and records the messages that it received.
"""

import asyncio

from bus import Context, Event, Job, Message, NotFound, Request, Router, contract

__all__ = ["BookScanned", "FindBook", "Place", "ScanBook", "heard", "router"]


class Place(Message):
    shelf: str


@contract("library.find", version=1, idempotent=True)
class FindBook(Request[Place]):
    """The place of a book."""

    title: str
    seconds: float = 0
    """Seconds that the search takes."""


@contract("library.scan", version=1)
class ScanBook(Job[Place]):
    """The work of making images of a book's pages."""

    title: str
    seconds: float = 0


@contract("library.scanned", version=1)
class BookScanned(Event):
    """The notice that a book can be read."""

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
