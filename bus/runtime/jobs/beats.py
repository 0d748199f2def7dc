"""The signs of life of one instance. They tell until when it has recorded its deliveries."""

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress

from bus.errors import BusError
from bus.messaging.failure_location import failure_facts
from bus.messaging.job_absence import LIVE_SECONDS
from bus.messaging.labels import failure_label
from bus.messaging.ports.store import InstanceBeat, Store
from bus.runtime.failure_log import UNEXPECTED
from bus.runtime.in_flight import InFlight

__all__ = ["InstanceBeats", "beating"]

log = logging.getLogger("bus.jobs")

BEAT_SECONDS = 2.0
"""Seconds between two signs of life."""
HURRIED_SECONDS = 1.0
"""Seconds between two signs of life while a question of this instance waits for them."""
MARGIN_SECONDS = 1.0
"""Minimum seconds between a time and the statement that all deliveries before it are recorded.

A delivery can still be in the socket when the broker has sent it.
"""
FORGOTTEN_SECONDS = 10 * LIVE_SECONDS
"""Seconds without a sign of life after which another instance removes the entry."""


class InstanceBeats:
    """Writes the signs of life of this instance, and reads those of all instances."""

    def __init__(self, store: Store, instance: str, recorders: Sequence[InFlight]) -> None:
        """Create the object. Nothing is written before `start`.

        Args:
            store: Store that all instances of the service share.
            instance: Name of this process.
            recorders: Deliveries that the recorders of this process have not settled yet.
        """
        # A process can serve two routers. Each has recorders of its own.
        self.instance = f"{instance}/{secrets.token_hex(2)}"
        self._store = store
        self._recorders = recorders
        self._recorded_until = 0.0
        self._open: tuple[float, float, list[asyncio.Task[None]]] | None = None
        """Time of the store and of the loop, and the deliveries that were not recorded then."""
        self._is_frozen = False
        self._waiting = 0
        self._hurry = asyncio.Event()
        self._lock = asyncio.Lock()
        self._next: asyncio.Future[Sequence[InstanceBeat]] = _new_future()
        self._has_failed = False

    async def start(self) -> None:
        """Write the first sign of life, before the recorders receive their first delivery."""
        await self.beat()

    async def beat(self) -> Sequence[InstanceBeat]:
        """Write a sign of life now, and return those of all instances."""
        async with self._lock:
            self._advance()
            beats = await self._store.beat(self.instance, recorded_until=self._recorded_until)
            if self._open is None:
                self._open = self._note_deliveries(beats)
            return beats

    async def following(self) -> Sequence[InstanceBeat]:
        """Return the signs of life that this instance reads next."""
        self._waiting += 1
        self._hurry.set()
        try:
            return await asyncio.shield(self._next)
        finally:
            self._waiting -= 1

    def freeze(self) -> None:
        """Do not move the recorded time any more, because the recorders requeue deliveries now."""
        self._is_frozen = True

    def _advance(self) -> None:
        """Move the recorded time, if all deliveries that were open at a time are recorded."""
        if self._open is None or self._is_frozen:
            return
        time, noted, tasks = self._open
        is_old = asyncio.get_running_loop().time() - noted >= MARGIN_SECONDS
        if is_old and all(task.done() for task in tasks):
            self._recorded_until, self._open = time, None

    def _note_deliveries(
        self, beats: Sequence[InstanceBeat]
    ) -> tuple[float, float, list[asyncio.Task[None]]]:
        time = next(beat.seen_at for beat in beats if beat.instance == self.instance)
        tasks = [task for recorder in self._recorders for task in recorder.tasks.values()]
        return time, asyncio.get_running_loop().time(), tasks

    async def run(self) -> None:
        """Write signs of life until the task is cancelled."""
        while True:
            await self._pause()
            try:
                beats = await self.beat()
                await self._remove_lost(beats)
            except UNEXPECTED as error:  # a store of the user can raise any exception
                self._log_failure(error)
                continue
            self._has_failed = False
            following, self._next = self._next, _new_future()
            following.set_result(beats)

    async def _pause(self) -> None:
        await asyncio.sleep(HURRIED_SECONDS)
        self._hurry.clear()
        if not self._waiting:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._hurry.wait(), BEAT_SECONDS - HURRIED_SECONDS)

    async def _remove_lost(self, beats: Sequence[InstanceBeat]) -> None:
        latest = max((beat.seen_at for beat in beats), default=0.0)
        for beat in beats:
            if beat.seen_at < latest - FORGOTTEN_SECONDS:
                await self._store.forget_instance(beat.instance)

    def _log_failure(self, error: BaseException) -> None:
        facts = failure_facts(error)
        log.log(
            logging.DEBUG if self._has_failed else logging.WARNING,
            "the sign of life could not be stored (%s), so questions about unknown jobs fail",
            failure_label(facts),
            extra=facts,
        )
        self._has_failed = True

    async def close(self) -> None:
        """Remove the sign of life, because the recorders have no delivery any more."""
        with suppress(BusError):
            await self._store.forget_instance(self.instance)


def _new_future() -> "asyncio.Future[Sequence[InstanceBeat]]":
    return asyncio.get_running_loop().create_future()


@asynccontextmanager
async def beating(
    store: Store, instance: str, recorders: Sequence[InFlight]
) -> AsyncIterator[InstanceBeats]:
    """Write the signs of life of this instance inside the block.

    Enter the block before the recorders start, and leave it after they are closed.

    Raises:
        Unavailable: The first sign of life could not be stored.
    """
    beats = InstanceBeats(store, instance, recorders)
    await beats.start()
    task = asyncio.create_task(beats.run(), name=f"signs of life of {instance}")
    try:
        yield beats
    finally:
        task.cancel()
        await asyncio.wait([task])
        await beats.close()
