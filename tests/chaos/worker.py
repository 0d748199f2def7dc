"""A worker in a process of its own: `python -m tests.chaos.worker JOURNAL [SERVICE]`.

The variables `BUS_…` and `CHAOS_…` set everything else.
"""

import asyncio
import os
import sys
from pathlib import Path

from bus import Bus, Context, RetryPolicy, Router
from bus.cli.run import serve_until, signals
from bus.errors import FailedPrecondition, Unavailable
from bus.operations.logging import configure_logging
from bus.settings import load_settings
from tests.chaos.contracts import SERVICE, Happened, Work
from tests.chaos.journal import EFFECT, Journal
from tests.chaos.lines import input_ended
from tests.chaos.sabotage import VARIABLE, sabotaged
from tests.chaos.watched import WatchedTransport

CONCURRENCY = 16
RETRY = "4 1 1"
"""Attempts, seconds before the second one, and the factor of each further wait."""


def router_for(journal: Journal, service: str, retry: RetryPolicy, *, fails: bool) -> Router:
    """Return a router that does the work of jobs and of events.

    The router of another service handles events only.
    """
    router = Router(service)

    async def work(order: Work | Happened, context: Context) -> None:
        await asyncio.sleep(order.seconds)
        if order.hopeless:
            raise FailedPrecondition("the work cannot be done")
        if fails or context.envelope.attempt <= order.failures:
            raise Unavailable("the attempt fails as ordered")
        journal.write(EFFECT, order.number, f"{context.envelope.id} {context.envelope.attempt}")

    @router.event(Happened, retry=retry, concurrency=CONCURRENCY)
    async def on_happened(event: Happened, context: Context) -> None:
        await work(event, context)

    if service == SERVICE:

        @router.job(Work, retry=retry, concurrency=CONCURRENCY)
        async def on_work(job: Work, context: Context) -> None:
            await work(job, context)

    return router


async def main(path: str, service: str = SERVICE) -> int:
    """Serve until a signal, as `bus run` does, and print a line when the worker is ready."""
    journal, settings = Journal(Path(path)), load_settings()
    configure_logging(settings)
    attempts, first_delay, factor = map(int, os.environ.get("CHAOS_RETRY", RETRY).split())
    retry = RetryPolicy(attempts=attempts, first_delay=first_delay, factor=factor)
    router = router_for(journal, service, retry, fails=os.environ.get("CHAOS_FAILS") == service)
    bus = Bus(
        service,
        settings=settings,
        transport=WatchedTransport(settings, name=service, journal=journal),
    )
    stop = asyncio.Event()
    serving = asyncio.ensure_future(serve_until([(router, bus)], stop, None))
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
    """Print a line when all consumers are ready; the reply consumer starts before the others."""
    while len(bus._consumers) <= endpoints or not bus.ready:
        await asyncio.sleep(0.01)
    print("ready", flush=True)


if __name__ == "__main__":
    with sabotaged(os.environ.get(VARIABLE)):
        sys.exit(asyncio.run(main(*sys.argv[1:])))
