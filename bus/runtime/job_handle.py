"""The handle of a submitted job: its progress and its result."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from typing import Generic, cast

from bus.contracts.contract import Contract, decode
from bus.errors import ConnectionLost, ContractViolation, DeadlineExceeded
from bus.messaging.envelope import PROGRESS_SUFFIX, Envelope, Progress
from bus.runtime.pending_request import PendingRequest, R, decode_reply

__all__ = ["PendingJob"]

MAX_UPDATES = 1000
"""Updates that a handle keeps for a reader that lags; older ones are of no interest to anybody."""


class PendingJob(Generic[R]):
    """A submitted job, seen by its submitter. It hears of the job as long as its process and its bus live."""

    def __init__(self, job_id: str, contract: Contract, *, timeout: float) -> None:
        """`patience` is how long, in seconds, `result` and `updates` wait at most: a job ends at its `expires`."""
        self.id = job_id
        self.type = contract.type
        self.request = PendingRequest(contract.type, lasting=True)
        self._contract = contract
        self._timeout = timeout
        self._updates: deque[Progress] = deque(maxlen=MAX_UPDATES)
        self._count = 0
        self._changed = asyncio.Event()
        self._answer: Envelope | None = None
        self._closed = False

    def close(self) -> None:
        """Nothing more will be heard: who waits is told so."""
        self._closed = True
        self._notify()

    def on_update(self, envelope: Envelope) -> None:
        """An update from the worker. What comes after the result is dropped."""
        if self._answer is not None:
            return
        if envelope.type == f"{self._contract.type}{PROGRESS_SUFFIX}":
            self._add_progress(envelope)
        else:
            self._answer = envelope
        self._notify()

    def _notify(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def _add_progress(self, envelope: Envelope) -> None:
        try:
            self._updates.append(decode(Progress, envelope.body))
        except ContractViolation:
            return  # what is no progress is worth nothing, and must not end the consumer that brought it
        self._count += 1

    async def updates(self) -> AsyncIterator[Progress]:
        """Progress as it comes, from the first on; ends with the job."""
        seen = 0
        while True:
            while seen < self._count:
                seen = max(seen, self._count - len(self._updates))
                yield self._updates[seen - self._count]
                seen += 1
            if self._answer is not None:
                return
            self._check_open()
            await self._wait(self._timeout)

    async def result(self, *, timeout: float | None = None) -> R:
        """The job's result; raises what the job raised at last, or `DeadlineExceeded` after `timeout` seconds.

        `ConnectionLost` where the bus was closed before.
        """
        limit = self._timeout if timeout is None else timeout
        try:
            async with asyncio.timeout(limit):
                while self._answer is None:
                    self._check_open()
                    await self._changed.wait()
        except TimeoutError:
            raise DeadlineExceeded(
                f"job {self.id} is not done after {limit:.3g} s; it goes on"
            ) from None
        return cast("R", decode_reply(self._contract, self._answer))

    def _check_open(self) -> None:
        if self._closed:
            raise ConnectionLost(
                f"job {self.id}: the bus was closed before its result came; it goes on",
                maybe_executed=True,
            )

    async def _wait(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._changed.wait()
        except TimeoutError:
            raise DeadlineExceeded(
                f"job {self.id} has not been heard of for {seconds:.3g} s"
            ) from None
