"""Note for the user of `bus submit` that no update of the job has arrived."""

import asyncio

from bus.cli.output import say
from bus.messaging.labels import short_id
from bus.runtime.bus import Bus

__all__ = ["JobSilence"]

FIRST_NOTE_SECONDS = 10.0
"""Seconds without an update before the first note. For each further note, the seconds double."""
POLL_INTERVAL_SECONDS = 1.0


class JobSilence:
    """Reports on standard error that no update of a job has arrived for some time.

    A job without an update can be in progress, wait for a worker, or be a dead letter. If the
    service does not know the key of the sender, it dead-letters the job and sends no result.
    """

    def __init__(self, type_: str, correlation_id: str) -> None:
        """Begin to count the seconds.

        Args:
            type_: Type of the job.
            correlation_id: Correlation id of the job.
        """
        self._remedy = (
            f"`bus queues {type_.partition('.')[0]}` shows if a worker serves it, and "
            f"`bus dead list --correlation-id {short_id(correlation_id)}` shows it if it failed"
        )
        self._type = type_
        self._last = asyncio.get_running_loop().time()

    def end(self) -> None:
        """Note that an update has arrived. Count the seconds from now on."""
        self._last = asyncio.get_running_loop().time()

    async def report(self, bus: Bus) -> None:
        """Print a note after each long time without an update. Never return.

        Without a connection no update can arrive, so that time is not counted.

        Args:
            bus: Bus that submitted the job.
        """
        loop, patience = asyncio.get_running_loop(), FIRST_NOTE_SECONDS
        while True:
            await asyncio.sleep(POLL_INTERVAL_SECONDS)
            if not bus.ready:
                self.end()
            silent = loop.time() - self._last
            if silent >= patience:
                say(f"no update of {self._type} for {silent:.0f} s; {self._remedy}")
                patience *= 2
