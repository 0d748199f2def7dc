"""A sender in a process of its own: `python -m tests.chaos.sender JOURNAL ORDER`.

ORDER is the JSON of an `Order`.
"""

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
"""Messages a second after the ordered number, until the last fault is over.

More messages would only prolong the faults on a loaded machine.
"""


class Order(BaseModel):
    """The messages to send, and their rate."""

    count: int
    """Smallest number of messages.

    Further ones are sent until standard input ends, which means that the last fault is over.
    """
    first: int = 0
    rate: float = 250
    """Messages a second; after the ordered number at most `SLOW`."""
    senders: int = 50
    """Largest number of sends in flight."""
    timeout: float = 40
    """Seconds for each send. Any fault is shorter, so a send that fails is an error of the bus."""
    seconds: float = 0.02
    """Longest duration of the work on a message, in seconds."""
    failing: float = 0.05
    """Share of the messages with failing first attempts."""
    fail: tuple[int, ...] = (1, 2)
    """Possible numbers of failing attempts."""
    kinds: Literal["both", "jobs", "events"] = "both"
    hopeless: float = 0.01
    """Share of the messages that must be dead-lettered."""
    seed: int = 0


def messages(order: Order) -> Iterator[Work | Happened]:
    """Yield jobs and events in turns; an order always yields the same."""
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
    """Return a middleware that records the id of each send.

    It is the outermost one, so that it records a send once, however often the send is tried.
    """

    def layer(inner: Handler) -> Handler:
        async def call(envelope: Envelope) -> Envelope | None:
            journal.write(SENT, number_of(envelope), envelope.id)
            return await inner(envelope)

        return call

    return layer


async def main(path: str, words: str) -> None:
    """Send the ordered messages, and record the outcome of each."""
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
    """Send at the order's rate, with a limited number of sends in flight."""
    places, loop = asyncio.Semaphore(order.senders), asyncio.get_running_loop()
    began = loop.time()
    async with asyncio.TaskGroup() as group:
        for count, message in enumerate(messages(order)):
            if count >= order.count and enough.is_set():
                return
            await asyncio.sleep(max(0.0, began + due(order, count) - loop.time()))
            await places.acquire()
            # Sends that a fault has delayed must not follow in one burst.
            began = max(began, loop.time() - due(order, count) - 1)
            group.create_task(send(message)).add_done_callback(lambda _: places.release())


def due(order: Order, count: int) -> float:
    """Return the seconds from the first message to the one after `count` messages."""
    return min(count, order.count) / order.rate + max(0, count - order.count) / min(
        order.rate, SLOW
    )


async def sent(bus: Bus, journal: Journal, message: Work | Happened, timeout: float) -> None:
    """Send one message, and record its outcome."""
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
