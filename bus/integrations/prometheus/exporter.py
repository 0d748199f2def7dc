"""The metrics of all live instances, which answer questions on the control channel.

The exporter asks at a scrape, and not by itself, so it costs the broker nothing between scrapes. An
instance that does not answer the latest question has no metrics: old values would be wrong.
"""

import asyncio
import logging
import time
from collections.abc import (
    Callable,
    Sequence,
)
from contextlib import suppress
from typing import Final

from bus.errors import BusError, Unavailable
from bus.integrations.prometheus.answer_limits import count_dropped, select_answers
from bus.integrations.prometheus.exporter_metrics import Shown
from bus.messaging.control import Answer, GetInfo, GetStats
from bus.messaging.service_info import InstanceState, InstanceStats
from bus.runtime.discovery.asker import Asker
from bus.runtime.discovery.broker_check import Depth, check_broker, queue_of
from bus.runtime.discovery.live_feed import follow_announcements
from bus.runtime.discovery.live_view import LiveView

__all__ = ["STATES", "Exporter"]

log = logging.getLogger("bus.exporter")

STATES: Final = ("starting", "ready", "not-ready", "draining", "silent")
"""Values of the label `state`. `silent` instances did not answer the latest question."""
SLACK_SECONDS: Final = 3.0
"""Maximum seconds that a question takes beyond its window, for example while the broker is away."""
VERSIONS_SECONDS: Final = 1.0
"""Maximum window of the question for versions, so that a scrape ends within 10 s."""
RETRY_SECONDS: Final = 5.0
"""Seconds after a failed question in which no further question is sent."""
FORGET_SERVICE_SECONDS: Final = 24 * 3600.0
"""Seconds in which a service without instances is shown with 0 instances, so that alerts see it."""
MAX_SERVICES: Final = 1_000
"""Maximum number of services that are shown."""

Key = tuple[str, str]
"""Names of a service and of an instance."""


