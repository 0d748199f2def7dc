"""Job: long work that reports progress, returns a result, and publishes an event at its end.

Run it with BUS_URL set to a RabbitMQ and BUS_AUTH=off: python examples/03_job.py
"""

import asyncio

from bus import Bus, Context, Event, Job, Message, RetryPolicy, Router, contract

PAGES = 4


class Scan(Message):
    pages: int


@contract("library.scan", version=1)
class ScanBook(Job[Scan]):
    title: str


@contract("library.scanned", version=1)
class BookScanned(Event):
    title: str


router = Router("library")
told: asyncio.Queue[str] = asyncio.Queue()


@router.job(ScanBook, retry=RetryPolicy(attempts=3), timeout=60, concurrency=2)
async def scan(job: ScanBook, context: Context) -> Scan:
    for page in range(1, PAGES + 1):
        await asyncio.sleep(0.05)  # the work; run blocking code in asyncio.to_thread
        await context.progress(page / PAGES, f"page {page}")
    # The event gets the job's correlation id, and the job's id as its causation id.
    await context.bus.publish(BookScanned(title=job.title))
    return Scan(pages=PAGES)


@router.event(BookScanned)
async def tell(event: BookScanned, context: Context) -> None:
    told.put_nowait(f"event: {event.title} is scanned (cause {context.envelope.causation_id})")


async def main() -> None:
    async with Bus("library") as library, library.serving(router), Bus("archive") as archive:
        job = await archive.submit(ScanBook(title="Emma"))  # returns when the broker has confirmed
        print(f"submitted {job.id}")
        async for update in job.updates():
            print(f"progress {update.progress:.0%} {update.note}")
        result = await job.result(timeout=30)
        print(f"result: {result.pages} pages")
        async with asyncio.timeout(10):
            print(await told.get())


asyncio.run(main())
