"""Live feed: the loop that keeps a live view current by questions and announcements."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol, runtime_checkable

from bus.errors import Unavailable
from bus.messaging.control import ALL, Question, Target
from bus.runtime.discovery.asker import Asker
from bus.runtime.discovery.broker_check import Depth, check_broker, queue_of
from bus.runtime.discovery.live_view import LiveView

__all__ = ["LiveFeed"]

RETRY_SECONDS = 1.0
"""Seconds until the feed reads announcements again after the broker did not answer."""


@runtime_checkable
class Closable(Protocol):
    """A stream that holds a queue until it is closed."""

    async def aclose(self) -> None:
        """Close the stream."""
        ...


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
        while True:
            stream = self._asker.announcements()
            try:
                with suppress(Unavailable):  # the next round reports the error
                    async for announcement in stream:
                        self._view.announce(announcement)
                        on_change()
            finally:
                if isinstance(stream, Closable):
                    await stream.aclose()
            await asyncio.sleep(RETRY_SECONDS)
