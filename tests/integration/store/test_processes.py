"""A file of SQLite that several processes use at the same time."""

import asyncio
import sys
from asyncio.subprocess import PIPE

from bus.messaging.jobs.records import JobKey, NewJob
from tests.integration.store.test_open import create, opened
from tests.integration.store.test_reencrypt import message

PROCESSES, JOBS = 4, 120


async def test_four_processes_share_the_jobs_and_each_job_ends_once(sqlite_url: str) -> None:
    await create(sqlite_url)
    async with opened(sqlite_url) as store:
        jobs = [
            NewJob(key=JobKey("office", f"job-{number}"), queue="q", envelope=message(f"{number}"))
            for number in range(JOBS)
        ]
        await store.jobs.record(jobs[:60])
        processes = [
            await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "tests.integration.store.claiming_process", sqlite_url),
                stdin=PIPE,
                stdout=PIPE,
                stderr=PIPE,
            )
            for _ in range(PROCESSES)
        ]
        for each in processes:
            assert each.stdout is not None
            assert await each.stdout.readline() == b"ready\n"
        # All begin together, while another process still records.
        ended = [asyncio.create_task(each.communicate(b"\n")) for each in processes]
        for number in range(60, JOBS, 4):
            await store.jobs.record(jobs[number : number + 4])
        outputs = await asyncio.gather(*ended)
        assert [each.returncode for each in processes] == [0] * PROCESSES, outputs
        lines = [line for out, _ in outputs for line in out.decode().splitlines()]
        # A process ends if it finds no job, so the last ones may be left.
        left = await store.jobs.claim("q", worker="test", limit=JOBS, lease=60)
        names = [line.split()[0] for line in lines] + [each.attempt_of.key.id for each in left]
        assert sorted(names) == sorted(job.key.id for job in jobs)
        assert {line.split()[1] for line in lines} == {"succeeded"}
