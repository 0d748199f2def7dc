"""Dead-lettering in the model broker.

The model broker has the same strategies as RabbitMQ 3.10: at-most-once and at-least-once.
"""

import asyncio
from collections import deque
from collections.abc import Callable

from bus.transports.memory.queue import MemoryQueue
from bus.transports.memory.stored_message import StoredMessage

__all__ = ["DeadLetterWorker", "at_least_once"]

PREFETCH = 32
"""Maximum number of a worker's dead letters that are published but not confirmed.

In RabbitMQ, the setting `dead_letter_worker_consumer_prefetch` has this default.
"""
RETRY_AFTER_SECONDS = 180.0
"""Seconds after which a worker publishes an unaccepted dead letter again.

In RabbitMQ, the setting `dead_letter_worker_publisher_confirm_timeout` has this default.
"""

Forward = Callable[[StoredMessage], bool]
"""Function that publishes a dead letter.

The function returns True if the dead letter has at least one target queue, and all target queues
accepted the dead letter.
"""


def at_least_once(queue: MemoryQueue) -> bool:
    """Return True if a queue uses the dead-letter strategy at-least-once.

    As in RabbitMQ, this strategy requires a quorum queue with a dead-letter exchange.
    The queue must also request the strategy and have the overflow `reject-publish`.
    Otherwise, the queue uses the strategy at-most-once.
    """
    arguments = queue.declared.arguments
    return (
        queue.quorum
        and "x-dead-letter-exchange" in arguments
        and arguments.get("x-dead-letter-strategy") == "at-least-once"
        and queue.overflow == "reject-publish"
    )


class DeadLetterWorker:
    """A worker that keeps each dead letter of one queue until the target queues accept it."""

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
        """Stop the worker. The broker calls this when it deletes the queue."""
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
