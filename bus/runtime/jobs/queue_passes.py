"""The wait until all jobs that were submitted before a question are recorded (ADR 0045)."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress

from bus.errors import BusError, Unavailable
from bus.messaging.job_absence import Evidence, judge, live_instances, passed_at
from bus.messaging.jobs.markers import new_marker
from bus.messaging.ports.store import InstanceBeat, Store
from bus.messaging.ports.transport import Accepted
from bus.messaging.topology.addresses import replay_address
from bus.runtime.jobs.beats import InstanceBeats
from bus.runtime.service_runtime import ServiceRuntime

__all__ = ["QueuePasses"]

PASS_SECONDS = 30.0
"""Seconds after which the wait for a marker ends, because the marker can be lost."""
SEND_SECONDS = 5.0
"""Seconds to wait for the confirm of a marker."""


class QueuePasses:
    """Waits for markers in the work queues of this service.

    The questions about one queue share a marker. So a queue has at most one marker of this
    instance, however many questions arrive.
    """

    def __init__(self, runtime: ServiceRuntime, store: Store, beats: InstanceBeats) -> None:
        self._runtime = runtime
        self._store = store
        self._beats = beats
        self._running: dict[str, asyncio.Task[None]] = {}
        """The pass of each queue whose marker is published."""
        self._next: dict[str, asyncio.Task[None]] = {}
        """The pass of each queue that begins after the running one."""

    async def wait_recorded(self, queue: str) -> None:
        """Wait until all jobs are recorded that were submitted to a queue before this call.

        Raises:
            BusError: The store or the broker cannot be reached.
            Unavailable: An instance has not recorded its deliveries for `PASS_SECONDS`.
        """
        following = self._next.get(queue)
        if following is None:
            following = self._next[queue] = asyncio.create_task(
                self._follow(queue, self._running.get(queue)), name=f"a marker passes {queue}"
            )
            following.add_done_callback(_retrieve)
        await asyncio.shield(following)

    async def _follow(self, queue: str, running: asyncio.Task[None] | None) -> None:
        if running is not None:
            await asyncio.wait([running])
        task = self._running[queue] = self._next.pop(queue)
        try:
            async with asyncio.timeout(PASS_SECONDS):
                while not await self._pass(queue):
                    pass
        except TimeoutError:
            raise Unavailable("not all instances have recorded what they received") from None
        finally:
            if self._running.get(queue) is task:
                del self._running[queue]

    async def _pass(self, queue: str) -> bool:
        """Publish a marker and wait for it. Return False if the evidence is void."""
        before = live_instances(await self._beats.beat())
        marker = new_marker(self._runtime.service, now=self._runtime.clock())
        signed = self._runtime.security.identity.signer.sign(marker)
        address = replay_address(queue)
        outcome = await self._runtime.transport.send(signed, address, timeout=SEND_SECONDS)
        if not isinstance(outcome, Accepted):
            raise Unavailable(f"{queue} has not accepted a marker: {outcome.reason}")
        try:
            return await self._wait_for(marker.id, before) is Evidence.COMPLETE
        finally:
            with suppress(BusError):
                await self._store.forget_instance(marker.id)

    async def _wait_for(self, marker: str, before: frozenset[str]) -> Evidence:
        passed: float | None = None
        while True:
            beats: Sequence[InstanceBeat] = await self._beats.following()
            passed = passed or passed_at(marker, beats)
            if passed is None:
                if not before <= live_instances(beats):
                    return Evidence.VOID
                continue
            evidence = judge(before, beats, passed=passed)
            if evidence is not Evidence.INCOMPLETE:
                return evidence

    async def close(self) -> None:
        """End all waits."""
        tasks = [*self._running.values(), *self._next.values()]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)


def _retrieve(task: "asyncio.Task[None]") -> None:
    """Retrieve the exception of a task that no question may wait for any more."""
    if not task.cancelled():
        task.exception()
