"""The decision which requests are refused, and a simulated overload."""

from collections import Counter, deque
from typing import get_args

import pytest

from bus.contracts.criticality import Criticality
from bus.messaging.resilience.load_shedder import LoadShedder, ShedReason

ALL: tuple[Criticality, ...] = get_args(Criticality)


def shedder(*, waits: float = 0.0, duration: float | None = None) -> LoadShedder:
    """A shedder of a queue in which requests have waited for some time, at the time 10."""
    found = LoadShedder()
    found.queue.learn("a", 0.0, 1.0)
    for number in range(6):
        found.queue.wait_of("a", waits, 0.0, 9.7 + number * 0.06, 10.0)
    if duration is not None:
        for _ in range(20):
            found.handled(duration)
    return found


@pytest.mark.parametrize(
    ("criticality", "waited", "reason"),
    [
        ("sheddable", 1.9, None),
        ("sheddable", 2.0, "criticality"),
        ("sheddable_plus", 3.9, None),
        ("sheddable_plus", 4.0, "criticality"),
        ("critical", 7.9, None),
        ("critical", 8.0, "age"),
        ("critical_plus", 9.9, None),
    ],
)
def test_the_lowest_criticality_is_refused_first(
    criticality: Criticality, waited: float, reason: ShedReason | None
) -> None:
    assert shedder(waits=waited).refuses(waited, 10.0, criticality, 10.0) == reason


@pytest.mark.parametrize("criticality", ALL)
def test_a_request_that_cannot_be_answered_in_its_time_is_refused(criticality: Criticality) -> None:
    loaded = shedder(duration=0.5)
    assert loaded.refuses(1.0, 1.4, criticality, 10.0) == "deadline"
    assert loaded.refuses(0.1, 1.4, criticality, 10.0) is None


@pytest.mark.parametrize(
    ("waited", "allowed", "reason"),
    [
        *((0.0, 0.5, None), (0.0, 0.4, "deadline"), (0.4, 1.1, None), (0.5, 1.1, "deadline")),
        *((5.0, 6.1, None), (5.0, 5.9, "deadline")),
    ],
)
def test_a_request_that_has_waited_needs_up_to_twice_the_time_of_the_handler(
    waited: float, allowed: float, reason: ShedReason | None
) -> None:
    assert shedder(duration=0.5).refuses(waited, allowed, "critical_plus", 10.0) == reason


def test_in_an_overload_of_the_highest_criticality_the_answers_are_in_time() -> None:
    load = Overload(rate=300, allowed=0.4, classes=("critical_plus",))
    load.run(30)
    assert load.answered["critical_plus"] >= 2_800
    assert load.late == {}


@pytest.mark.parametrize("criticality", ALL)
def test_a_long_wait_alone_refuses_nothing_while_others_do_not_wait(
    criticality: Criticality,
) -> None:
    assert shedder(waits=0.05).refuses(9.5, 10.0, criticality, 10.0) is None


def test_after_an_idle_moment_only_the_deadline_counts() -> None:
    loaded = shedder(waits=9.0, duration=0.5)
    assert loaded.refuses(9.0, 10.0, "sheddable", 10.0) == "criticality"
    loaded.queue.idle_at = 9.95
    assert loaded.refuses(9.0, 10.0, "sheddable", 10.0) is None
    assert loaded.refuses(9.6, 10.0, "sheddable", 10.0) == "deadline"


def test_a_few_durations_tell_nothing() -> None:
    loaded = LoadShedder()
    for _ in range(9):
        loaded.handled(5.0)
    assert loaded.refuses(0.5, 1.0, "critical", 10.0) is None
    loaded.handled(5.0)
    assert loaded.refuses(0.5, 1.0, "critical", 10.0) == "deadline"


def test_the_expected_duration_is_the_median_of_the_last_hundred() -> None:
    loaded = LoadShedder()
    for seconds in [9.0] * 50 + [0.1] * 60 + [30.0] * 10:
        loaded.handled(seconds)
    assert loaded.expected == 0.1


