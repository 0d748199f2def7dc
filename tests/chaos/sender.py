"""A sender in a process of its own: `python -m tests.chaos.sender JOURNAL ORDER`, where ORDER is JSON of an `Order`."""

import asyncio
import os
import random
import sys
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel

from bus import Bus
from bus.errors import BusError
from bus.messaging.envelope import Envelope
from bus.messaging.handler import Handler, Middleware
from bus.middleware.stacks import client_stack
from bus.operations.logging import configure_logging
from bus.settings import load_settings
from tests.chaos.contracts import SERVICE, Happened, Work
from tests.chaos.journal import ACKED, FAILED, SENT, UNKNOWN, Journal
from tests.chaos.lines import input_ended
from tests.chaos.sabotage import VARIABLE, sabotaged
from tests.chaos.watched import number_of

__all__ = ["Order"]


SLOW = 100.0
"""Messages a second while a fault takes its time: more of them would only make a loaded machine's faults take longer."""


class Order(BaseModel):
    """What to send."""

    count: int
    """At least so many; more until standard input ends, which says that the last fault is over."""
    first: int = 0
    rate: float = 250
    """Messages a second, and at most `SLOW` once all are sent and the last fault is not over."""
    senders: int = 50
    """Sends under way at a time."""
    timeout: float = 40
    """Seconds for each send: longer than any fault, so that what a fault fails is the bus's doing."""
    seconds: float = 0.02
    """The longest that the work on a message takes."""
    failing: float = 0.05
    """The share of messages whose first attempts fail."""
    fail: tuple[int, ...] = (1, 2)
    """How many of them: one of these."""
    kinds: Literal["both", "jobs", "events"] = "both"
    hopeless: float = 0.01
    """The share that belongs into the dead letters."""
    seed: int = 0


def messages(order: Order) -> Iterator[Work | Happened]:
    """Jobs and events in turns; the same for the same order."""
    chance = random.Random(order.seed)
    number = order.first
    while True:
        failures = chance.choice(order.fail) if chance.random() < order.failing else 0
        hopeless = chance.random() < order.hopeless
        seconds = chance.random() * order.seconds
        kind = Work if order.kinds == "jobs" or (order.kinds == "both" and number % 2) else Happened
        yield kind(number=number, seconds=seconds, failures=failures, hopeless=hopeless)
        number += 1


def noting(journal: Journal) -> Middleware:
    """Writes down under which id a message is sent; outermost, so once for each send however often it is tried."""

    def layer(inner: Handler) -> Handler:
        async def call(envelope: Envelope) -> Envelope | None:
            journal.write(SENT, number_of(envelope), envelope.id)
            return await inner(envelope)

        return call

    return layer


async def main(path: str, words: str) -> None:
    """Send what was ordered, and write down what came of each."""
    order, settings, journal = (
        Order.model_validate_json(words),
        load_settings(),
        Journal(Path(path)),
    )
    configure_logging(settings)
    enough = asyncio.Event()
    listening = asyncio.ensure_future(input_ended(enough))
    async with Bus(SERVICE, settings=settings, client=[noting(journal), *client_stack()]) as bus:
        print("ready", flush=True)
        await sent_all(order, enough, lambda message: sent(bus, journal, message, order.timeout))
    listening.cancel()


async def sent_all(
    order: Order,
    enough: asyncio.Event,
    send: Callable[[Work | Happened], Coroutine[Any, Any, None]],
) -> None:
    """At the order's rate, with at most so many under way."""
    places, loop = asyncio.Semaphore(order.senders), asyncio.get_running_loop()
    began = loop.time()
    async with asyncio.TaskGroup() as group:
        for count, message in enumerate(messages(order)):
            if count >= order.count and enough.is_set():
                return
            await asyncio.sleep(max(0.0, began + due(order, count) - loop.time()))
            await places.acquire()
            began = max(
                began, loop.time() - due(order, count) - 1
            )  # what a fault held up is not sent in one heap
            group.create_task(send(message)).add_done_callback(lambda _: places.release())


def due(order: Order, count: int) -> float:
    """Seconds from the first message to the one after so many."""
    return min(count, order.count) / order.rate + max(0, count - order.count) / min(
        order.rate, SLOW
    )


async def sent(bus: Bus, journal: Journal, message: Work | Happened, timeout: float) -> None:
    """One send and its outcome."""
    number = message.number
    try:
        await (
            bus.submit(message, timeout=timeout)
            if isinstance(message, Work)
            else bus.publish(message, timeout=timeout)
        )
    except BusError as error:
        journal.write(
            UNKNOWN if error.maybe_executed else FAILED, number, f"{type(error).__name__}: {error}"
        )
    else:
        journal.write(ACKED, number)


if __name__ == "__main__":
    with sabotaged(os.environ.get(VARIABLE)):
        asyncio.run(main(*sys.argv[1:]))
