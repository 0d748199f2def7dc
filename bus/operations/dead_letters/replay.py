"""Moving dead letters back to work, and deleting them: confirmed first, acked then, so that being killed at any point loses nothing."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from bus.errors import (
    BusError,
    ConfigurationError,
    ConnectionLost,
    FailedPrecondition,
    NotFound,
    ResourceExhausted,
)
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
"""Dead letters that are under way at a time: as many can be there twice where the replay is killed."""
MAX_CONSUMERS = 1000
"""Windows full of what is kept, each with its consumer and channel; RabbitMQ allows 2047 channels to a connection."""
SEND_TIMEOUT_SECONDS = 10.0
"""Seconds for the broker's confirm."""
MAX_REPLAYER_LENGTH = 200
"""Characters."""
MAX_REPLAY_COUNT = 2**53
"""Replays; the header is anyone's, and one more than the largest number of AMQP could not be sent."""
REPLAYED_AT, REPLAYED_BY = "replayed-at", "replayed-by"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayOptions:
    """How to replay."""

    by: str
    """Who does it; noted on each message."""
    extend: float | None = None
    """Seconds from now that an expired message gets to be handled; None refuses it."""
    countersign: Countersign | None = None
    """An operator's word for it, which a message needs that has a proof: without it such a one is refused."""
    rate: float | None = None
    """At most so many a second."""
    window: int = WINDOW
    """Under way at a time."""
    most: int = MAX_BROWSED
    """Held at a time that are not meant; where there are more of these, those behind them are not looked at."""
    dry_run: bool = False
    """Whether everything is checked and nothing is moved."""
    clock: Callable[[], float] = time.time

    def __post_init__(self) -> None:
        """`ConfigurationError` for what could move nothing."""
        if self.rate is not None and not self.rate > 0:  # NaN, too
            raise ConfigurationError(
                f"a rate is messages a second, above 0, not {self.rate:g}; without one it is as fast as it goes"
            )


def _ignored(_done: ReplayReport) -> None: ...


async def replay(
    transport: Transport,
    dead_queue: str,
    selection: Selection = EVERYTHING,
    *,
    how: ReplayOptions,
    on_progress: Callable[[ReplayReport], None] = _ignored,
) -> ReplayReport:
    """Move the dead letters that are meant back to their work queues, with `attempt` 1 and who and when in their headers.

    What dies again meanwhile is not taken a second time. Each is acked when the broker has confirmed its copy. What
    went wrong is in the result. Raises `NotFound` where there is no such queue, `Unavailable` where it cannot be read, and
    `ConfigurationError` for more time than a proof can have.
    """
    if how.countersign is not None and (how.extend or 0) >= MAX_PROOF_LIFETIME_SECONDS:
        raise ConfigurationError(
            "a message gets less than 31 days more: what was proven for longer its receiver would refuse"
        )
    done = ReplayReport()
    move = ReplayRunner(transport, how, done)
    started, most = int(how.clock() * 1000), min(how.most, how.window * MAX_CONSUMERS)

    def fits(letter: DeadLetter) -> bool:
        done.seen.note(letter, selection)
        return selection.fits(letter) and not _replayed_since(letter, started)

    on_progress(done)
    with recording_failure(done):
        # What the broker has not seen acked fills the hold: so the window is the most that can be there twice, acks lost or not.
        async with open_reader(transport, dead_queue, hold=how.window) as letters:
            try:
                async for taken in _paced(letters.matching(fits, most), how.rate):
                    done.matched += 1
                    if not await move.begin(taken) and letters.hold(taken) >= most:
                        break
                    on_progress(done)
                    if done.failure is not None:
                        break
            finally:
                await (
                    move.finish()
                )  # also where somebody calls it off: what is under way would be there twice
            done.not_scanned = await letters.not_scanned()
    on_progress(done)
    return done


