"""The metrics of all live instances, which answer questions on the control channel.

The exporter asks at a scrape, and not by itself, so it costs the broker nothing between scrapes. An
instance that does not answer the latest question has no metrics: old values would be wrong.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Protocol, runtime_checkable

from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, Metric

from bus.errors import BusError, Unavailable
from bus.integrations.prometheus.families import build_info, describe, families, gauge
from bus.integrations.prometheus.names import NAMESPACE
from bus.integrations.prometheus.totals import Totals
from bus.messaging.control import Answer, GetInfo, GetStats
from bus.messaging.service_info import InstanceState, InstanceStats
from bus.runtime.discovery.asker import Asker
from bus.runtime.discovery.live_view import LiveView

__all__ = ["Exporter", "exporter_registry"]

log = logging.getLogger("bus.exporter")

OWNER: Final = ("service", "instance")
STATES: Final = ("starting", "ready", "not-ready", "draining", "silent")
"""Values of the label `state`. `silent` instances did not answer the latest question."""
SLACK_SECONDS: Final = 7.0
"""Maximum seconds that a question takes beyond its window, for example while the broker is away."""
RETRY_SECONDS: Final = 5.0
"""Seconds after a failed question in which no further question is sent."""
FORGET_SERVICE_SECONDS: Final = 24 * 3600.0
"""Seconds in which a service without instances is shown with 0 instances, so that alerts see it."""
MAX_SERVICES: Final = 1_000
"""Maximum number of services that are shown."""

Key = tuple[str, str]
"""Names of a service and of an instance."""


@runtime_checkable
class Closable(Protocol):
    """A stream that holds a queue until it is closed."""

    async def aclose(self) -> None:
        """Close the stream."""
        ...


@dataclass(frozen=True, slots=True)
class Shown:
    """The values that a scrape shows. The thread of the scrape reads only this object."""

    stats: Sequence[InstanceStats] = ()
    versions: Mapping[Key, str] | None = None
    """The version of the bus in each instance."""
    instances: Mapping[tuple[str, ...], float] | None = None
    """The number of instances by service and state."""


class Exporter:
    """The collector of the metrics of all live instances."""

    def __init__(
        self,
        asker: Asker,
        *,
        interval: float = 10.0,
        window: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Create an exporter that has not asked yet.

        Args:
            asker: The asker, which needs the right to read.
            interval: Seconds in which further scrapes receive the same answers.
            window: Seconds to wait for answers.
            clock: Function that returns seconds.
        """
        self._asker = asker
        self._interval = interval
        self._window = window
        self._clock = clock
        self._view = LiveView(clock=clock)
        self._services: dict[str, float] = {}
        """The time at which each service was last seen."""
        self._versions: dict[Key, str] = {}
        self._asked: float | None = None
        self._answered: float | None = None
        self._seconds = 0.0
        self._questions = {"ok": 0, "failed": 0}
        self._error: BusError | None = None
        self._stats: tuple[InstanceStats, ...] = ()
        self._shown = Shown()

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
        while True:
            stream = self._asker.announcements()
            try:
                with suppress(BusError):  # the next question reports the error
                    async for announcement in stream:
                        self._view.announce(announcement)
            finally:
                await _close(stream)
            await asyncio.sleep(RETRY_SECONDS)

    async def _ask(self) -> None:
        begun = self._asked = self._clock()
        try:
            async with asyncio.timeout(self._window + SLACK_SECONDS):
                answers = await self._asker.ask(GetStats(), window=self._window)
                await self._ask_versions(answers)
        except (BusError, TimeoutError) as error:
            self._fail(error)
            return
        self._seconds = self._clock() - begun
        self._questions["ok"] += 1
        if self._error is not None:
            log.info("the question %s can be sent again", GetStats.name)
        self._error, self._answered = None, begun
        self._stats = tuple(answer.record for answer in answers)
        # The view remembers instances for a while. It must not keep their statistics.
        states = [Answer(_state_of(each.record), each.seconds) for each in answers]
        self._view.add_round(states, begun=begun)

    def _fail(self, error: BusError | TimeoutError) -> None:
        self._questions["failed"] += 1
        reason = (
            error
            if isinstance(error, BusError)
            else Unavailable("the broker did not accept the question in time. Check the broker.")
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
            with suppress(BusError):  # the statistics are more important
                found = {
                    _key(each.record): each.record.bus_version
                    for each in await self._asker.ask(
                        GetInfo(), window=self._window, expected=len(keys)
                    )
                }
            self._versions = {key: known.get(key, found.get(key, "")) for key in keys}

    def _show(self) -> None:
        now = self._clock()
        self._shown = Shown(self._stats, dict(self._versions), self._count_instances(now))

    def _count_instances(self, now: float) -> dict[tuple[str, ...], float]:
        instances = [each for each in self._view.live() if self._error is None]
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

    # --- The collector, which the thread of a scrape calls ---

    def describe(self) -> Iterable[Metric]:
        """Return the names of the metrics."""
        return describe()

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics of the instances, and those of the exporter itself."""
        shown, totals = self._shown, Totals()
        for stats in shown.stats:
            totals.add(stats, (stats.service, stats.instance))
        yield from families(totals, OWNER)
        versions = shown.versions or {}
        yield build_info(
            OWNER,
            [
                (each.service, each.instance, versions.get(_key(each), ""), each.version or "")
                for each in shown.stats
            ],
        )
        yield gauge(
            "instances",
            "Live instances by their state. Silent ones did not answer the latest question.",
            ("service", "state"),
            {**(shown.instances or {})},
        )
        yield from self._own_metrics(shown)

    def _own_metrics(self, shown: Shown) -> Iterator[Metric]:
        is_up = self._error is None
        yield gauge(
            "exporter_up", "1 if the latest question could be sent, else 0.", (), {(): float(is_up)}
        )
        yield gauge("exporter_answers", "Instances in the metrics.", (), {(): len(shown.stats)})
        left_out = sum(each.left_out for each in shown.stats)
        yield gauge(
            "exporter_left_out", "Entries that were too many for an answer.", (), {(): left_out}
        )
        yield gauge(
            "exporter_question_duration_seconds",
            "Duration of the latest question, which includes its window.",
            (),
            {(): self._seconds},
        )
        if self._answered is not None:
            age = max(0.0, self._clock() - self._answered)
            yield gauge("exporter_answer_age_seconds", "Age of the answers.", (), {(): age})
        questions = CounterMetricFamily(
            f"{NAMESPACE}exporter_questions", "Questions by outcome.", labels=("outcome",)
        )
        for outcome, count in self._questions.items():
            questions.add_metric((outcome,), count)
        yield questions


def exporter_registry(exporter: Exporter) -> CollectorRegistry:
    """Return a registry with the exporter and its process."""
    registry = CollectorRegistry()
    registry.register(exporter)
    PlatformCollector(registry=registry)
    ProcessCollector(registry=registry)
    return registry


def _key(state: InstanceState) -> Key:
    return state.service, state.instance


def _state_of(stats: InstanceStats) -> InstanceState:
    return InstanceState.model_validate(
        {name: getattr(stats, name) for name in InstanceState.model_fields}
    )


async def _close(stream: AsyncIterator[object]) -> None:
    if isinstance(stream, Closable):
        await stream.aclose()
