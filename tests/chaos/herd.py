"""Many clients in one process while their broker restarts.

Usage: `python -m tests.chaos.herd JOURNAL CLIENTS`
"""

import asyncio
import sys
from pathlib import Path

from bus import Bus
from bus.operations.logging import configure_logging
from bus.settings import load_settings
from tests.chaos.contracts import SERVICE
from tests.chaos.journal import ACKED, FAILED, Journal
from tests.chaos.lines import input_ended

LOOK = 0.01


async def main(path: str, clients: str) -> None:
    """Record each change of a client's readiness."""
    journal, settings, stop = Journal(Path(path)), load_settings(), asyncio.Event()
    configure_logging(settings)
    ending = asyncio.ensure_future(input_ended(stop))
    buses = [Bus(SERVICE, settings=settings) for _ in range(int(clients))]
    places = asyncio.Semaphore(20)
    async with asyncio.TaskGroup() as group:
        for bus in buses:
            group.create_task(started(bus, places))
    print("ready", flush=True)
    was = [True] * len(buses)
    while not stop.is_set():
        for number, bus in enumerate(buses):
            if bus.ready != was[number]:
                was[number] = bus.ready
                journal.write(ACKED if bus.ready else FAILED, number)
        await asyncio.sleep(LOOK)
    ending.cancel()


async def started(bus: Bus, places: asyncio.Semaphore) -> None:
    """Start a client; only a few start at a time, because only the reconnect is tested."""
    async with places:
        await bus.__aenter__()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
