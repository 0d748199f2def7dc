"""The service that demo.mjs calls, and the contracts of both services (see README.md)."""

import asyncio

from bus import Context, Event, Job, Message, NotFound, Request, Router, contract

SHELVES = {"Emma": "A3"}
PAGES = 4


class Place(Message):
    shelf: str


class Scan(Message):
    pages: int


@contract("library.find", version=1, idempotent=True)
class FindBook(Request[Place]):
    title: str


@contract("library.scan", version=1, encrypted=True)
class ScanBook(Job[Scan]):
    title: str


@contract("library.scanned", version=1)
class BookScanned(Event):
    title: str


class Engraving(Message):
    text: str


@contract("atelier.engrave", version=1, encrypted=True)
class EngraveTitle(Request[Engraving]):
    title: str


@contract("atelier.bind", version=1, encrypted=True)
class BindBook(Job[Scan]):
    title: str


@contract("atelier.bound", version=1)
class BookBound(Event):
    title: str


router = Router("library")


@router.request(FindBook)
async def find(request: FindBook) -> Place:
    if request.title not in SHELVES:
        raise NotFound("no such book")
    return Place(shelf=SHELVES[request.title])


@router.job(ScanBook)
async def scan(job: ScanBook, context: Context) -> Scan:
    for page in range(1, PAGES + 1):
        await asyncio.sleep(0.1)
        await context.progress(page / PAGES, f"page {page}")
    await context.bus.publish(BookScanned(title=job.title))
    return Scan(pages=PAGES)


@router.event(BookBound)
async def shelve(event: BookBound) -> None:
    print(f"event: {event.title} is bound", flush=True)