class ReplayRunner:
    """The moves of one replay, a window of them at a time."""

    def __init__(self, transport: Transport, how: ReplayOptions, done: ReplayReport) -> None:
        self._transport = transport
        self._how = how
        self._done = done
        self._homes: dict[str, bool] = {}
        self._places = asyncio.Semaphore(how.window)
        self._tasks: set[asyncio.Task[None]] = set()

    async def begin(self, taken: HeldDelivery) -> bool:
        """Send it on its way, as soon as there is a place in the window; False where it stays."""
        queue = taken.letter.record.queue
        if (
            queue is None
            or service_of(queue) != service_of(taken.letter.dead_queue)
            or not await self._is_there(queue)
        ):
            self._done.no_queue += 1
            return False
        copy = reset_for_replay(taken.letter, self._how)
        if copy is None:
            self._done.expired += 1
            return False
        if copy.expires != taken.letter.envelope.expires and copy.proof is not None:
            word = self._how.countersign and self._how.countersign(copy, queue, copy.expires or 0)
            if word is None:
                self._done.needs_operator += 1
                return False
            copy = copy.replace(expiry_override=word)
        if self._how.dry_run:
            self._done.replayed += 1
            return False
        await self._places.acquire()
        task = asyncio.create_task(self._move(taken, copy, queue))
        self._tasks.add(task)
        task.add_done_callback(self._over)
        return True

    async def _is_there(self, queue: str) -> bool:
        """Asked once for each."""
        if queue not in self._homes:
            try:
                await self._transport.depth(queue)
            except NotFound:
                self._homes[queue] = False
            else:
                self._homes[queue] = True
        return self._homes[queue]

    def _over(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        self._places.release()

    async def _move(self, taken: HeldDelivery, copy: Envelope, queue: str) -> None:
        try:
            outcome = await self._transport.send(
                copy, replay_address(queue), timeout=SEND_TIMEOUT_SECONDS
            )
        except BusError as error:
            self._done.uncertain += error.maybe_executed
            self._fail(error)
            return
        if not isinstance(outcome, Accepted):
            self._fail(_refusal(queue, outcome.reason))
        elif await taken.delivery.ack():
            self._done.replayed += 1
        else:
            self._done.uncertain += 1
            self._fail(
                ConnectionLost("the connection went between confirm and ack", maybe_executed=True)
            )

    def _fail(self, error: BusError) -> None:
        self._done.failure = self._done.failure or error

    async def finish(self) -> None:
        """Returns when nothing is under way."""
        while self._tasks:
            await asyncio.wait(self._tasks)


def _refusal(queue: str, reason: str) -> BusError:
    if reason == "NO_ROUTE":
        return FailedPrecondition(
            f"{queue} is not bound to its service's way back; start the service, which declares it"
        )
    return ResourceExhausted(f"{queue} takes no more: {reason}")


def reset_for_replay(letter: DeadLetter, how: ReplayOptions) -> Envelope | None:
    """The message as it begins its next life; None where its time is over and nobody gives it more.

    The record of its death goes; how often, when and by whom it was replayed stays with it, into its next death too.
    """
    envelope, now = letter.envelope, int(how.clock() * 1000)
    expires = envelope.expires
    if expires is not None and expires <= now:
        if how.extend is None:
            return None
        expires = now + int(how.extend * 1000)
    before = envelope.headers.get(REPLAYS)
    notes: Headers = {
        REPLAYS: 1 + (before if isinstance(before, int) and 0 < before < MAX_REPLAY_COUNT else 0),
        REPLAYED_AT: now,
        REPLAYED_BY: how.by[:MAX_REPLAYER_LENGTH],
    }
    others = {
        name: value
        for name, value in without_record(envelope.headers).items()
        if name not in {*notes, FIRST_FAILED, PARKED}
    }
    return envelope.replace(
        attempt=1, expires=expires, deadline=None, expiration=None, headers=notes | others
    )


def _replayed_since(letter: DeadLetter, started: int) -> bool:
    """Whether it died again after this replay had moved it: moved once more it might go round for ever."""
    at = letter.headers.get(REPLAYED_AT)
    return isinstance(at, int) and at >= started


async def _paced(
    taken: AsyncIterator[HeldDelivery], rate: float | None
) -> AsyncIterator[HeldDelivery]:
    """Not faster than `rate` a second; what was late is not made up for in a burst."""
    loop = asyncio.get_running_loop()
    due = loop.time()
    async for each in taken:
        if rate is not None:
            await asyncio.sleep(max(0.0, due - loop.time()))
            due = max(due, loop.time() - 1 / rate) + 1 / rate
        yield each
