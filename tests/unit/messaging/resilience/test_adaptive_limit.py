"""The adaptive limit, with a simulated server on a fake clock."""

import heapq
import random
from collections.abc import Callable
from typing import Any

import pytest

from bus.errors import ContractError
from bus.messaging.resilience.adaptive_limit import AdaptiveLimit, GradientLimit

CAPACITY = 10
"""Number of messages that the simulated server handles at a time without a wait."""
FOLLOW_SECONDS = 30.0
BASE = 0.1
"""Seconds that a message takes on a server that is not full."""


class Server:
    """A server with more waiting messages than it can run. It has a fake clock."""

    def __init__(
        self,
        latency: Callable[[float, int], float],
        bounds: AdaptiveLimit,
        *,
        offered: int = 10**9,
        has_prefetch: bool = False,
    ) -> None:
        """`latency` returns the seconds of a message that starts at a time among other messages.

        With a prefetch, the prefetch follows the limit every 30 s.
        """
        self.now = 0.0
        self.prefetch = bounds.first if has_prefetch else None
        self._follows_at = FOLLOW_SECONDS
        self.limit = GradientLimit(bounds, timer=lambda: self.now, prefetch=self.prefetch)
        self.handled = 0
        self._latency, self._offered = latency, offered
        self._running: list[tuple[float, float]] = []
        self._random = random.Random(4)

    def run(self, seconds: float) -> list[int]:
        """Run for a time, and return the limit without a probe at the end of each second."""
        ends, limits, running = self.now + seconds, [], self._running
        second = self.now + 1
        while self.now < ends:
            while len(running) < min(self.limit.limit, self._offered):
                takes = self._latency(self.now, len(running) + 1)
                noise = self._random.lognormvariate(0, 0.3)
                heapq.heappush(running, (self.now + takes * noise, self.now))
            self.now, started = heapq.heappop(running)
            self.limit.succeeded(self.now - started, len(running) + 1)
            self.handled += 1
            if self.prefetch is not None and self.now >= self._follows_at:
                self._follows_at += FOLLOW_SECONDS
                self.prefetch = self.limit.settled
                self.limit.follow(self.prefetch)
            while second <= self.now:
                limits.append(min(self.limit.settled, self.prefetch or 10**9))
                second += 1
        return limits


def queued(_: float, number: int) -> float:
    """Latency of a server on which messages above the capacity wait for each other."""
    return BASE * max(1, number / CAPACITY)


