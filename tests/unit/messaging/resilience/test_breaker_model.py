"""A breaker behaves as a model that keeps a list of all calls and of all changes."""

import random
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from bus.messaging.policy_info import BreakerInfo
from bus.messaging.resilience import open_time
from bus.messaging.resilience.call_policy import BreakerPolicy
from bus.messaging.resilience.circuit_breaker import CircuitBreaker, Permit
from bus.messaging.resilience.sliding_window import BUCKETS
from tests.unit.messaging.resilience.times import Times

POLICY = BreakerPolicy(
    min_calls=6, consecutive_failures=4, slow_call=1.0, open_time=2.0, longest_open_time=5.0
)
WIDTH = POLICY.window / BUCKETS
WAITS = [2.0, 3.0, 4.5, 5.0]


@dataclass
class Model:
    """The naive breaker."""

    now: float
    state: str = "closed"
    results: list[tuple[float, bool, bool]] = field(default_factory=list)
    """Time, failure and slowness of each call since the breaker has closed."""
    epoch: int = 0
    """Number of changes of the state."""
    until: float = 0.0
    openings: int = 0
    closed_at: float = float("-inf")
    probe: int | None = None
    probes: int = 0
    good: int = 0

    def settle(self) -> None:
        if self.state == "open" and self.now >= self.until:
            self.change("half-open")

    def change(self, state: str) -> None:
        self.state, self.epoch, self.good, self.probe = state, self.epoch + 1, 0, None
        if state == "closed":
            self.results, self.closed_at = [], self.now
        if state == "open":
            self.until = self.now + WAITS[min(self.openings, len(WAITS) - 1)]
            self.openings += 1

    def admit(self) -> tuple[int, int | None] | None:
        self.settle()
        if self.state == "closed":
            return self.epoch, None
        if self.state == "half-open" and self.probe is None:
            self.probes += 1
            self.probe = self.probes
            return self.epoch, self.probe
        return None

    def end(self, permit: tuple[int, int | None], kind: str, seconds: float) -> None:
        epoch, probe = permit
        if epoch != self.epoch or probe != self.probe:
            return
        if probe is not None:
            self.probe = None
            if kind == "failure" or (kind == "success" and seconds >= 1):
                self.change("open")
            elif kind == "success":
                self.good += 1
                if self.good == POLICY.successes:
                    self.change("closed")
        elif kind != "ignored":
            self.results.append((self.now, kind == "failure", seconds >= 1))
            self.judge()

    def judge(self) -> None:
        first = self.now // WIDTH - BUCKETS + 1
        window = [each for each in self.results if each[0] // WIDTH >= first]
        failed, slow = sum(each[1] for each in window), sum(each[2] for each in window)
        last = [each[1] for each in self.results[-4:]]
        too_many = len(window) >= 6 and (failed * 2 >= len(window) or slow * 2 >= len(window))
        if too_many or last == [True] * 4:
            if self.now - self.closed_at >= POLICY.window:
                self.openings = 0
            self.change("open")


@pytest.fixture(scope="module", autouse=True)
def no_jitter() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(open_time, "JITTER", 0.0)
        yield


def steps_of(choice: random.Random) -> Iterator[tuple[str, float]]:
    """Yield steps in phases: in each, most calls fail, or most calls succeed."""
    for _ in range(40):
        bad, slow = choice.choice([0.0, 0.2, 0.5, 0.9]), choice.choice([0.0, 0.0, 0.5])
        for _ in range(choice.choice([5, 20, 60])):
            kind = choice.choices(["wait", "begin", "end", "call"], [2, 1, 1, 4])[0]
            result = "failure" if choice.random() < bad else "success"
            if choice.random() < 0.1:
                result = "ignored"
            if kind == "wait":
                yield kind, choice.choice([0.1, 0.1, 0.5, 1.0, 2.0, 11.0])
            else:
                yield f"{kind} {result}", float(choice.random() < slow)


@pytest.mark.parametrize("seed", range(25))
def test_a_breaker_agrees_with_a_list_of_all_calls(seed: int) -> None:
    choice, times = random.Random(seed), Times()
    changes = list[BreakerInfo]()
    breaker = CircuitBreaker(
        POLICY, "billing.quote.v1", "call", times.timer, times.clock, changes.append
    )
    model, running = Model(times.now), list[tuple[Permit, tuple[int, int | None]]]()
    for step, amount in steps_of(choice):
        kind, _, result = step.partition(" ")
        if kind == "wait":
            times.now += amount
            model.now = times.now
        if kind in {"begin", "call"}:
            permit, expected = breaker.admit(1e9), model.admit()
            assert (permit is None) == (expected is None)
            if permit is not None and expected is not None:
                running.append((permit, expected))
        if kind in {"end", "call"} and running:
            permit, expected = running.pop(choice.randrange(len(running)) if kind == "end" else -1)
            if result == "success":
                breaker.success(permit, amount)
            elif result == "failure":
                breaker.failure(permit, amount, "unavailable")
            else:
                breaker.ignore(permit)
            model.end(expected, result, amount)
        model.settle()
        assert breaker.state == model.state
    assert {change.state for change in changes} == {"open", "half-open", "closed"}
    # The breaker reports that it is half-open when the next call begins.
    assert model.epoch - len(changes) in {0, 1}
