"""A worker in a process of its own: `python -m tests.chaos.worker JOURNAL [CONCURRENCY]`; the rest by `BUS_…`."""

import asyncio
import os
import sys
from pathlib import Path

from bus import Bus, Context, RetryPolicy, Router
from bus.cli.run import serve_until, signals
from bus.errors import FailedPrecondition, Unavailable
from bus.logs import configure_logging
from bus.settings import load_settings
from tests.chaos.contracts import SERVICE, Happened, Work
from tests.chaos.journal import EFFECT, Journal
from tests.chaos.lines import input_ended
from tests.chaos.sabotage import VARIABLE, sabotaged
from tests.chaos.watched import WatchedTransport

CONCURRENCY = 16
RETRY = RetryPolicy(attempts=4, first_delay=1, factor=1)


def router_for(journal: Journal, concurrency: int) -> Router:
    """Work, whether it comes as a job or as an event."""
    router = Router(SERVICE)

    async def work(order: Work | Happened, context: Context) -> None:
        await asyncio.sleep(order.seconds)
        if order.hopeless:
            raise FailedPrecondition("it cannot be done")
        if context.envelope.attempt <= order.failures:
            raise Unavailable("not yet")
        journal.write(EFFECT, order.number, f"{context.envelope.id} {context.envelope.attempt}")

    @router.job(Work, retry=RETRY, concurrency=concurrency)
    async def on_work(job: Work, context: Context) -> None:
        await work(job, context)

    @router.event(Happened, retry=RETRY, concurrency=concurrency)
    async def on_happened(event: Happened, context: Context) -> None:
        await work(event, context)

    return router


async def main(path: str, concurrency: str = str(CONCURRENCY)) -> int:
    """Serve until a signal, as `bus run` does; a line on standard output says when it serves."""
    journal, settings = Journal(Path(path)), load_settings()
    configure_logging(settings)
    router = router_for(journal, int(concurrency))
    bus = Bus(SERVICE, settings=settings, transport=WatchedTransport(settings, name=SERVICE, journal=journal))
    stop = asyncio.Event()
    serving = asyncio.ensure_future(serve_until(router, stop, bus))
    with signals(stop, serving) as received:
        ready = asyncio.ensure_future(told_when_ready(bus, len(router.endpoints)))
        orphaned = asyncio.ensure_future(input_ended(stop))
        try:
            await serving
        except asyncio.CancelledError:
            return 128 + received[-1]
        finally:
            ready.cancel()
            orphaned.cancel()
    return 0


async def told_when_ready(bus: Bus, endpoints: int) -> None:
    """Its reply consumer is there before the service's."""
    while len(bus._consumptions) <= endpoints or not bus.ready:
        await asyncio.sleep(0.01)
    print("ready", flush=True)


if __name__ == "__main__":
    with sabotaged(os.environ.get(VARIABLE)):
        sys.exit(asyncio.run(main(*sys.argv[1:])))
