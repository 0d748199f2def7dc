"""A failure: tried again after a wait in the broker; what fails for good ends in a dead-letter queue with its reason.

Run it with BUS_URL set to a RabbitMQ: python examples/04_retry_and_dead_letter.py
"""

import asyncio
import os

import aio_pika

from bus import Bus, BusError, Context, InvalidArgument, Job, RetryPolicy, Router, Unavailable, contract

DEAD_LETTERS = "library.jobs.bind.v1.dead"


@contract("library.bind", version=1)
class BindBook(Job[None]):
    title: str


router = Router("library")


@router.job(BindBook, retry=RetryPolicy(attempts=2, first_delay=1))
async def bind(job: BindBook, context: Context) -> None:
    attempt = context.envelope.attempt
    print(f"{job.title}: attempt {attempt}")
    if job.title == "Sand":
        raise InvalidArgument("a book of sand cannot be bound")  # trying again cannot help: dead-lettered at once
    if job.title == "Emma" and attempt == 1:
        raise Unavailable("the glue is cold")  # may succeed later: tried again
    if job.title == "Ulysses":
        raise RuntimeError("its text never leaves this process")  # a fault of ours: tried again, then dead-lettered


async def main() -> None:
    async with Bus("library") as library, library.serving(router), Bus("reader") as reader:
        for title in ("Emma", "Sand", "Ulysses"):
            job = await reader.submit(BindBook(title=title))
            try:
                await job.result(timeout=30)
                print(f"{title}: bound")
            except BusError as error:
                print(f"{title}: failed, {error.code}")
    async with await aio_pika.connect(os.environ.get("BUS_URL", "amqp://guest:guest@localhost:5672/")) as connection:
        dead = await (await connection.channel()).get_queue(DEAD_LETTERS)
        while message := await dead.get(fail=False):
            await message.ack()  # looked at, and taken out
            facts = message.headers
            print(f"dead letter: {facts['dead-reason']!s} (attempts {facts['dead-attempts']!s}, queue {facts['dead-queue']!s})")


asyncio.run(main())
