"""Failure: a job is retried after a delay at the broker, or dead-lettered with the reason.

Run it with BUS_URL set to a RabbitMQ and BUS_AUTH=off: python examples/04_retry_and_dead_letter.py
"""

import asyncio

from bus import (
    Bus,
    BusError,
    Context,
    InvalidArgument,
    Job,
    RetryPolicy,
    Router,
    Unavailable,
    contract,
)

QUEUE = "library.jobs.bind.v1"


@contract("library.bind", version=1)
class BindBook(Job[None]):
    title: str


router = Router("library")


@router.job(BindBook, retry=RetryPolicy(attempts=2, first_delay=1))
async def bind(job: BindBook, context: Context) -> None:
    attempt = context.envelope.attempt
    print(f"{job.title}: attempt {attempt}")
    if job.title == "Sand":
        raise InvalidArgument("a book of sand cannot be bound")  # permanent: dead-lettered at once
    if job.title == "Emma" and attempt == 1:
        raise Unavailable("the glue is cold")  # temporary: retried
    if job.title == "Ulysses":
        raise RuntimeError("the text of a bug stays here")  # a bug: retried, then dead-lettered


async def main() -> None:
    async with Bus("library") as library, library.serving(router), Bus("reader") as reader:
        jobs = set()
        for title in ("Emma", "Sand", "Ulysses"):
            job = await reader.submit(BindBook(title=title))
            jobs.add(job.id)
            try:
                await job.result(timeout=30)
                print(f"{title}: bound")
            except BusError as error:
                print(f"{title}: failed, {error.code}")
        for letter in await library.dead_letters(QUEUE):  # the dead letters stay there
            if letter.id in jobs:
                reason, attempts = letter.headers["dead-reason"], letter.headers["dead-attempts"]
                print(f"dead letter: {reason} (attempts {attempts})")


asyncio.run(main())
