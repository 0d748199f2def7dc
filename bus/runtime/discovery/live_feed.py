"""Live feed: the loop that keeps a live view current by questions and announcements."""

import asyncio
from collections.abc import Callable
from contextlib import aclosing, suppress
from typing import Any

from bus.errors import BusError, Unavailable
from bus.messaging.control import ALL, Announcement, Question, Target
from bus.runtime.discovery.asker import Asker
from bus.runtime.discovery.broker_check import Depth, check_broker, queue_of
from bus.runtime.discovery.live_view import LiveView

__all__ = ["LiveFeed", "follow_announcements"]

RETRY_SECONDS = 1.0
"""Seconds until announcements are read again after the broker did not answer."""
MAX_RETRY_SECONDS = 60.0
"""Maximum of these seconds. They double, because a broker that refuses logs each attempt."""


class LiveFeed:
    """Asks one question at an interval, reads announcements, and records both in a view.

    If the broker does not answer, the feed tries again at the next interval. Such a round is not a
    missed round, because no instance received the question. If no instance answers, the feed checks
    that the broker works.
    """

    def __init__(  # noqa: PLR0913 - the question, and the times of its rounds
        self,
        asker: Asker,
        view: LiveView,
        question: Question[Any],
        target: Target = ALL,
        *,
        interval: float = 2.0,
        window: float = 1.0,
        depth: Depth | None = None,
    ) -> None:
        """Create a feed.

        Args:
            asker: The asker that sends the questions.
            view: The view in which the answers and announcements are recorded.
            question: The question of each round.
            target: The instances that are asked.
            interval: Seconds between the begins of two rounds.
            window: Seconds to wait for the answers of a round.
            depth: `Transport.depth`, with which the feed checks that the broker works. None: each
                round without an answer is a missed round.
        """
        self._asker, self._view = asker, view
        self._question, self._target = question, target
        self._interval, self._window, self._depth = interval, window, depth
        self.error: Unavailable | None = None
        """Reason why the last round had no answers. None if the question was sent."""

    async def run(self, on_change: Callable[[], None]) -> None:
        """Keep the view current until this task is cancelled.

        Args:
            on_change: Function to call after each round and after each announcement.

        Raises:
            PermissionDenied: The asker has no right to ask.
        """
        tasks = {
            asyncio.ensure_future(self._read_announcements(on_change)),
            asyncio.ensure_future(self._ask_rounds(on_change)),
        }
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def ask(self) -> None:
        """Ask once, and record the answers."""
        begun = self._view.clock()
        try:
            answers = await self._asker.ask(self._question, self._target, window=self._window)
            if not answers:
                await self._check_broker()
        except Unavailable as error:
            self.error = error
            return
        self.error = None
        self._view.add_round(answers, self._target, begun=begun)

    async def _check_broker(self) -> None:
        """Raise `Unavailable` if an instance could be missed only because the broker is silent."""
        live = self._view.live(self._target.service)
        if self._depth is not None and live:
            await check_broker(self._depth, queue_of(each.record for each in live))

    async def _ask_rounds(self, on_change: Callable[[], None]) -> None:
        loop = asyncio.get_running_loop()
        while True:
            next_round = loop.time() + self._interval
            await self.ask()
            on_change()
            await asyncio.sleep(max(0.0, next_round - loop.time()))

    async def _read_announcements(self, on_change: Callable[[], None]) -> None:
        def record(announcement: Announcement) -> None:
            self._view.announce(announcement)
            on_change()

        await follow_announcements(self._asker, record)


async def follow_announcements(
    asker: Asker,
    on_announcement: Callable[[Announcement], None],
    *,
    ignored: type[BusError] = Unavailable,
) -> None:
    """Pass on each announcement until the task is cancelled. After an error, try again.

    Args:
        asker: The asker that listens.
        on_announcement: Function to call with each announcement.
        ignored: Class of the errors after which it tries again, because the next question reports
            them.

    Raises:
        PermissionDenied: The asker has no right to read, and the error is not ignored.
    """
    pause = RETRY_SECONDS
    while True:
        async with aclosing(asker.announcements()) as stream:
            with suppress(ignored):
                async for announcement in stream:
                    pause = RETRY_SECONDS
                    on_announcement(announcement)
        await asyncio.sleep(pause)
        pause = min(2 * pause, MAX_RETRY_SECONDS)
