"""The task that handles a claimed job, as the cancellation of the job uses it."""

import asyncio

from bus.messaging.ports.transport import Delivery
from bus.messaging.task_frames import task_frames
from bus.messaging.traceback_frames import TracebackFrame
from bus.runtime.in_flight import InFlight
from bus.runtime.inbound_message import InboundMessage

__all__ = ["Handling"]


class Handling:
    """The task of one claimed job."""

    def __init__(self, in_flight: InFlight, delivery: Delivery) -> None:
        self._in_flight, self._delivery = in_flight, delivery

    def _find(self) -> tuple[InboundMessage, asyncio.Task[None]] | None:
        for message, task in self._in_flight.tasks.items():
            if self._delivery in message.deliveries:
                return message, task
        return None

    @property
    def is_settling(self) -> bool:
        """True if the handler has ended, and its result is being written."""
        found = self._find()
        return found is not None and found[0].is_settling

    def cancel(self) -> None:
        """Cancel the task soon. A task that is cancelled before it starts would end nothing.

        A result that waits for the store is not cancelled, because it would be lost.
        """
        asyncio.get_running_loop().call_soon(self._cancel_now)

    def _cancel_now(self) -> None:
        found = self._find()
        if found is not None and not found[0].is_settling:
            found[1].cancel()

    async def wait(self, seconds: float) -> bool:
        """Wait for the end of the task. Return False if it still runs after `seconds`."""
        found = self._find()
        if found is not None:
            await asyncio.wait([found[1]], timeout=seconds)
        return found is None or found[1].done()

    def give_up(self) -> list[TracebackFrame]:
        """Release the slot of a task that does not end, and report it until it ends.

        Returns:
            The frames of the task.
        """
        found = self._find()
        if found is None:
            return []
        message, task = found
        in_flight = self._in_flight
        in_flight.release_slot(message)
        in_flight.stuck.add(message)
        task.add_done_callback(lambda _: in_flight.stuck.discard(message))
        return task_frames(task)
