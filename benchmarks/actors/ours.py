"""The bus: `Bus`, `Router` and contracts as in any service, with the full stack."""

import asyncio
import os
import sys
from importlib import import_module

from benchmarks.actors.stage import (
    Gathering,
    Order,
    Result,
    WrongReply,
    closed_loop,
    obey,
    open_loop,
    published,
)
from benchmarks.payload import fields, numbers
from bus import Bus, Event, Job, Message, Request, Router, contract
from bus.operations.logging import configure_logging
from bus.settings import load_settings

SERVICE = os.environ.get("BENCH_SERVICE", "bench")
"""The service's name, which differs for each variant: they must not share a queue."""
ON_FASTSTREAM = os.environ.get("BENCH_TRANSPORT") == "faststream"
CONCURRENCY = 200
"""Handlers at a time, and so the prefetch: the same as for every peer."""
NAP = 0.01
"""Seconds that a handler waits in the workload about worker processes."""


class Echoed(Message):
    """The reply, with the content of the request."""

    number: int
    audio_url: str
    language: str
    seconds: float
    text: str


@contract(f"{SERVICE}.echo", version=1, idempotent=True)
class Echo(Request[Echoed]):
    """A request that is acked after its reply, as by the peers."""

    number: int
    audio_url: str
    language: str
    seconds: float
    text: str


@contract(f"{SERVICE}.nap", version=1, idempotent=True)
class Nap(Request[Echoed]):
    """A request that is answered after a wait, a few at a time in a process."""

    number: int
    audio_url: str
    language: str
    seconds: float
    text: str


@contract(f"{SERVICE}.happened", version=1)
class Happened(Event):
    """An event with one or more subscriptions."""

    number: int
    audio_url: str
    language: str
    seconds: float
    text: str


@contract(f"{SERVICE}.work", version=1)
class Work(Job[None]):
    """A job of the workload about jobs."""

    number: int
    audio_url: str
    language: str
    seconds: float
    text: str


def bus_of(service: str) -> Bus:
    """Return a bus on the measured transport.

    FastStream is imported only for its own variant: it would increase the memory of the others.
    """
    if not ON_FASTSTREAM:
        return Bus(service)
    settings, faststream = load_settings(), import_module("bus.integrations.faststream")
    broker = faststream.broker_of_its_own(settings, name=service)
    return Bus(
        service,
        settings=settings,
        transport=faststream.FastStreamTransport(broker, settings=settings, name=service),
    )


async def serve() -> None:
    """Answer requests."""
    router = Router(SERVICE)

    @router.request(Echo, concurrency=CONCURRENCY)
    async def echo(request: Echo) -> Echoed:
        return Echoed(
            number=request.number,
            audio_url=request.audio_url,
            language=request.language,
            seconds=request.seconds,
            text=request.text,
        )

    @router.request(Nap, concurrency=4)
    async def nap(request: Nap) -> Echoed:
        await asyncio.sleep(NAP)
        return Echoed(
            number=request.number,
            audio_url=request.audio_url,
            language=request.language,
            seconds=request.seconds,
            text=request.text,
        )

    async with bus_of(SERVICE) as bus, bus.serving(router):
        await obey()


async def ask() -> None:
    """Send requests."""
    sequence = numbers()
    async with bus_of("asker") as bus:

        async def call() -> None:
            number = next(sequence)
            answer = await bus.request(Echo.model_validate(fields(number)), timeout=10)
            if answer.number != number:
                raise WrongReply(f"{answer.number} for {number}")

        async def nap() -> None:
            number = next(sequence)
            answer = await bus.request(Nap.model_validate(fields(number)), timeout=10)
            if answer.number != number:
                raise WrongReply(f"{answer.number} for {number}")

        await obey(
            rpc=lambda order: closed_loop(call, order),
            paced=lambda order: open_loop(call, order),
            nap=lambda order: closed_loop(nap, order),
        )


async def publish() -> None:
    """Publish events, or submit jobs, each awaited until the broker's confirm."""
    sequence = numbers()
    async with bus_of(SERVICE) as bus:

        async def event(number: int) -> None:
            await bus.publish(Happened.model_validate(fields(number)))

        async def job(number: int) -> None:
            await bus.submit(Work.model_validate(fields(number)))

        await obey(
            publish=lambda order: published(event, sequence, order),
            submit=lambda order: published(job, sequence, order),
        )


async def consume() -> None:
    """Handle the messages in the queue, on each order; the queue exists from the start."""
    gathering = Gathering()
    router = Router("sink")

    @router.event(Happened, concurrency=CONCURRENCY)
    async def handle(event: Happened) -> None:
        gathering.saw(event.number)

    async with bus_of("sink") as bus:

        async def told(order: Order) -> Result:
            gathering.expect(order)
            async with bus.serving(router):
                return await gathering.complete()

        async with bus.serving(router):
            pass
        await obey(consume=told)


async def subscribe(subscribers: int) -> None:
    """Handle events continuously, in `subscribers` subscriptions."""
    gathering = Gathering()
    router = Router("many")
    for number in range(subscribers):

        @router.event(Happened, subscription=f"s{number}", concurrency=CONCURRENCY)
        async def handle(event: Happened) -> None:
            gathering.saw(event.number)

    async with bus_of("many") as bus, bus.serving(router):
        await gathering.obey()


async def work() -> None:
    """Handle jobs continuously."""
    gathering = Gathering()
    router = Router(SERVICE)

    @router.job(Work, concurrency=CONCURRENCY)
    async def handle(job: Work) -> None:
        gathering.saw(job.number)

    async with bus_of(SERVICE) as bus, bus.serving(router):
        await gathering.obey()


ROLES = {"serve": serve, "ask": ask, "publish": publish, "consume": consume, "work": work}

if __name__ == "__main__":
    configure_logging(load_settings())
    asyncio.run(subscribe(int(sys.argv[2])) if sys.argv[1] == "subscribe" else ROLES[sys.argv[1]]())