@pytest.mark.parametrize("start", [1, 10, 64, 200])
def test_the_limit_settles_between_once_and_twice_the_capacity_of_the_server(start: int) -> None:
    server = Server(queued, AdaptiveLimit(max=200, start=start))
    server.run(100)
    server.handled = 0
    limits = sorted(server.run(200))
    # A tenth of the seconds may be below the capacity, because a probe keeps half of the limit.
    assert CAPACITY <= limits[len(limits) // 10] <= limits[-len(limits) // 20] <= 2 * CAPACITY
    assert 0.7 * CAPACITY <= limits[0] <= limits[-1] <= 2.2 * CAPACITY
    assert server.handled >= 0.95 * 200 * CAPACITY / BASE * 0.956  # the mean of the noise is 1.046


@pytest.mark.parametrize("start", [1, 10, 64, 200])
def test_a_limit_that_the_prefetch_bounds_settles_at_the_same_number(start: int) -> None:
    server = Server(queued, AdaptiveLimit(max=200, start=start), has_prefetch=True)
    server.run(300)
    limits = sorted(server.run(300))
    assert CAPACITY <= limits[len(limits) // 10] <= limits[-len(limits) // 20] <= 2 * CAPACITY


def test_a_limit_that_the_prefetch_bounds_reaches_the_highest_limit() -> None:
    server = Server(lambda _, __: 0.5, AdaptiveLimit(max=64), has_prefetch=True)
    assert server.run(150)[-1] == 64


def test_messages_run_up_to_the_prefetch_and_the_limit_grows_by_half_above_it() -> None:
    now = 0.0
    limit = GradientLimit(AdaptiveLimit(max=64, start=8), timer=lambda: now, prefetch=8)

    def run(seconds: int) -> set[int]:
        nonlocal now
        limits = set()
        for _ in range(20 * seconds):
            now += 0.05
            limit.succeeded(0.5, limit.limit)
            limits.add(limit.limit)
        return limits

    assert run(30) <= {8, 4}  # a probe has half of them
    assert limit.settled == 12
    limit.follow(12)
    assert max(run(30)) == 12
    assert limit.settled == 18


@pytest.mark.parametrize("prefetch", [1, 2])
def test_the_limit_of_a_small_prefetch_grows(prefetch: int) -> None:
    bounds = AdaptiveLimit(max=64, start=prefetch)
    server = Server(lambda _, __: 0.1, bounds, has_prefetch=True)
    server.run(29)
    assert server.limit.settled == prefetch + 1


def test_a_request_that_is_acked_before_it_runs_is_not_bound_by_the_prefetch() -> None:
    server = Server(lambda _, __: 0.1, AdaptiveLimit(max=64, start=8))
    server.limit.follow(8)
    server.run(60)
    assert server.limit.limit > 16


def test_a_long_overload_does_not_raise_the_limit() -> None:
    server = Server(queued, AdaptiveLimit(max=200, start=10))
    first = max(server.run(300))
    assert max(server.run(700)) <= first


@pytest.mark.parametrize("seconds", [0.2, 0.5, 3.0])
def test_a_handler_that_always_takes_the_same_time_gets_the_highest_limit(seconds: float) -> None:
    server = Server(lambda _, __: seconds, AdaptiveLimit(max=40, start=4))
    limits = server.run(150)
    assert limits[-1] == 40
    assert min(server.run(150)) == 40


def test_the_limit_recovers_after_the_handler_has_become_slower_for_good() -> None:
    def latency(now: float, number: int) -> float:
        return queued(now, number) * (5 if now >= 100 else 1)

    server = Server(latency, AdaptiveLimit(max=200))
    server.run(100)
    server.run(60)
    assert min(sorted(server.run(100))[10:]) >= CAPACITY * 0.9


def test_the_limit_follows_a_capacity_that_falls_and_returns() -> None:
    def latency(now: float, number: int) -> float:
        return BASE * max(1, number / (4 if 100 <= now < 200 else CAPACITY))

    server = Server(latency, AdaptiveLimit(max=200))
    server.run(130)
    assert max(server.run(70)) <= 12
    server.run(30)
    assert max(server.run(30)) >= CAPACITY


def test_few_messages_at_a_time_do_not_raise_the_limit() -> None:
    server = Server(lambda _, __: BASE, AdaptiveLimit(max=200, start=20), offered=5)
    assert set(server.run(100)) == {20}


def test_a_timeout_lowers_the_limit_and_a_window_with_one_does_not_raise_it() -> None:
    now = 0.0
    limit = GradientLimit(AdaptiveLimit(max=100, start=50), timer=lambda: now)

    def window(successes: int, drops: int) -> int:
        nonlocal now
        for number in range(successes + drops):
            now += 1.01 / (successes + drops)
            if number < drops:
                limit.dropped(50)
            else:
                limit.succeeded(0.1, 50)
        return limit.settled

    assert window(100, 0) == 51
    assert window(99, 1) == 51
    lower = [window(50, 50) for _ in range(3)]
    assert lower == sorted(lower, reverse=True)
    assert lower[-1] < 45
    for _ in range(200):
        window(0, 20)
    assert limit.settled == 1


def test_the_limit_stays_within_its_bounds() -> None:
    server = Server(lambda _, number: 0.01 * number**2, AdaptiveLimit(min=3, max=5))
    assert set(server.run(60)) <= {3, 4, 5}


def test_a_probe_counts_only_messages_that_started_after_the_others_had_ended() -> None:
    now = 0.0
    limit = GradientLimit(AdaptiveLimit(max=20, start=20), timer=lambda: now)
    while limit.limit == limit.settled:
        now += 0.1
        limit.succeeded(0.1, 20)
    assert (limit.limit, limit.settled) == (10, 20)
    for in_flight in range(19, 9, -1):  # they started before the probe
        now += 0.5
        limit.succeeded(0.1, in_flight)
    for _ in range(12):
        now += 0.01
        limit.succeeded(5.0, 10)  # so did these
    assert limit.limit == 10
    for _ in range(11):
        now += 0.1
        limit.succeeded(0.05, 10)
    assert (limit.limit, limit.settled) == (10, 10)  # the throughput was the same


@pytest.mark.parametrize("first", [False, True])
def test_a_probe_in_which_all_messages_fail_early_ends_after_six_seconds(first: bool) -> None:
    now = 0.0
    limit = GradientLimit(AdaptiveLimit(max=20, start=20), timer=lambda: now)
    while limit.limit == limit.settled:
        now += 0.1
        limit.succeeded(0.1, 20)
    assert (limit.limit, limit.settled) == (10, 20)
    if first:  # one message of the probe does not fail
        limit.succeeded(0.1, 10)
        limit.succeeded(0.0, 10)
    for _ in range(59):
        now += 0.1
        limit.failed()
    assert limit.limit == 10
    now += 0.2
    limit.failed()
    assert (limit.limit, limit.settled) == (20, 20)


def test_a_probe_of_a_slow_handler_lasts_until_ten_messages_have_ended() -> None:
    now = 0.0
    limit = GradientLimit(AdaptiveLimit(max=20, start=20), timer=lambda: now)
    while limit.limit == limit.settled:
        now += 10
        limit.succeeded(10.0, 20)
    assert limit.limit == 10
    for _ in range(9):  # a few messages that fail do not end the probe
        now += 10
        limit.succeeded(10.0, 20)
        limit.failed()
    assert limit.limit == 10


def test_messages_that_take_no_time_change_nothing() -> None:
    now = 0.0
    limit = GradientLimit(AdaptiveLimit(max=20, start=20), timer=lambda: now)
    for _ in range(5000):
        now += 0.1
        limit.succeeded(0.0, limit.limit)
    assert limit.settled == 20


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"max": 0}, "max must be a whole number from 1 to 65535, not 0"),
        ({"max": 70000}, "max must be a whole number from 1 to 65535, not 70000"),
        ({"max": True}, "max must be a whole number from 1 to 65535, not True"),
        ({"min": -1, "max": 4}, "min must be a whole number from 1 to 65535, not -1"),
        ({"min": 5, "max": 4}, "min (5) must not be above max (4). Write a lower min."),
        ({"max": 4, "start": 0}, "start must be a whole number from 1 to 65535, not 0"),
        ({"max": 4, "start": 2.5}, "start must be a whole number from 1 to 65535, not 2.5"),
        ({"min": 2, "max": 4, "start": 1}, "start must be from 2 (min) to 4 (max), not 1"),
        ({"max": 4, "start": 5}, "start must be from 1 (min) to 4 (max), not 5"),
    ],
)
def test_invalid_bounds_are_refused_with_their_name_and_what_is_allowed(
    arguments: dict[str, Any], text: str
) -> None:
    with pytest.raises(ContractError) as refused:
        AdaptiveLimit(**arguments)
    assert f"AdaptiveLimit: {text}" in str(refused.value)


@pytest.mark.parametrize(
    ("bounds", "first"),
    [
        (AdaptiveLimit(max=4), 4),
        (AdaptiveLimit(max=64), 16),
        (AdaptiveLimit(min=20, max=64), 20),
        (AdaptiveLimit(max=64, start=2), 2),
    ],
)
def test_the_first_limit_is_16_or_the_nearest_number_in_the_range(
    bounds: AdaptiveLimit, first: int
) -> None:
    assert bounds.first == first
