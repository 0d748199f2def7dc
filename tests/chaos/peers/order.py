"""Order of a peer's sender, and the journal entries of peers.

The module needs the standard library alone, because Celery runs in its own environment.
"""

import asyncio
import json
import os
import random
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

from tests.chaos.journal import ACKED, DELIVERED, EFFECT, SENT, UNKNOWN, Journal

__all__ = ["QUEUE", "TIMEOUT", "URL", "Sending", "handled", "handling", "send_all"]

URL = os.environ.get("BUS_URL", "")
QUEUE = "peer.work"
TIMEOUT = 40.0
"""Seconds after which the outcome of a send counts as unknown; any fault is shorter."""


class Sending:
    """An order to send a number of messages, and further ones until standard input ends."""

    def __init__(self, path: str, words: str) -> None:
        order: dict[str, Any] = json.loads(words)
        self.journal = Journal(Path(path))
        self.count, self.rate, self.senders = (
            int(order["count"]),
            float(order["rate"]),
            int(order["senders"]),
        )
        self._longest = float(order["seconds"])
        self._chance = random.Random(order["seed"])
        os.set_blocking(sys.stdin.fileno(), False)
        self._enough = False

    def messages(self) -> Iterator[tuple[int, float]]:
        """Yield the number and the seconds of work of each message."""
        number = 0
        while number < self.count or not self.enough():
            yield number, self._chance.random() * self._longest
            number += 1

    def enough(self) -> bool:
        """Return True if standard input has ended."""
        if not self._enough:
            try:
                self._enough = os.read(sys.stdin.fileno(), 1) == b""
            except BlockingIOError:
                return False
        return self._enough

    def begin(self, number: int) -> None:
        """Record that a send begins."""
        self.journal.write(SENT, number)

    def end(self, number: int, error: BaseException | None = None) -> None:
        """Record that the peer's call has returned, or has raised: then the outcome is unknown."""
        self.journal.write(
            UNKNOWN if error else ACKED, number, type(error).__name__ if error else ""
        )


async def send_all(path: str, words: str, send: Callable[[int, float], Awaitable[object]]) -> None:
    """Send at the order's rate, with a limited number of sends in flight."""
    sending, loop = Sending(path, words), asyncio.get_running_loop()
    places, began = asyncio.Semaphore(sending.senders), loop.time()

    async def one(number: int, seconds: float) -> None:
        sending.begin(number)
        try:
            async with asyncio.timeout(TIMEOUT):
                await send(number, seconds)
        except Exception as error:  # noqa: BLE001 - a peer may raise any error
            sending.end(number, error)
        else:
            sending.end(number)
        finally:
            places.release()

    async with asyncio.TaskGroup() as group:
        for number, seconds in sending.messages():
            began = max(began, loop.time() - number / sending.rate - 1)
            await asyncio.sleep(max(0.0, began + number / sending.rate - loop.time()))
            await places.acquire()
            group.create_task(one(number, seconds))


async def handled(journal: Journal, number: int, seconds: float) -> None:
    """Do the work of one message."""
    journal.write(DELIVERED, number)
    await asyncio.sleep(seconds)
    journal.write(EFFECT, number)


def handling(journal: Journal, number: int, seconds: float) -> None:
    """Do the work of one message without an event loop."""
    journal.write(DELIVERED, number)
    time.sleep(seconds)
    journal.write(EFFECT, number)
