"""Replay of dead letters to their work queues.

A dead letter is acked only after the broker has confirmed the copy in the work queue. So no message
is lost if the process is killed.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from math import inf

from bus.contracts.limits import describe, is_number
from bus.errors import (
    BusError,
    ConfigurationError,
    ConnectionLost,
    FailedPrecondition,
    NotFound,
    ResourceExhausted,
)
from bus.messaging.dependency_wait import WAIT_HEADERS
from bus.messaging.envelope import Envelope
from bus.messaging.fault_record import FIRST_FAILED, PARKED, REPLAYS, Headers, without_record
from bus.messaging.ports.transport import Accepted, Transport
from bus.messaging.topology.addresses import replay_address
from bus.messaging.topology.names import service_of
from bus.operations.dead_letters.browse import MAX_BROWSED, HeldDelivery, open_reader
from bus.operations.dead_letters.reports import ReplayReport, recording_failure
from bus.operations.dead_letters.selection import EVERYTHING, DeadLetter, Selection
from bus.security.proofs import MAX_PROOF_LIFETIME_SECONDS, Countersign

__all__ = ["WINDOW", "ReplayOptions", "replay"]

WINDOW = 100
"""Maximum number of dead letters that are moved at the same time.

If the replay is killed, at most this number of messages can exist twice.
"""
MAX_CONSUMERS = 1000
"""Maximum number of consumers. Each consumer has a channel, and holds up to `window` dead letters.

RabbitMQ allows 2047 channels on one connection.
"""
SEND_TIMEOUT_SECONDS = 10.0
"""Seconds to wait for the broker's confirm."""
MAX_REPLAYER_LENGTH = 200
"""Maximum number of characters in the header `replayed-by`."""
MAX_REPLAY_COUNT = 2**53
"""Limit of the replay count in a header. A header with this count or a higher count is ignored.

Any client can write the header. Without a limit, the count could exceed AMQP's largest integer.
"""
REPLAYED_AT, REPLAYED_BY = "replayed-at", "replayed-by"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayOptions:
    """Options of a replay."""

    by: str
    """Name of the operator. Each copy records the name in a header."""
    extend: float | None = None
    """New time-to-live of expired messages, in seconds from now.

    If None, expired messages stay in the dead-letter queue.
    """
    countersign: Countersign | None = None
    """Function that signs the new expiry time in the name of an operator.

    If an expired message has a proof, the message is moved only with this signature.
    """
    rate: float | None = None
    """Maximum number of dead letters to move in a second. None: no limit."""
    window: int = WINDOW
    """Maximum number of dead letters that are moved at the same time."""
    most: int = MAX_BROWSED
    """Maximum number of dead letters that are read but not moved. The replay holds them to its end.

    If this number is reached, the replay ends, and the remaining dead letters are not read.
    """
    dry_run: bool = False
    """True if the replay only checks the dead letters and moves none."""
    clock: Callable[[], float] = time.time

    def __post_init__(self) -> None:
        """Raise `ConfigurationError` if the rate is not a finite number above 0."""
        if self.rate is not None and not (is_number(self.rate) and 0 < self.rate < inf):
            raise ConfigurationError(
                f"rate must be above 0 messages a second, not {describe(self.rate)}. Omit it to "
                "replay without a limit."
            )


def _ignore_progress(_report: ReplayReport) -> None: ...


async def replay(
    transport: Transport,
    dead_queue: str,
    selection: Selection = EVERYTHING,
    *,
    how: ReplayOptions,
    on_progress: Callable[[ReplayReport], None] = _ignore_progress,
) -> ReplayReport:
    """Move selected dead letters back to their work queues.

    Each copy begins at attempt 1. Headers of the copy record the operator and the time. A dead
    letter is acked after the broker has confirmed the copy. If a message is dead-lettered again
    during the replay, the replay does not move it again.

    Args:
        transport: Connection to the broker.
        dead_queue: Name of the dead-letter queue.
        selection: Dead letters to move.
        how: Options of the replay.
        on_progress: Function that is called with the report at the beginning, after each started
            move, and at the end.

    Returns:
        A report. If an error ended the replay early, the report contains the error.

    Raises:
        NotFound: The dead-letter queue does not exist.
        Unavailable: The dead-letter queue cannot be read.
        ConfigurationError: `how.countersign` is set, and `how.extend` exceeds the maximum validity
            of a proof.
    """
    if how.countersign is not None and (how.extend or 0) >= MAX_PROOF_LIFETIME_SECONDS:
        raise ConfigurationError(
            "extend must be less than 31 days: receivers reject proofs that are valid for longer. "
            "Choose a shorter time."
        )
    report = ReplayReport()
    runner = ReplayRunner(transport, how, report)
    started, most = int(how.clock() * 1000), min(how.most, how.window * MAX_CONSUMERS)

    def fits(letter: DeadLetter) -> bool:
        report.seen.note(letter, selection)
        return selection.fits(letter) and not _was_replayed_since(letter, started)

    on_progress(report)
    with recording_failure(report):
        # Apart from the dead letters that the reader keeps, at most `window` dead letters are
        # unacked. So at most `window` messages can exist twice, even if acks are lost.
        async with open_reader(transport, dead_queue, hold=how.window) as reader:
            try:
                async for held in _limit_rate(reader.matching(fits, most), how.rate):
                    report.matched += 1
                    if not await runner.begin(held) and reader.hold(held) >= most:
                        break
                    on_progress(report)
                    if report.failure is not None:
                        break
            finally:
                # Wait even if the replay is cancelled. Without the wait, a message could be copied
                # but not acked, and would exist twice.
                await runner.finish()
            report.not_scanned = await reader.not_scanned()
    on_progress(report)
    return report


