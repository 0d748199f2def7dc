import random
from collections.abc import Callable
from dataclasses import replace

import pytest

from bus.messaging.policy_info import BreakerInfo
from bus.messaging.resilience.call_policy import BreakerPolicy
from bus.messaging.resilience.circuit_breaker import CircuitBreaker, Permit
from bus.messaging.resilience.rates import Rates
from tests.unit.messaging.resilience.times import Times

RATES_ONLY = BreakerPolicy(consecutive_failures=None)
SLOW_CALLS = BreakerPolicy(consecutive_failures=None, slow_call=2.0)
TYPE = "billing.quote.v1"


class World:
    """A breaker on a timer that the test moves, and the changes that the breaker reported."""

    def __init__(self, policy: BreakerPolicy = BreakerPolicy()) -> None:  # noqa: B008 - frozen
        self.times = Times()
        self.changes = list[BreakerInfo]()
        self.breaker = CircuitBreaker(
            policy, TYPE, "call", self.times.timer, self.times.clock, self.changes.append
        )

    @property
    def state(self) -> str:
        return self.breaker.state

    @property
    def states(self) -> list[str]:
        return [change.state for change in self.changes]

    def admitted(self) -> Permit:
        permit = self.breaker.admit()
        assert permit is not None
        return permit

    def run(self, results: str, seconds: float = 0.0) -> None:
        """Run calls one after the other: `s` succeeds, `f` fails, and `i` is ignored."""
        for result in results:
            permit = self.admitted()
            if result == "s":
                self.breaker.success(permit, seconds)
            elif result == "f":
                self.breaker.failure(permit, seconds, "unavailable")
            else:
                self.breaker.ignore(permit)

    def wait(self, seconds: float) -> None:
        self.times.now += seconds

    def wait_for_probe(self) -> None:
        self.wait(self.breaker.retry_after)


@pytest.fixture(autouse=True)
def no_jitter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random, "random", lambda: 0.0)


@pytest.mark.parametrize(
    ("policy", "results", "seconds", "cause"),
    [
        (BreakerPolicy(), "fffff", 0, "5 consecutive failures (unavailable)"),
        (BreakerPolicy(), "s" * 19 + "fffff", 0, "5 consecutive failures (unavailable)"),
        (RATES_ONLY, "sf" * 10, 0, "10 of 20 calls in 10 s failed (unavailable)"),
        (RATES_ONLY, "f" * 20, 0, "20 of 20 calls in 10 s failed (unavailable)"),
        (RATES_ONLY, "f" * 10 + "s" * 10, 0, "10 of 20 calls in 10 s failed"),
        (SLOW_CALLS, "s" * 20, 2.0, "20 of 20 calls in 10 s took 2 s or longer"),
        (replace(RATES_ONLY, failure_rate=0.1, min_calls=2), "sf", 0, "1 of 2 calls in 10 s"),
        (replace(SLOW_CALLS, slow_rate=1.0, min_calls=3), "sss", 9, "3 of 3 calls in 10 s took"),
        # Each failure is a time-out, so it is slow as well.
        (replace(SLOW_CALLS, failure_rate=1.0, min_calls=2), "ff", 9, "2 of 2 calls in 10 s f"),
    ],
)
def test_a_breaker_opens_by_consecutive_failures_failure_rate_or_slow_calls(
    policy: BreakerPolicy, results: str, seconds: float, cause: str
) -> None:
    world = World(policy)
    world.run(results, seconds)
    assert world.states == ["open"]
    assert (world.breaker.cause or "").startswith(cause)
    assert world.breaker.admit() is None


@pytest.mark.parametrize(
    ("policy", "results", "seconds"),
    [
        (BreakerPolicy(), "ffffsffffs", 0),
        (BreakerPolicy(), "ffffiiiii", 0),
        (RATES_ONLY, "f" * 19, 0),
        (RATES_ONLY, "sss" + "sf" * 20, 0),
        (RATES_ONLY, "s" * 100, 1000),
        (SLOW_CALLS, "s" * 100, 1.999),
        (replace(RATES_ONLY, failure_rate=1.0), "s" + "f" * 100, 0),
    ],
)
def test_a_breaker_stays_closed_below_its_limits(
    policy: BreakerPolicy, results: str, seconds: float
) -> None:
    world = World(policy)
    world.run(results, seconds)
    assert (world.state, world.changes) == ("closed", [])


