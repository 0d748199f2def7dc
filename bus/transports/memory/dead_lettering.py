"""Dead-lettering in the model broker, at most once and at least once, as RabbitMQ 3.10 does them."""

import asyncio
from collections import deque
from collections.abc import Callable

from bus.transports.memory.queue import MemoryQueue
from bus.transports.memory.stored_message import StoredMessage

__all__ = ["DeadLetterWorker", "at_least_once"]

PREFETCH = 32
"""Dead letters that one worker holds; those behind wait (`dead_letter_worker_consumer_prefetch`)."""
RETRY_AFTER_SECONDS = 180.0
"""Seconds until it tries again what no queue took (`dead_letter_worker_publisher_confirm_timeout`)."""

Forward = Callable[[StoredMessage], bool]
"""Publishes a dead letter; whether every target took it, and there was one."""


def at_least_once(queue: MemoryQueue) -> bool:
    """Whether all four conditions hold; one missing falls back to at-most-once, silently, as in RabbitMQ."""
    arguments = queue.declared.arguments
    return (
        queue.quorum
        and "x-dead-letter-exchange" in arguments
        and arguments.get("x-dead-letter-strategy") == "at-least-once"
        and queue.overflow == "reject-publish"
    )


class DeadLetterWorker:
    """Keeps each dead letter of one queue until its targets have confirmed."""

    def __init__(self, queue: MemoryQueue, forward: Forward) -> None:
        self._queue, self._forward = queue, forward
        self._waiting: deque[StoredMessage] = deque()
        self._stuck: list[StoredMessage] = []
        self._timer: asyncio.TimerHandle | None = None

    def take(self, message: StoredMessage) -> None:
        """One more dead letter."""
        self._waiting.append(message)
        self._work()

    def stop(self) -> None:
        """Its queue is gone, and its dead letters with it."""
        if self._timer:
            self._timer.cancel()

    def _work(self) -> None:
        while self._waiting and len(self._stuck) < PREFETCH:
            message = self._waiting.popleft()
            if not self._forward(message):
                self._stuck.append(message)
        self._queue.discarded = len(self._waiting) + len(self._stuck)
        if self._stuck and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(RETRY_AFTER_SECONDS, self._again)

    def _again(self) -> None:
        self._timer = None
        self._stuck = [message for message in self._stuck if not self._forward(message)]
        self._work()
        self._queue.pump()
