"""Dead-lettering in the model broker.

Like RabbitMQ 3.10, the model broker has the strategies at-most-once and at-least-once.
"""

import asyncio
from collections import deque
from collections.abc import Callable

from bus.transports.memory.queue import MemoryQueue
from bus.transports.memory.stored_message import StoredMessage

__all__ = ["DeadLetterWorker", "at_least_once"]

PREFETCH = 32
"""Maximum number of a worker's dead letters that are published but not confirmed.

RabbitMQ's name for it is `dead_letter_worker_consumer_prefetch`.
"""
RETRY_AFTER_SECONDS = 180.0
"""Seconds after which a worker publishes an unaccepted dead letter again.

RabbitMQ's name for it is `dead_letter_worker_publisher_confirm_timeout`.
"""

Forward = Callable[[StoredMessage], bool]
"""Function that publishes a dead letter.

It returns True if the dead letter has at least one target queue, and all of them accepted it.
"""


def at_least_once(queue: MemoryQueue) -> bool:
    """Return True if a queue meets all four conditions for dead-lettering at least once.

    If a condition is not met, the queue dead-letters at most once, as in RabbitMQ.
    """
    arguments = queue.declared.arguments
    return (
        queue.quorum
        and "x-dead-letter-exchange" in arguments
        and arguments.get("x-dead-letter-strategy") == "at-least-once"
        and queue.overflow == "reject-publish"
    )


class DeadLetterWorker:
    """A worker that keeps the dead letters of one queue until the target queues accept them."""

    def __init__(self, queue: MemoryQueue, forward: Forward) -> None:
        self._queue, self._forward = queue, forward
        self._waiting: deque[StoredMessage] = deque()
        self._stuck: list[StoredMessage] = []
        self._timer: asyncio.TimerHandle | None = None

    def take(self, message: StoredMessage) -> None:
        """Add a dead letter."""
        self._waiting.append(message)
        self._forward_waiting()

    def stop(self) -> None:
        """Stop the worker, because the queue and its dead letters were deleted."""
        if self._timer:
            self._timer.cancel()

    def _forward_waiting(self) -> None:
        while self._waiting and len(self._stuck) < PREFETCH:
            message = self._waiting.popleft()
            if not self._forward(message):
                self._stuck.append(message)
        self._queue.discarded = len(self._waiting) + len(self._stuck)
        if self._stuck and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(
                RETRY_AFTER_SECONDS, self._retry_stuck
            )

    def _retry_stuck(self) -> None:
        self._timer = None
        self._stuck = [message for message in self._stuck if not self._forward(message)]
        self._forward_waiting()
        self._queue.pump()
