"""A small service, which the how-to pages serve, watch and repair.

Serve it with BUS_URL set to a RabbitMQ: BUS_AUTH=off bus run library:router
"""

from bus import Context, Event, Job, Message, NotFound, Request, RetryPolicy, Router, contract

SHELVES = {"Emma": "A3", "Ulysses": "J7"}
TORN = {"Ulysses"}


class Place(Message):
    shelf: str


@contract("library.find", version=1, idempotent=True)
class FindBook(Request[Place]):
    title: str


class Scan(Message):
    pages: int


@contract("library.scan", version=1)
class ScanBook(Job[Scan]):
    title: str


@contract("library.scanned", version=1)
class BookScanned(Event):
    title: str


router = Router("library")


@router.request(FindBook)
async def find(request: FindBook) -> Place:
    if request.title not in SHELVES:
        raise NotFound("no such book")
    return Place(shelf=SHELVES[request.title])


@router.job(ScanBook, retry=RetryPolicy(attempts=2, first_delay=1))
async def scan(job: ScanBook, context: Context) -> Scan:
    if job.title not in SHELVES:
        raise NotFound("no such book")  # permanent: dead-lettered at once
    if job.title in TORN:
        raise RuntimeError("a page is torn")  # retried, and dead-lettered after two attempts
    await context.progress(0.5, "half of it")
    await context.bus.publish(BookScanned(title=job.title))
    return Scan(pages=4)


@router.event(BookScanned, subscription="catalogue")
async def on_scanned(event: BookScanned) -> None:
    print(f"{event.title} can be read", flush=True)
