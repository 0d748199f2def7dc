"""Live view: the instances that answer, the instances that stop, and the instances that are gone.

The view makes no input or output. A command or a service feeds it with announcements and with
rounds of answers, and gives it a clock.
"""

import time
from collections import Counter, defaultdict
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
MAX_INSTANCES_OF_SERVICE = 1000
"""Maximum number of instances of one service, so that a service cannot hide the others."""
MAX_UNVERIFIED_OF_SERVICE = 50
"""Maximum number of instances of one service that were announced and have not answered."""

Key = tuple[str, str]
"""Name of the service, and name of the instance."""
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
    def key(self) -> Key:
        """Name of the service, and name of the instance."""
        return self.record.service, self.record.instance


class LiveView:
    """All instances that a program knows, by service and instance.

    - A start is seen at its announcement or at the first answer.
    - An announced instance that does not answer the next round is forgotten. A service has room for
      only a few of them, because an announcement costs its sender nothing.
    - A stop is seen at its announcement. The instance is then draining, and it is gone after the
      first round that it does not answer.
    - An instance that has answered is gone after `MISSED_PINGS` rounds without an answer.
    - An instance that answers after it was gone is new. So is a process with another start time.
    """

    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.monotonic,
        forget_after: float = FORGET_AFTER_SECONDS,
        max_instances: int = MAX_INSTANCES,
        max_of_service: int = MAX_INSTANCES_OF_SERVICE,
    ) -> None:
        """Create an empty view.

        Args:
            clock: Function that returns seconds.
            forget_after: Seconds after which the view forgets an instance that is gone.
            max_instances: Maximum number of instances, to bound the memory. Beyond it, the view
                first forgets instances that are gone, and then ignores new ones.
            max_of_service: Maximum number of instances of one service.
        """
        self.clock = clock
        self._forget_after = forget_after
        self._max_instances, self._max_of_service = max_instances, max_of_service
        self._known: dict[Key, LiveInstance] = {}
        self._counts: Counter[str] = Counter()
        """Number of known instances by service."""
        self._unverified: defaultdict[str, set[Key]] = defaultdict(set)
        """The announced instances that have not answered, by service."""
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
        if known is None and not self._expect(key):
            return
        is_same = known is not None and _is_same_process(known, announcement)
        is_verified = key not in self._unverified[announcement.service]
        has_stopped = announcement.event == "stopping"
        instance = LiveInstance(
            # An answer has more fields than an announcement, so it stays.
            record=known.record if known is not None and is_same else announcement,
            state="draining" if has_stopped else announcement.state,
            first_seen=known.first_seen if known is not None and is_same else now,
            # Repeated announcements must not keep an instance that never answers.
            last_seen=now if known is None or is_verified else known.last_seen,
            answered=known.answered if known is not None and is_same else None,
            announced=now,
            has_stopped=has_stopped,
        )
        self._store(key, instance)

    def _expect(self, key: Key) -> bool:
        """Make room for an announced instance. Return False if its service has too many."""
        unverified = self._unverified[key[0]]
        if len(unverified) >= MAX_UNVERIFIED_OF_SERVICE or not self._make_room(key):
            self.ignored += 1
            return False
        unverified.add(key)
        return True

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
                self._miss(key, known)
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
        self._unverified[record.service].discard(key)
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

    def _miss(self, key: Key, known: LiveInstance) -> None:
        missed = known.missed + 1
        if key in self._unverified[key[0]]:
            self._remove(key)
        elif missed >= MISSED_PINGS or known.has_stopped:
            self._known[key] = replace(known, missed=missed, state="gone", gone_since=self.clock())
        else:
            self._known[key] = replace(known, missed=missed)

    def _store(self, key: Key, instance: LiveInstance) -> None:
        if key not in self._known:
            if not self._make_room(key):
                self.ignored += 1
                return
            self._counts[key[0]] += 1
        self._known[key] = instance

    def _remove(self, key: Key) -> None:
        del self._known[key]
        self._counts[key[0]] -= 1
        self._unverified[key[0]].discard(key)

    def _make_room(self, key: Key) -> bool:
        """Forget the instance that has been gone longest, if the view is full for this service."""
        service = key[0]
        is_service_full = self._counts[service] >= self._max_of_service
        if not is_service_full and len(self._known) < self._max_instances:
            return True
        gone = [
            (each.gone_since, name)
            for name, each in self._known.items()
            if each.gone_since is not None and (not is_service_full or name[0] == service)
        ]
        if gone:
            self._remove(min(gone)[1])
        return bool(gone)

    def _forget(self) -> None:
        limit = self.clock() - self._forget_after
        for key, known in list(self._known.items()):
            if known.gone_since is not None and known.gone_since <= limit:
                self._remove(key)


def _is_same_process(known: LiveInstance, record: InstanceState) -> bool:
    return known.is_live and known.record.started == record.started


def _is_addressed(record: InstanceState, target: Target) -> bool:
    return target.service in {None, record.service} and target.instance in {None, record.instance}