class Exporter:
    """The questions to all live instances, and the values that a scrape shows."""

    def __init__(
        self,
        asker: Asker,
        *,
        interval: float = 10.0,
        window: float = 1.0,
        depth: Depth | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Create an exporter that has not asked yet.

        Args:
            asker: The asker, which needs the right to read.
            interval: Seconds in which further scrapes receive the same answers.
            window: Seconds to wait for answers.
            depth: `Transport.depth`, with which the exporter notices a broker that is silent. The
                question itself is not confirmed.
            clock: Function that returns seconds.
        """
        self._asker = asker
        self._interval = interval
        self._window = window
        self._depth = depth
        self._clock = clock
        self._view = LiveView(clock=clock)
        self._services: dict[str, float] = {}
        """The time at which each service was last seen."""
        self._versions: dict[Key, str] = {}
        self._asked: float | None = None
        self._answered: float | None = None
        self._seconds = 0.0
        self._questions = {"ok": 0, "failed": 0}
        self._rejected = 0
        """Number of answers that were not shown, because their service has too many series."""
        self._error: BusError | None = None
        self._stats: tuple[InstanceStats, ...] = ()
        self._queue: str | None = None
        """A queue of a live instance."""
        self.shown = Shown()
        """The values of the next scrape."""

    async def check(self) -> None:
        """Ask for the first time.

        Raises:
            BusError: The asker may not ask, or discovery is off.
        """
        await self._ask()
        if self._error is not None:
            raise self._error

    async def ready(self) -> str | None:
        """Return None if the last question could be sent. If not, return the reason.

        After a failure the question is sent again, because an orchestrator may keep the scraper
        away until the exporter is ready.
        """
        if self._error is not None:
            await self.refresh()
        return None if self._error is None else "the question to the instances cannot be sent"

    async def refresh(self) -> None:
        """Ask the live instances, unless the answers of the last question are fresh."""
        pause = self._interval if self._error is None else min(RETRY_SECONDS, self._interval)
        if self._asked is None or self._clock() - self._asked >= pause:
            await self._ask()
        self._show()

    async def read_announcements(self) -> None:
        """Record which instances start and stop, until this task is cancelled."""
        # The next question reports an error.
        await follow_announcements(self._asker, self._view.announce, ignored=BusError)

    async def _ask(self) -> None:
        begun = self._asked = self._clock()
        try:
            async with asyncio.timeout(self._window + SLACK_SECONDS):
                answers = await self._asker.ask(GetStats(), window=self._window)
                if not answers:
                    await self._check_broker()
        except (BusError, TimeoutError) as error:
            self._fail(error)
            return
        answers, rejected = select_answers(answers)
        self._rejected += rejected
        await self._ask_versions(answers)
        self._seconds = self._clock() - begun
        self._questions["ok"] += 1
        if self._error is not None:
            log.info("the question %s can be sent again", GetStats.name)
        self._error, self._answered = None, begun
        self._stats = tuple(answer.record for answer in answers)
        self._queue = queue_of(self._stats) or self._queue
        # The view remembers instances for a while. It must not keep their statistics.
        states = [Answer(_state_of(each.record), each.seconds) for each in answers]
        self._view.add_round(states, begun=begun)

    async def _check_broker(self) -> None:
        """Raise `Unavailable` if no instance answers because the broker itself is silent.

        Otherwise the exporter would show that all services are gone.
        """
        if self._depth is None or not self._view.live():
            return
        await check_broker(self._depth, self._queue)

    def _fail(self, error: BusError | TimeoutError) -> None:
        self._questions["failed"] += 1
        reason = (
            error
            if isinstance(error, BusError)
            else Unavailable(
                f"the question took longer than {self._window + SLACK_SECONDS:g} s. Check the load "
                "of this machine, and the connection to the broker."
            )
        )
        if self._error is None:
            log.warning("the question %s cannot be sent: %s", GetStats.name, reason)
        self._error, self._stats, self._answered = reason, (), None

    async def _ask_versions(self, answers: Sequence[Answer[InstanceStats]]) -> None:
        """Ask new instances for the version of their bus. An instance is asked once."""
        keys = [_key(each.record) for each in answers]
        known = {key: self._versions[key] for key in keys if key in self._versions}
        self._versions = known
        if len(known) < len(keys):
            found: dict[Key, str] = {}
            window = min(self._window, VERSIONS_SECONDS)
            with suppress(BusError, TimeoutError):  # the statistics are more important
                async with asyncio.timeout(window + SLACK_SECONDS):
                    infos = await self._asker.ask(GetInfo(), window=window, expected=len(keys))
                found = {_key(each.record): each.record.bus_version for each in infos}
            self._versions = {key: known.get(key, found.get(key, "")) for key in keys}

    def _show(self) -> None:
        now = self._clock()
        versions = {
            (each.service, each.instance): self._versions.get(_key(each), "")
            for each in self._stats
        }
        self.shown = Shown(
            stats=self._stats,
            versions=versions,
            instances=self._count_instances(now),
            is_up=self._error is None,
            seconds=self._seconds,
            age=None if self._answered is None else max(0.0, now - self._answered),
            questions=dict(self._questions),
            rejected=count_dropped(self._asker, self._rejected),
        )

    def _count_instances(self, now: float) -> dict[tuple[str, ...], float]:
        # An announcement alone does not count: its instance has to answer the next question.
        live = self._view.live() if self._error is None else []
        instances = [each for each in live if each.answered is not None]
        for each in instances:
            self._services[each.record.service] = now
        self._services = {
            name: seen
            for name, seen in sorted(self._services.items(), key=lambda item: -item[1])
            if now - seen < FORGET_SERVICE_SECONDS
        }
        if self._error is not None:
            return {}
        shown = [*self._services][:MAX_SERVICES]
        counts: dict[tuple[str, ...], float] = {
            (service, state): 0.0 for service in sorted(shown) for state in STATES
        }
        for each in instances:
            state = "silent" if each.missed else each.state
            if (each.record.service, state) in counts:
                counts[each.record.service, state] += 1
        return counts


def _key(state: InstanceState) -> Key:
    return state.service, state.instance


def _state_of(stats: InstanceStats) -> InstanceState:
    return InstanceState.model_validate(
        {name: getattr(stats, name) for name in InstanceState.model_fields}
    )