def test_a_time_out_counts_as_failure_and_as_slow() -> None:
    world = World(SLOW_CALLS)
    world.run("f", seconds=2.0)
    assert (world.breaker.info().failures, world.breaker.info().slow) == (1, 1)


def test_failures_that_are_older_than_the_window_do_not_open_the_breaker() -> None:
    world = World(RATES_ONLY)
    world.run("f" * 19)
    world.wait(10)
    world.run("f" * 19)
    assert world.state == "closed"
    assert world.breaker.info().failures == 19
    world.run("f")
    assert world.state == "open"


def test_old_successes_do_not_hide_a_high_rate_of_failures() -> None:
    world = World(RATES_ONLY)
    world.run("s" * 100)
    world.wait(10)
    world.run("sf" * 10)
    assert world.state == "open"


def test_an_open_breaker_rejects_calls_until_its_open_time_has_passed() -> None:
    world = World()
    world.run("fffff")
    assert world.breaker.retry_after == 30
    world.wait(29.9)
    assert world.breaker.admit() is None
    assert world.breaker.retry_after == pytest.approx(0.1)
    world.wait(0.1)
    assert world.breaker.retry_after == 0
    assert world.admitted().is_probe
    assert world.breaker.info().rejected == 1


def test_a_half_open_breaker_admits_one_call_at_a_time() -> None:
    world = World()
    world.run("fffff")
    world.wait_for_probe()
    first = world.admitted()
    assert [world.breaker.admit() for _ in range(50)] == [None] * 50
    assert world.breaker.retry_after == 1
    world.breaker.success(first)
    assert world.admitted().is_probe
    assert world.breaker.admit() is None


def test_a_breaker_closes_after_two_successful_probes_in_a_row() -> None:
    world = World()
    world.run("fffff")
    world.wait_for_probe()
    world.run("s")
    assert world.state == "half-open"
    world.run("s")
    assert world.states == ["open", "half-open", "closed"]
    assert world.breaker.cause == "2 successful probes in a row"
    assert world.breaker.info().calls == 0  # failures before the opening count nothing
    assert not world.admitted().is_probe


def test_a_failed_probe_opens_the_breaker_again() -> None:
    world = World()
    world.run("fffff")
    world.wait_for_probe()
    world.run("sf")
    assert world.states == ["open", "half-open", "open"]
    assert world.breaker.cause == "a probe failed (unavailable)"
    assert world.breaker.admit() is None
    world.wait_for_probe()
    world.run("s")
    assert world.state == "half-open"  # the success before the failure counts nothing


def test_a_slow_probe_opens_the_breaker_again() -> None:
    world = World(SLOW_CALLS)
    world.run("s" * 20, seconds=3.0)
    world.wait_for_probe()
    world.run("s", seconds=2.5)
    assert (world.state, world.breaker.cause) == ("open", "a probe took 2.5 s")


def test_an_ignored_probe_decides_nothing_and_lets_the_next_call_be_the_probe() -> None:
    world = World()
    world.run("fffff")
    world.wait_for_probe()
    world.run("iii")
    assert world.state == "half-open"
    world.run("sis")
    assert world.state == "closed"


def test_a_probe_that_never_ends_lets_another_one_begin_after_its_time() -> None:
    world = World()
    world.run("fffff")
    world.wait_for_probe()
    lost = world.breaker.admit(seconds=10)
    assert lost is not None
    world.wait(9.9)
    assert world.breaker.admit() is None
    world.wait(0.1)
    world.run("s")
    world.breaker.failure(lost, 20, "deadline_exceeded")  # the late result counts nothing
    world.breaker.ignore(lost)
    world.run("s")
    assert world.state == "closed"


