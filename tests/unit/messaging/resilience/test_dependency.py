"""The values of a dependency, and the admission of the messages that need it."""

from typing import Any

import pytest

from bus.errors import ContractError, Unavailable
from bus.messaging.policy_info import BreakerInfo
from bus.messaging.resilience.circuit_breaker import CircuitBreaker, Permit
from bus.messaging.resilience.dependency import Dependency
from bus.messaging.resilience.dependency_admission import DependencyAdmission


class EhrDown(Exception):
    """The dependency of these tests is down."""


class EhrBusy(EhrDown):
    """A subclass counts, too."""


EHR = Dependency(name="ehr", failures=(EhrDown,))


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (EhrDown(), EhrDown),
        (EhrBusy(), EhrBusy),
        (ExceptionGroup("", [ValueError(), ExceptionGroup("", [EhrBusy()])]), EhrBusy),
        (ExceptionGroup("", [ValueError()]), None),
        (Unavailable(), None),
    ],
)
def test_a_failure_is_an_error_of_the_classes_alone_or_in_a_group(
    error: Exception, expected: type[Exception] | None
) -> None:
    failure = EHR.failure_in(error)
    assert (None if failure is None else type(failure)) is expected


def test_another_error_with_a_failure_as_its_cause_is_not_a_failure() -> None:
    error = ValueError()
    error.__cause__ = EhrDown()
    assert EHR.failure_in(error) is None


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"name": "Ehr"}, "dependency: 'Ehr' is not a valid dependency name"),
        ({"name": 3}, "dependency must be a name or a Dependency, not a value of type int"),
        ({"failures": ()}, "failures must be a tuple of at least one exception class"),
        ({"failures": EhrDown}, "failures must be a tuple of at least one exception class"),
        ({"failures": (int,)}, "failures must contain only subclasses of Exception, not int"),
        ({"failures": ("EhrDown",)}, "failures must contain only subclasses of Exception"),
        ({"failures": (KeyboardInterrupt,)}, "only subclasses of Exception, not KeyboardInterrupt"),
        ({"failures": (Exception,)}, "failures cannot contain Exception"),
        ({"failures": (ExceptionGroup,)}, "failures cannot contain ExceptionGroup"),
        ({"consecutive_failures": 0}, "consecutive_failures must be a whole number from 1"),
        ({"consecutive_failures": 2.5}, "consecutive_failures must be a whole number from 1"),
        *(
            ({"probe_interval": wrong}, "probe_interval must be a number of seconds from 1 to 3600")
            for wrong in (-1, 0, 0.5, 3601, float("nan"), "3")
        ),
    ],
)
def test_a_dependency_refuses_values_that_are_out_of_range(
    values: dict[str, Any], problem: str
) -> None:
    with pytest.raises(ContractError) as refused:
        Dependency(**{"name": "ehr", "failures": (EhrDown,), **values})
    assert problem in str(refused.value)