def test_a_wrong_clock_cannot_refuse_all_requests_of_a_handler_that_is_never_idle() -> None:
    loaded, refused, handled = LoadShedder(), 0, 0
    for number in range(2_000):  # 20 a second; no slot is free for long, and none waits
        now = 10.0 + number * 0.05
        waited = loaded.queue.wait_of("a", 9.0, 0.0, now, 10.0)
        if loaded.refuses(waited, 10.0, "critical", now) is None:
            handled += 1
        else:
            refused += 1
    assert refused <= 110  # of the first five seconds
    assert handled >= 1_890


def test_after_a_short_wait_requests_with_a_second_are_not_checked_for_a_moment() -> None:
    loaded = LoadShedder()
    assert loaded.refuses(0.2, 10.0, "critical", 10.0) is None
    assert loaded.calm_until == 0.0
    assert loaded.refuses(0.05, 10.0, "critical", 10.0) is None
    assert loaded.calm_until == 10.01
    for _ in range(10):
        loaded.handled(0.9)
    loaded.refuses(0.05, 10.0, "critical", 11.0)
    assert loaded.calm_until == 10.01  # the handler is slow, so a second may be too short


class Overload:
    """A handler with one slot, and requests of three criticalities, on a fake clock."""

    def __init__(
        self,
        rate: float,
        *,
        seconds: float = 0.01,
        allowed: float = 2.0,
        classes: tuple[Criticality, ...] = ("sheddable", "sheddable_plus", "critical"),
    ) -> None:
        self.answered: Counter[str] = Counter()
        self.late: Counter[str] = Counter()
        self.refused: Counter[tuple[str, str]] = Counter()
        self._rate, self._seconds, self._allowed = rate, seconds, allowed
        self._classes = classes

    def run(self, until: float) -> None:
        found, queue = LoadShedder(), deque[tuple[float, Criticality]]()
        now, number, free_since = 1.0, 0, 0.0
        while now < until:
            while (sent := 1.0 + number / self._rate) <= now:
                queue.append((sent, self._classes[number % len(self._classes)]))
                number += 1
            if not queue:
                now = sent
                continue
            sent, criticality = queue.popleft()
            if now - free_since > 0.1:
                found.queue.learn("a", now - sent, now)
                reason = None
            else:
                waited = found.queue.wait_of("a", now - sent, 0.0, now, self._allowed)
                reason = found.refuses(waited, self._allowed, criticality, now)
            if reason is not None:
                self.refused[criticality, reason] += 1
                continue
            now = free_since = now + self._seconds
            found.handled(self._seconds)
            (self.answered if now <= sent + self._allowed else self.late)[criticality] += 1


def test_at_twice_the_capacity_the_critical_requests_are_all_answered() -> None:
    load = Overload(rate=200)
    load.run(60)
    assert sum(load.answered.values()) >= 5_800  # the whole capacity of 100 a second
    assert load.late == {}
    assert not any(name == "critical" for name, _ in load.refused)
    assert load.answered["critical"] >= 3_800
    # The critical requests leave a third of the capacity. The better half of the others gets it.
    assert load.answered["sheddable_plus"] >= 1_800
    assert load.answered["sheddable"] <= 200


def test_at_six_times_the_capacity_the_answers_are_in_time() -> None:
    load = Overload(rate=600)
    load.run(30)
    assert sum(load.answered.values()) >= 2_800
    assert load.late == {}
    assert load.answered["critical"] >= 0.8 * sum(load.answered.values())
    assert load.refused["critical", "age"] > 0


def test_ten_thousand_requests_of_a_normal_load_are_all_handled() -> None:
    load = Overload(rate=90)
    load.run(115)
    assert sum(load.answered.values()) >= 10_000
    assert (load.late, load.refused) == ({}, {})