Late = Callable[[CircuitBreaker, Permit], None]
LATE: list[Late] = [
    lambda breaker, permit: breaker.success(permit, 99),
    lambda breaker, permit: breaker.failure(permit, 99, "unavailable"),
    lambda breaker, permit: breaker.ignore(permit),
]


@pytest.mark.parametrize("end", LATE)
@pytest.mark.parametrize("moment", ["open", "half-open", "probing", "closed again"])
def test_a_call_that_began_before_a_change_of_the_state_counts_nothing(
    end: Late, moment: str
) -> None:
    world = World()
    late = [world.admitted() for _ in range(50)]
    world.run("fffff")
    if moment != "open":
        world.wait_for_probe()
        world.run("ss" if moment == "closed again" else "s")
    if moment == "probing":
        world.admitted()
    before = world.breaker.info()
    for permit in late:
        end(world.breaker, permit)
    assert world.breaker.info() == before


def test_the_open_time_grows_by_half_up_to_five_minutes_and_begins_again_after_a_recovery() -> None:
    world = World()
    world.run("fffff")
    waits = [world.breaker.retry_after]
    for _ in range(7):
        world.wait_for_probe()
        world.run("f")
        waits.append(world.breaker.retry_after)
    assert waits == pytest.approx([30, 45, 67.5, 101.25, 151.875, 227.8125, 250, 250])
    world.wait_for_probe()
    world.run("ss")
    world.wait(9.9)
    world.run("fffff")
    assert world.breaker.retry_after == 250  # the breaker was closed for less than a window
    world.wait_for_probe()
    world.run("ss")
    world.wait(10)
    world.run("fffff")
    assert world.breaker.retry_after == 30


def test_a_breaker_that_fails_for_years_still_knows_its_open_time() -> None:
    world = World(BreakerPolicy(open_growth=1000.0, open_time=1e-6))
    world.run("fffff")
    for _ in range(400):
        world.wait_for_probe()
        world.run("f")
    assert world.breaker.retry_after == pytest.approx(250)


@pytest.mark.parametrize(
    ("first", "least"), [(30.0, 250.0), (240.0, 250.0), (290.0, 290.0), (300.0, 300.0)]
)
def test_the_longest_open_time_is_random_unless_it_is_the_first_one(
    monkeypatch: pytest.MonkeyPatch, first: float, least: float
) -> None:
    waits = list[float]()
    for part in (0.0, 0.5, 1.0):
        world = World(BreakerPolicy(open_time=first))
        world.run("fffff")
        for _ in range(9):
            world.wait_for_probe()
            world.run("f")
        monkeypatch.setattr(random, "random", lambda part=part: part)
        world.wait_for_probe()
        world.run("f")
        waits.append(world.breaker.retry_after)
    assert waits == pytest.approx([least, (least + 300) / 2, 300])


def test_the_open_time_has_a_random_part_of_up_to_a_fifth(monkeypatch: pytest.MonkeyPatch) -> None:
    seeded = random.Random(7)
    monkeypatch.setattr(random, "random", seeded.random)
    waits = list[float]()
    for _ in range(500):
        world = World()
        world.run("fffff")
        waits.append(world.breaker.retry_after)
    assert 30 <= min(waits) < 30.5
    assert 35.5 < max(waits) <= 36


@pytest.mark.parametrize(
    ("stated", "waits"),
    [(8.0, [8, 8, 8]), (0.0, [1, 1, 1]), (100.0, [30, 45, 67.5]), (None, [30, 45, 67.5])],
)
def test_a_breaker_stays_open_for_the_time_that_the_service_states(
    stated: float | None, waits: list[float]
) -> None:
    world, found = World(), list[float]()
    world.run("ffff")
    for _ in waits:
        world.breaker.failure(world.admitted(), 0, "unavailable", stated)
        found.append(world.breaker.retry_after)
        world.wait_for_probe()
    assert found == pytest.approx(waits)


