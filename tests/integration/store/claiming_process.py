"""A process that claims and ends jobs of a store until none is left, and prints their ids.

usage: python -m tests.integration.store.claiming_process URL
"""

import asyncio
import os
import sys

from bus.messaging.jobs.records import AttemptEnd
from bus.settings import load_settings
from bus.storage.sqlalchemy.store import SqlStore


async def main(url: str) -> None:
    store = SqlStore(load_settings(auth="off", store=url), "library")
    await store.open()
    try:
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        sys.stdin.readline()
        while jobs := await store.jobs.claim("q", worker=str(os.getpid()), limit=3, lease=60):
            await store.beat(str(os.getpid()), recorded_until=0)
            ends = [AttemptEnd(attempt=each.attempt_of, state="succeeded") for each in jobs]
            written = await store.jobs.end(ends)
            sys.stdout.writelines(
                f"{each.attempt_of.key.id} {state}\n"
                for each, state in zip(jobs, written, strict=True)
            )
    finally:
        await store.close()


asyncio.run(main(sys.argv[1]))
