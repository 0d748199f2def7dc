"""The throttle of a control queue: it takes a limited number of messages per second.

Any client of the broker with an address of a process can send to its control queue. The throttle
acks each message after it was passed on, and the broker delivers only a few unacked messages. So
during a flood the broker keeps the messages, and drops the oldest of a full queue. A message that
waits in the throttle is not decoded.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable

from bus.messaging.envelope import Envelope
from bus.messaging.failure_location import failure_facts
from bus.messaging.labels import failure_label
from bus.messaging.ports.transport import Delivery
from bus.messaging.timers import loop_time

__all__ = [
    "ASKING_MESSAGES_PER_SECOND",
    "FLOOD_SECONDS",
    "MAX_QUESTION_BYTES",
    "MESSAGES_PER_SECOND",
    "PREFETCH",
    "Throttle",
]

log = logging.getLogger("bus.discovery")

MESSAGES_PER_SECOND = 500.0
"""Maximum number of messages per second that a process takes from its control queue."""
ASKING_MESSAGES_PER_SECOND = 3000.0
"""The same maximum while the process waits for answers. Thousands of instances can answer."""
BURST_SECONDS = 1.0
"""Seconds of the rate that a process takes at the same moment after a pause."""
PREFETCH = 32
"""Maximum number of messages that wait in the process."""
MAX_QUESTION_BYTES = 64 * 1024
"""Maximum bytes of a question or an announcement. A larger body is dropped while it arrives."""
BATCH = 10
"""Number of waiting messages that are taken in one turn of the event loop, and acked together."""
FLOOD_SECONDS = 60.0
"""Seconds between two lines about a flood. A process counts as flooded for this time as well."""


class Throttle:
    """Passes the messages of one control queue on, and acks them."""

    def __init__(self, service: str, pass_on: Callable[[Envelope], None]) -> None:
        """Create the throttle of a process of `service`. `pass_on` must not block."""
        self._service, self._pass_on = service, pass_on
        self._rate = MESSAGES_PER_SECOND
        self._tokens = self._rate * BURST_SECONDS
        self._filled_at = loop_time()
        self._held: deque[Delivery] = deque()
        """Messages that wait for the rate. The prefetch bounds their number."""
        self._passed: deque[Delivery] = deque()
        """Messages to ack."""
        self._working: asyncio.Task[None] | None = None
        self._is_closed = False
        self._slowed_at = self._logged_at = float("-inf")

    @property
    def is_flooded(self) -> bool:
        """True if more messages than the limit have arrived in the last minute."""
        return loop_time() - self._slowed_at < FLOOD_SECONDS

    def expect_answers(self, *, expected: bool) -> None:
        """Choose the higher rate if answers are expected."""
        rate = ASKING_MESSAGES_PER_SECOND if expected else MESSAGES_PER_SECOND
        if rate != self._rate:
            self._rate, self._filled_at = rate, loop_time()
            self._tokens = rate * BURST_SECONDS

    def on_delivery(self, delivery: Delivery) -> None:
        """Pass a message on, or hold it until the rate permits it."""
        if self._is_closed:
            return  # the broker deletes the message together with the queue
        if not self._held and self._take():
            self._pass(delivery)
        else:
            self._held.append(delivery)
            self._note_flood()
        if self._working is None or self._working.done():
            self._working = asyncio.get_running_loop().create_task(self._work())

    def _take(self) -> bool:
        now = loop_time()
        tokens = self._tokens + (now - self._filled_at) * self._rate
        self._tokens, self._filled_at = min(self._rate * BURST_SECONDS, tokens), now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True

    def _pass(self, delivery: Delivery) -> None:
        self._passed.append(delivery)
        try:
            self._pass_on(delivery.envelope)
        except Exception as error:  # noqa: BLE001 - one message must not end the throttle
            facts = failure_facts(error)
            log.error(  # noqa: TRY400 - a traceback can show values
                "%s: a message on the control channel could not be handled: %s",
                self._service,
                failure_label(facts),
                extra=facts,
            )

    async def _work(self) -> None:
        """Ack the messages that were passed on, and pass on those that wait."""
        while self._held or self._passed:
            while self._passed:
                await self._passed.popleft().ack()
            taken = 0
            while self._held and taken < BATCH and self._take():
                self._pass(self._held.popleft())
                taken += 1
            if self._held:
                # Requests and jobs have their turn between two batches.
                await asyncio.sleep(0 if taken == BATCH else BATCH / self._rate)

    def _note_flood(self) -> None:
        """Record and log a flood. Many answers at once are not a flood."""
        now = loop_time()
        if self._rate != MESSAGES_PER_SECOND:
            return
        self._slowed_at = now
        if now - self._logged_at < FLOOD_SECONDS:
            return
        self._logged_at = now
        log.warning(
            "%s: more than %g messages per second arrive on the control channel. The broker keeps "
            "the others, and drops the oldest, so questions can stay without an answer. Find the "
            "broker user with many publishes to bus.control in the management UI, and disable it",
            self._service,
            MESSAGES_PER_SECOND,
            extra={"service": self._service, "why": "flood"},
        )

    async def close(self) -> None:
        """Stop. The broker deletes the messages that wait, together with the queue."""
        self._is_closed = True
        self._held.clear()
        if self._working is not None:
            self._working.cancel()
            await asyncio.wait([self._working])