def test_a_stated_time_does_not_lengthen_the_next_open_time_without_one() -> None:
    world = World()
    world.run("ffff")
    for _ in range(3):
        world.breaker.failure(world.admitted(), 0, "resource_exhausted", 2)
        world.wait_for_probe()
    world.run("f")
    assert world.breaker.retry_after == 30


def test_a_caller_above_its_rate_limit_still_gets_a_part_of_the_permitted_rate() -> None:
    world = World()
    rates = Rates(20, burst=20, max_keys=1, timer=world.times.timer)
    answered = 0
    for _ in range(80 * 300):
        permit = world.breaker.admit()
        if permit is not None and rates.take("desk"):
            world.breaker.success(permit)
            answered += 1
        elif permit is not None:
            world.breaker.failure(permit, 0, "resource_exhausted", rates.wait("desk"))
        world.wait(1 / 80)
    assert answered > 0.8 * 20 * 300


def test_an_isolated_breaker_rejects_calls_until_its_end_and_then_probes() -> None:
    world = World()
    world.breaker.isolate(world.times.after(3600), "anna", "migration of the database")
    assert world.breaker.admit() is None
    assert world.breaker.retry_after == pytest.approx(3600, abs=0.001)
    info = world.breaker.info()
    assert (info.state, info.ordered_by, info.reason) == (
        "isolated",
        "anna",
        "migration of the database",
    )
    assert info.until == pytest.approx(world.times.after(3600), abs=1)
    world.wait(3600.001)
    assert world.state == "half-open"
    world.run("ss")
    assert world.state == "closed"
    assert world.breaker.info().ordered_by is None


def test_an_outage_begins_with_the_first_opening_and_ends_when_the_breaker_closes() -> None:
    world = World()
    assert world.breaker.info().not_closed_since is None
    world.wait(7)
    begin = world.times.after(0)
    world.run("fffff")
    for _ in range(3):
        world.wait_for_probe()
        assert world.breaker.info().not_closed_since == begin
        world.run("f")
    assert world.breaker.info().not_closed_since == begin
    world.wait_for_probe()
    world.run("ss")
    assert world.breaker.info().not_closed_since is None
    world.wait(1)
    world.breaker.isolate(world.times.after(60), "anna", "test")
    assert world.breaker.info().not_closed_since == world.times.after(0)


def test_results_do_not_end_an_isolation() -> None:
    world = World()
    running = world.admitted()
    world.breaker.isolate(world.times.after(60), "anna", "test")
    world.breaker.success(running)
    world.breaker.failure(running, 1, "unavailable")
    assert world.state == "isolated"
    world.breaker.isolate(world.times.after(5), "ben", "shorter")
    world.wait(5)
    assert world.state == "half-open"


@pytest.mark.parametrize("begin", ["open", "isolated", "half-open", "closed"])
def test_a_reset_closes_the_breaker_and_forgets_the_failures(begin: str) -> None:
    world = World()
    if begin == "isolated":
        world.breaker.isolate(world.times.after(60), "anna", "test")
    elif begin == "closed":
        world.run("ffff")
    else:
        world.run("fffff")
    if begin == "half-open":
        world.wait_for_probe()
    world.breaker.reset("ben", "the database is back")
    info = world.breaker.info()
    assert (info.state, info.calls, info.until) == ("closed", 0, None)
    assert (info.ordered_by, info.reason) == ("ben", "the database is back")
    world.run("ffffs")
    assert world.state == "closed"


def test_a_breaker_reports_each_change_once() -> None:
    world = World()
    world.run("fffff")
    for _ in range(100):
        world.breaker.admit()
    world.wait(31)
    info = world.breaker.info()
    assert (info.state, info.since, info.until) == ("half-open", world.times.after(-1), None)
    assert world.states == ["open"]  # a reader changes nothing
    assert [world.breaker.admit() for _ in range(3)][1:] == [None, None]
    assert world.states == ["open", "half-open"]
    opened = world.changes[0]
    assert (opened.opened, opened.failures, opened.wait) == (1, 5, 30)
    assert opened.since == world.times.after(-31)
    assert opened.until == world.times.after(-1)
