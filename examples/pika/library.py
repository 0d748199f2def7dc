"""Service of the bus that client.py calls, and the contracts that worker.py serves.

Run it: bus run examples.pika.library:router
"""

import asyncio

from bus import Context, Event, Job, Message, NotFound, Request, Router, contract

SHELVES = {"Emma": "A3"}
PAGES = 2


class Place(Message):
    shelf: str


class Scan(Message):
    pages: int


class Binding(Message):
    cover: str


@contract("stacks.find", version=1, encrypted=True)
class FindBook(Request[Place]):
    title: str


@contract("stacks.scan", version=1, encrypted=True)
class ScanBook(Job[Scan]):
    title: str


@contract("stacks.scanned", version=1)
class BookScanned(Event):
    title: str


@contract("reader.wished", version=1)
class BookWished(Event):
    title: str


@contract("binder.bind", version=1, encrypted=True)
class BindBook(Job[Binding]):
    title: str


router = Router("stacks")


@router.request(FindBook)
async def find(request: FindBook) -> Place:
    if request.title == "Sand":
        await asyncio.sleep(60)  # longer than its caller waits
    if request.title not in SHELVES:
        raise NotFound("no such book")
    return Place(shelf=SHELVES[request.title])


@router.job(ScanBook)
async def scan(job: ScanBook, context: Context) -> Scan:
    for page in range(1, PAGES + 1):
        await context.progress(page / PAGES, f"page {page}")
    await context.bus.publish(BookScanned(title=job.title))
    return Scan(pages=PAGES)


@router.event(BookWished)
async def note(event: BookWished) -> None:
    print(f"stacks: a reader wishes {event.title}", flush=True)
