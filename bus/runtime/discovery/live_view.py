"""Live view: the instances that answer, the instances that stop, and the instances that are gone.

The view makes no input or output. A command or a service feeds it with announcements and with
rounds of answers, and gives it a clock.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Final, Literal

from bus.messaging.control import ALL, Announcement, Answer, Target
from bus.messaging.service_info import InstanceState

__all__ = ["MISSED_PINGS", "LifeState", "LiveInstance", "LiveView"]

MISSED_PINGS: Final = 3
"""Number of rounds in a row without an answer, after which an instance is gone."""
FORGET_AFTER_SECONDS = 300.0
MAX_INSTANCES = 10_000

LifeState = Literal["starting", "ready", "not-ready", "draining", "gone"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveInstance:
    """One process of a service, as the view knows it. Times are in seconds of the view's clock."""

    record: InstanceState
    """Last answer, or the announcement of an instance that has not answered yet."""
    state: LifeState
    first_seen: float
    """Time since which the instance is live without an interruption."""
    last_seen: float
    """Time of the last answer or announcement."""
    answered: float | None = None
    """Time of the last answer, which is `record`. None if the instance has not answered yet."""
    announced: float | None = None
    """Time of the last announcement."""
    missed: int = 0
    """Number of rounds in a row that the instance did not answer."""
    has_stopped: bool = False
    """True if the last announcement is that the instance stops."""
    gone_since: float | None = None

    @property
    def is_live(self) -> bool:
        """True if the instance is not gone."""
        return self.gone_since is None

    @property
    def key(self) -> tuple[str, str]:
        """Name of the service, and name of the instance."""
        return self.record.service, self.record.instance


class LiveView:
    """All instances that a program knows, by service and instance.

    - A start is seen at its announcement or at the first answer.
    - A stop is seen at its announcement. The instance is then draining, and it is gone after the
      first round that it does not answer.
    - An instance without an announcement is gone after `MISSED_PINGS` rounds without an answer.
    - An instance that answers after it was gone is new. So is a process with another start time.
    """

    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.monotonic,
        forget_after: float = FORGET_AFTER_SECONDS,
        max_instances: int = MAX_INSTANCES,
    ) -> None:
        """Create an empty view.

        Args:
            clock: Function that returns seconds.
            forget_after: Seconds after which the view forgets an instance that is gone.
            max_instances: Maximum number of instances, to bound the memory. Beyond it, the view
                first forgets instances that are gone, and then ignores new ones.
        """
        self.clock = clock
        self._forget_after = forget_after
        self._max_instances = max_instances
        self._known: dict[tuple[str, str], LiveInstance] = {}
        self.changes = 0
        """Number of announcements and rounds that were recorded."""
        self.ignored = 0
        """Number of answers and announcements of instances for which the view had no room."""

    def announce(self, announcement: Announcement) -> None:
        """Record that an instance has started or stops."""
        self.changes += 1
        now = self.clock()
        key = announcement.service, announcement.instance
        known = self._known.get(key)
        if known is not None and announcement.started < known.record.started:
            return
        is_same = known is not None and _is_same_process(known, announcement)
        has_stopped = announcement.event == "stopping"
        instance = LiveInstance(
            # An answer has more fields than an announcement, so it stays.
            record=known.record if known is not None and is_same else announcement,
            state="draining" if has_stopped else announcement.state,
            first_seen=known.first_seen if known is not None and is_same else now,
            last_seen=now,
            answered=known.answered if known is not None and is_same else None,
            announced=now,
            has_stopped=has_stopped,
        )
        self._store(key, instance)

    def add_round(
        self, answers: Iterable[Answer[InstanceState]], target: Target = ALL, *, begun: float
    ) -> None:
        """Record the answers to one question, and the instances that did not answer it.

        Args:
            answers: All answers that arrived within the window.
            target: The instances that had to answer.
            begun: Time at which the question was sent, by the view's clock.
        """
        self.changes += 1
        answered = set[tuple[str, str]]()
        for answer in answers:
            answered.add((answer.record.service, answer.record.instance))
            self._add_answer(answer, begun)
        for key, known in list(self._known.items()):
            # An instance that started after the question could not answer it.
            is_missing = known.last_seen < begun and key not in answered
            if known.is_live and is_missing and _is_addressed(known.record, target):
                self._known[key] = self._miss(known)
        self._forget()

    def live(self, service: str | None = None) -> list[LiveInstance]:
        """Return the live instances of one service or of all services, sorted by name."""
        return [each for each in self.instances(service) if each.is_live]

    def instances(self, service: str | None = None) -> list[LiveInstance]:
        """Return all known instances, sorted by name. Include those that are gone for a while."""
        self._forget()
        return sorted(
            (each for each in self._known.values() if service in {None, each.record.service}),
            key=lambda each: each.key,
        )

    def _add_answer(self, answer: Answer[InstanceState], begun: float) -> None:
        record, seen = answer.record, begun + answer.seconds
        key = record.service, record.instance
        known = self._known.get(key)
        if known is not None and record.started < known.record.started:
            return
        if known is None or not known.is_live or record.started > known.record.started:
            self._store(
                key,
                LiveInstance(
                    record=record,
                    state=record.state,
                    first_seen=seen,
                    last_seen=seen,
                    answered=seen,
                ),
            )
        else:
            # The answer can be older than an announcement that arrived in the same window.
            is_newer = known.announced is None or known.announced < begun
            self._known[key] = replace(
                known,
                record=record,
                state=record.state if is_newer else known.state,
                last_seen=max(seen, known.last_seen),
                answered=seen,
                missed=0,
                has_stopped=known.has_stopped and (not is_newer or record.state != "ready"),
            )

    def _miss(self, known: LiveInstance) -> LiveInstance:
        missed = known.missed + 1
        if missed >= MISSED_PINGS or known.has_stopped:
            return replace(known, missed=missed, state="gone", gone_since=self.clock())
        return replace(known, missed=missed)

    def _store(self, key: tuple[str, str], instance: LiveInstance) -> None:
        if key not in self._known and len(self._known) >= self._max_instances:
            gone = [
                (each.gone_since, name)
                for name, each in self._known.items()
                if each.gone_since is not None
            ]
            if not gone:
                self.ignored += 1
                return
            del self._known[min(gone)[1]]
        self._known[key] = instance

    def _forget(self) -> None:
        limit = self.clock() - self._forget_after
        for key, known in list(self._known.items()):
            if known.gone_since is not None and known.gone_since <= limit:
                del self._known[key]


def _is_same_process(known: LiveInstance, record: InstanceState) -> bool:
    return known.is_live and known.record.started == record.started


def _is_addressed(record: InstanceState, target: Target) -> bool:
    return target.service in {None, record.service} and target.instance in {None, record.instance}