class ReplayRunner:
    """The tasks of one replay. Each task moves one dead letter. At most `window` tasks run."""

    def __init__(self, transport: Transport, how: ReplayOptions, report: ReplayReport) -> None:
        self._transport = transport
        self._how = how
        self._report = report
        self._queue_exists: dict[str, bool] = {}
        self._slots = asyncio.Semaphore(how.window)
        self._tasks: set[asyncio.Task[None]] = set()

    async def begin(self, held: HeldDelivery) -> bool:
        """Start to move a dead letter. If `window` dead letters are being moved, wait first.

        Returns:
            False if the dead letter stays in its queue.
        """
        queue = held.letter.record.queue
        if (
            queue is None
            or service_of(queue) != service_of(held.letter.dead_queue)
            or not await self._exists(queue)
        ):
            self._report.no_queue += 1
            return False
        copy = reset_for_replay(held.letter, self._how)
        if copy is None:
            self._report.expired += 1
            return False
        if copy.expires != held.letter.envelope.expires and copy.proof is not None:
            signature = self._how.countersign and self._how.countersign(
                copy, queue, copy.expires or 0
            )
            if signature is None:
                self._report.needs_operator += 1
                return False
            copy = copy.replace(expiry_override=signature)
        if self._how.dry_run:
            self._report.replayed += 1
            return False
        await self._slots.acquire()
        task = asyncio.create_task(self._move(held, copy, queue))
        self._tasks.add(task)
        task.add_done_callback(self._on_task_done)
        return True

    async def _exists(self, queue: str) -> bool:
        """Return True if the queue exists. The method asks the broker only once for each queue."""
        if queue not in self._queue_exists:
            try:
                await self._transport.depth(queue)
            except NotFound:
                self._queue_exists[queue] = False
            else:
                self._queue_exists[queue] = True
        return self._queue_exists[queue]

    def _on_task_done(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        self._slots.release()

    async def _move(self, held: HeldDelivery, copy: Envelope, queue: str) -> None:
        try:
            outcome = await self._transport.send(
                copy, replay_address(queue), timeout=SEND_TIMEOUT_SECONDS
            )
        except BusError as error:
            self._report.uncertain += error.maybe_executed
            self._fail(error)
            return
        if not isinstance(outcome, Accepted):
            self._fail(_error_for(queue, outcome.reason))
        elif await held.delivery.ack():
            self._report.replayed += 1
        else:
            self._report.uncertain += 1
            self._fail(
                ConnectionLost(
                    "the connection was lost between the confirm and the ack", maybe_executed=True
                )
            )

    def _fail(self, error: BusError) -> None:
        self._report.failure = self._report.failure or error

    async def finish(self) -> None:
        """Wait until no dead letter is being moved."""
        while self._tasks:
            await asyncio.wait(self._tasks)


def _error_for(queue: str, reason: str) -> BusError:
    if reason == "NO_ROUTE":
        return FailedPrecondition(
            f"{queue} is not bound to its service's return exchange. Start the service, because it "
            "declares the binding."
        )
    return ResourceExhausted(f"{queue} rejects messages: {reason}. Check whether it is full.")


def reset_for_replay(letter: DeadLetter, how: ReplayOptions) -> Envelope | None:
    """Return the copy to replay. Return None if the message has expired and `how.extend` is None.

    The copy has no failure record. The headers of the copy contain the number of replays. They also
    contain the time of the last replay and its operator. The message keeps these headers if it is
    dead-lettered again.
    """
    envelope, now = letter.envelope, int(how.clock() * 1000)
    expires = envelope.expires
    if expires is not None and expires <= now:
        if how.extend is None:
            return None
        expires = now + int(how.extend * 1000)
    count = envelope.headers.get(REPLAYS)
    notes: Headers = {
        REPLAYS: 1 + (count if isinstance(count, int) and 0 < count < MAX_REPLAY_COUNT else 0),
        REPLAYED_AT: now,
        REPLAYED_BY: how.by[:MAX_REPLAYER_LENGTH],
    }
    other_headers = {
        name: value
        for name, value in without_record(envelope.headers).items()
        if name not in {*notes, *WAIT_HEADERS, FIRST_FAILED, PARKED}
    }
    return envelope.replace(
        attempt=1, expires=expires, deadline=None, expiration=None, headers=notes | other_headers
    )


def _was_replayed_since(letter: DeadLetter, started: int) -> bool:
    """Return True if the message was replayed at `started` or later and dead-lettered again.

    The replay does not move this message again. If the message failed after each move, the replay
    would never end.
    """
    at = letter.headers.get(REPLAYED_AT)
    return isinstance(at, int) and at >= started


async def _limit_rate(
    deliveries: AsyncIterator[HeldDelivery], rate: float | None
) -> AsyncIterator[HeldDelivery]:
    """Yield at most `rate` dead letters a second. Do not go faster after a delay."""
    loop = asyncio.get_running_loop()
    due = loop.time()
    async for held in deliveries:
        if rate is not None:
            await asyncio.sleep(max(0.0, due - loop.time()))
            due = max(due, loop.time() - 1 / rate) + 1 / rate
        yield held
