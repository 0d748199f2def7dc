"""The times at which a handle asks for the state of its job, while a reader waits."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from bus.errors import BusError
from bus.runtime.jobs.job_asker import has_no_owner

__all__ = ["AFTER_PUSHES", "WITHOUT_PUSHES", "JobPolls", "PollSchedule"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PollSchedule:
    """Seconds between the questions of one handle."""

    first: float
    """Seconds until the first question."""
    longest: float
    """Maximum seconds between two questions."""
    growth: float = 1.5
    """Factor by which the seconds grow."""
    jitter: float = 0.2
    """Maximum random part of the seconds, so that many handles do not ask together."""
    needs_answers: bool
    """True if no pushed update can arrive, so that an error of a question is an error of the
    reader."""


AFTER_PUSHES = PollSchedule(first=5.0, longest=15.0, needs_answers=False)
"""The schedule of a handle that receives pushed updates. It asks only if none arrives."""
WITHOUT_PUSHES = PollSchedule(first=0.1, longest=2.0, needs_answers=True)
"""The schedule of a handle of another process."""
RECONNECTED_SECONDS = 1.0
"""Seconds after a lost connection at which a handle asks. Updates may have been lost with it."""
SILENCE_SECONDS = 60.0
"""Seconds after which a reader gets the error if the service has never answered."""


class JobPolls:
    """Asks for the state of one job at the times of a schedule, while a reader waits."""

    def __init__(self, look: Callable[[], Awaitable[None]], schedule: PollSchedule) -> None:
        """Create the object. It does nothing until a reader waits.

        Args:
            look: Function that asks once, and gives the answer to the handle.
            schedule: Times of the questions.
        """
        self._look = look
        self._schedule = schedule
        self._delay = schedule.first
        self._due: float | None = None
        """Time of the next question, by the loop's clock. None: no reader has waited yet."""
        self._began: float | None = None
        self._is_off = False
        """True if the service has no store, until the connection is lost."""
        self._has_answered = False
        self._question: asyncio.Task[BusError | None] | None = None
        self.failure: BusError | None = None
        """Error of the last question. None if it was answered."""

    @property
    def has_answered(self) -> bool:
        """True if the service has answered a question about the job."""
        return self._has_answered

    @property
    def needs_answers(self) -> bool:
        """True if no pushed update can arrive."""
        return self._schedule.needs_answers

    def on_push(self) -> None:
        """Ask later, because an update has arrived without a question."""
        self._delay, self._due = self._schedule.first, None

    def ask_soon(self, seconds: float = 0.0) -> None:
        """Ask after some seconds, also if the service had no store before."""
        self._is_off = False
        self._due = asyncio.get_running_loop().time() + seconds

    def on_connection_lost(self) -> None:
        """Ask soon after the connection is open again, because updates may have been lost."""
        self.ask_soon(RECONNECTED_SECONDS * (0.5 + random.random()))  # noqa: S311 - not a secret

    async def wait(self, changed: asyncio.Event) -> None:
        """Wait until an update has arrived, and ask at the times of the schedule.

        Raises:
            BusError: No update can arrive, because the service does not answer, or refuses to.
        """
        if await self._has_come(changed):
            return
        waiting = asyncio.ensure_future(changed.wait())
        try:
            while not waiting.done():
                question = self._question or self._begin_if_due()
                await asyncio.wait(
                    [waiting] if question is None else [waiting, question],
                    timeout=self._seconds_left() if question is None else None,
                    return_when=asyncio.FIRST_COMPLETED,
                )
                if question is not None and question.done() and not waiting.done():
                    self._raise_fatal(question)
        finally:
            waiting.cancel()

    async def _has_come(self, changed: asyncio.Event) -> bool:
        """Wait for an update until the next question is due. Return False if none has arrived.

        Most updates are pushed before the first question, so this wait needs no task.
        """
        if self._question is not None:
            return False
        try:
            async with asyncio.timeout(self._seconds_left()):
                return await changed.wait()
        except TimeoutError:
            return False

    def _seconds_left(self) -> float | None:
        """Return the seconds until the next question. None if no question follows."""
        if self._is_off:
            return None
        now = asyncio.get_running_loop().time()
        if self._due is None:
            self._due = now + self._varied(self._delay)
        return max(self._due - now, 0.0)

    def _begin_if_due(self) -> "asyncio.Task[BusError | None] | None":
        left = self._seconds_left()
        if left is None or left > 0:
            return None
        now = asyncio.get_running_loop().time()
        self._began = self._began or now
        self._question = asyncio.create_task(self._ask(), name="question about a job")
        return self._question

    async def _ask(self) -> BusError | None:
        try:
            await self._look()
        except BusError as error:
            self.failure = error
            self._is_off = has_no_owner(error) and not self._schedule.needs_answers
            return error
        else:
            self.failure, self._has_answered = None, True
            return None
        finally:
            now = asyncio.get_running_loop().time()
            self._delay = min(self._delay * self._schedule.growth, self._schedule.longest)
            self._due, self._question = now + self._varied(self._delay), None

    def _varied(self, seconds: float) -> float:
        jitter = self._schedule.jitter
        return seconds * (1 - jitter + 2 * jitter * random.random())  # noqa: S311 - as above

    def _raise_fatal(self, question: "asyncio.Task[BusError | None]") -> None:
        """Raise the error of a question if no later question can change it."""
        error = question.result()
        if error is None or not self._schedule.needs_answers:
            return
        if not error.retryable:
            raise error
        now = asyncio.get_running_loop().time()
        is_silent = not self._has_answered and now - (self._began or now) >= SILENCE_SECONDS
        if is_silent or (has_no_owner(error) and not self._has_answered):
            raise error