class Clock:
    """The time of an admission, which a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def admission(
    clock: Clock, changes: list[BreakerInfo] | None = None, **values: Any
) -> DependencyAdmission:
    dependency = Dependency(name="ehr", failures=(EhrDown,), **values)
    seen = [] if changes is None else changes
    breaker = CircuitBreaker(dependency.policy, "ehr", "dependency", clock, clock, seen.append)
    return DependencyAdmission(dependency, breaker)


def admit_all(gate: DependencyAdmission, most: int, **options: bool) -> list[Permit]:
    """Return the permits of at most `most` messages that are admitted now."""
    permits: list[Permit] = []
    while len(permits) < most and (permit := gate.admit(60, **options)) is not None:
        permits.append(permit)
    return permits


def call_while_down(gate: DependencyAdmission, concurrency: int) -> int:
    """Call a dependency that is down with many handlers. Return the calls until it opens."""
    calls, running = 0, admit_all(gate, concurrency)
    while running:
        calls += 1
        gate.fail(running.pop(0), "EhrDown")
        running += admit_all(gate, concurrency - len(running))
    return calls


@pytest.mark.parametrize(
    ("threshold", "concurrency", "calls"),
    [(5, 1, 5), (5, 2, 5), (5, 4, 5), (5, 5, 5), (5, 16, 16), (1, 1, 1), (1, 3, 3), (20, 16, 20)],
)
def test_at_most_the_threshold_or_the_concurrency_of_calls_reach_a_dependency_that_is_down(
    threshold: int, concurrency: int, calls: int
) -> None:
    gate = admission(Clock(), consecutive_failures=threshold)
    assert call_while_down(gate, concurrency) == calls
    assert (gate.is_open, gate.running) == (True, 0)


@pytest.mark.parametrize("interval", [1, 30, 3600])
def test_one_call_in_each_probe_interval_reaches_a_dependency_that_is_down(interval: float) -> None:
    clock = Clock()
    gate = admission(clock, probe_interval=interval)
    call_while_down(gate, 4)
    for _ in range(10):
        assert gate.retry_after == interval
        clock.now += interval * 0.999
        assert call_while_down(gate, 4) == 0
        clock.now += interval * 0.001
        assert call_while_down(gate, 4) == 1


def test_one_success_closes_the_breaker_and_all_messages_are_admitted() -> None:
    clock = Clock()
    gate = admission(clock)
    call_while_down(gate, 4)
    clock.now += 30
    (probe,) = admit_all(gate, 4)
    gate.succeed(probe)
    assert (gate.is_open, gate.retry_after) == (False, 0)
    assert len(admit_all(gate, 100)) == 100


def test_a_probe_that_fails_for_another_reason_leaves_its_place_to_the_next_one() -> None:
    clock = Clock()
    gate = admission(clock)
    call_while_down(gate, 4)
    clock.now += 30
    for _ in range(3):
        (probe,) = admit_all(gate, 4)
        gate.ignore(probe)
    assert (gate.is_open, gate.retry_after, gate.running) == (True, 0, 0)


def test_a_success_ends_the_suspicion_after_a_failure() -> None:
    gate = admission(Clock())
    running = admit_all(gate, 16)
    gate.fail(running.pop(), "EhrDown")
    assert admit_all(gate, 16) == []
    gate.succeed(running.pop())
    assert len(admit_all(gate, 16)) == 16


def test_messages_that_fail_for_another_reason_never_stop_the_admission() -> None:
    gate = admission(Clock())
    running = admit_all(gate, 5)
    for permit in running[:4]:
        gate.fail(permit, "EhrDown")
    assert admit_all(gate, 1) == []
    gate.ignore(running[4])
    (last,) = admit_all(gate, 5)
    gate.fail(last, "EhrDown")
    assert gate.is_open


def test_a_request_is_admitted_under_suspicion_because_it_cannot_wait() -> None:
    gate = admission(Clock())
    running = admit_all(gate, 5)
    gate.fail(running.pop(), "EhrDown")
    assert admit_all(gate, 1) == []
    assert len(admit_all(gate, 1, is_limited=False)) == 1


def test_an_operators_order_isolates_and_resets_a_dependency() -> None:
    clock, changes = Clock(), list[BreakerInfo]()
    gate = admission(clock, changes)
    gate.breaker.isolate(int((clock.now + 600) * 1000), "anna", "the supplier repairs it")
    assert (gate.is_open, gate.retry_after, admit_all(gate, 1)) == (True, 600, [])
    gate.breaker.reset("anna", "repaired")
    assert (gate.is_open, len(admit_all(gate, 1))) == (False, 1)
    assert [change.state for change in changes] == ["isolated", "closed"]


def test_messages_that_wait_are_not_counted_as_rejected_calls() -> None:
    gate = admission(Clock())
    call_while_down(gate, 1)
    for _ in range(100):
        gate.admit(60)
    assert gate.breaker.info().rejected == 0


def test_after_a_lost_probe_the_next_message_is_the_probe() -> None:
    clock = Clock()
    gate = admission(clock)
    call_while_down(gate, 1)
    clock.now += 30
    assert gate.admit(92) is not None  # and its result never comes
    clock.now += 91.5
    assert (gate.admit(92), gate.retry_after) == (None, 0.5)
    clock.now += 0.5
    assert gate.retry_after == 0
    (probe,) = admit_all(gate, 4)
    gate.succeed(probe)
    assert not gate.is_open


def test_messages_that_never_end_do_not_stop_the_admission_under_suspicion() -> None:
    clock = Clock()
    gate = admission(clock, consecutive_failures=2)
    (failing, _lost) = admit_all(gate, 2)
    gate.fail(failing, "EhrDown")
    assert admit_all(gate, 4) == []
    clock.now += 59
    assert admit_all(gate, 4) == []
    clock.now += 1
    (permit,) = admit_all(gate, 4)
    gate.succeed(permit)
    assert len(admit_all(gate, 100)) == 100


def test_a_message_that_is_admitted_because_results_are_overdue_can_begin() -> None:
    clock = Clock()
    gate = admission(clock, consecutive_failures=2)
    first, _hangs, waits = (gate.reserve(60) for _ in range(3))
    assert first is not None
    assert waits is not None
    assert [gate.begin(first), gate.begin(first)] == [True, True]
    gate.fail(first, "EhrDown")
    assert not gate.begin(waits)
    assert gate.reserve(60) is None
    clock.now += 60
    last = gate.reserve(60)
    assert last is not None
    assert gate.begin(last)
    gate.fail(last, "EhrDown")
    assert (gate.is_open, gate.running) == (True, 1)
