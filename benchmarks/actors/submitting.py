"""The submitter of durable jobs: it submits, and reads each result back by its id.

Like `stage`, the module imports nothing that is not in every peer's environment.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from benchmarks.actors.stage import (
    Order,
    Result,
    WrongReply,
    in_time,
    obey,
    published,
    summary,
)
from benchmarks.payload import Payload, fields, numbers

__all__ = ["SUBMITTING", "done", "obey_submitter"]

SUBMITTING = 50
"""Submissions in flight at a time."""
READING = 10
"""Results that are read back at a time."""

Submit = Callable[[dict[str, object]], Awaitable[Any]]
"""A function that submits a job with these fields, and returns its id after the confirmation."""
Read = Callable[[Any], Awaitable[Mapping[str, Any]]]
"""A function that returns the stored result of the job with this id."""


def done(job: Payload) -> dict[str, object]:
    """Return the result of a job: its fields, with the time of the handler's start as `seconds`.

    All processes of one machine share the monotonic clock.
    """
    return {**job.model_dump(), "seconds": time.monotonic()}


@dataclass
class Ledger:
    """The jobs of this process that were not read back."""

    submit: Submit
    read: Read
    jobs: list[tuple[Any, int, float]] = field(default_factory=list)
    """Id, number, and the time at which the submission was due."""

    def __post_init__(self) -> None:
        """Start with the first number."""
        self.numbers = numbers()

    async def one(self, number: int, due: float) -> None:
        """Submit one job."""
        self.jobs.append((await self.submit(fields(number)), number, due))

    async def fill(self, order: Order) -> Result:
        """Submit `count` jobs, `in_flight` at a time, and return after the last confirmation."""
        return await published(
            lambda number: self.one(number, time.monotonic()), self.numbers, order
        )

    async def paced(self, order: Order) -> Result:
        """Submit `rate` jobs a second for `seconds`, independent of the confirmations."""
        offset = time.monotonic() - time.perf_counter()
        return await in_time(lambda due: self.one(next(self.numbers), due + offset), order)

    async def collect(self, order: Order) -> Result:
        """Read every result by id and compare it; return the latencies to the start."""
        jobs, self.jobs = self.jobs, []
        latencies: list[float] = []
        left = iter(jobs)

        async def reader() -> None:
            for identity, number, due in left:
                result = Payload.model_validate(await self.read(identity))
                expected = Payload.model_validate({**fields(number), "seconds": result.seconds})
                if result != expected:
                    raise WrongReply(f"{result.number} for {number}")
                latencies.append(result.seconds - due)

        await asyncio.gather(*(reader() for _ in range(READING)))
        if len(latencies) != order.integer("count"):
            raise WrongReply(f"{len(latencies)} results of {order.integer('count')} jobs")
        return {"count": len(latencies), **summary(latencies)}


async def obey_submitter(submit: Submit, read: Read) -> None:
    """Obey `fill`, `paced` and `collect`."""
    ledger = Ledger(submit, read)
    await obey(fill=ledger.fill, paced=ledger.paced, collect=ledger.collect)
