"""The retry budget on a fake clock."""

from collections.abc import Callable

import pytest

from bus.messaging.resilience.retry_budget import WINDOW_SECONDS, RetryBudget


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def taken(budget: RetryBudget, limit: int = 1000) -> int:
    """Return the number of tokens that can be taken now."""
    return next(number for number in range(limit) if not budget.take())


def test_a_new_budget_has_one_token() -> None:
    budget = RetryBudget(0.2, Clock())
    assert [budget.take(), budget.take()] == [True, False]
    assert budget.denied == 1


def test_five_successful_calls_refill_a_token() -> None:
    budget = RetryBudget(0.2, Clock())
    assert budget.take()
    for _ in range(4):
        budget.succeeded()
    assert not budget.take()
    budget.succeeded()
    assert budget.take()
    assert not budget.take()


def test_the_time_alone_refills_no_token() -> None:
    clock = Clock()
    budget = RetryBudget(0.2, clock)
    assert budget.take()
    clock.now += 100 * WINDOW_SECONDS
    assert not budget.take()


def test_no_more_tokens_are_saved_than_the_calls_of_one_window_deposit() -> None:
    clock = Clock()
    budget = RetryBudget(0.2, clock)
    for _ in range(1000):
        clock.now += 0.1
        budget.succeeded()
    assert taken(budget) == 0.2 * 10 * WINDOW_SECONDS


def test_saved_tokens_expire_after_two_windows_without_a_call() -> None:
    clock = Clock()
    budget = RetryBudget(0.2, clock)
    for _ in range(100):
        budget.succeeded()
    clock.now += 2 * WINDOW_SECONDS
    assert taken(budget) == 1


def test_the_number_of_tokens_falls_at_the_end_of_a_window_although_no_call_is_made() -> None:
    clock = Clock()
    budget = RetryBudget(0.2, clock)
    for _ in range(100):
        budget.succeeded()
    found = list[float]()
    for _ in range(4):
        found.append(budget.tokens)
        clock.now += 0.7 * WINDOW_SECONDS
    assert found == pytest.approx([20, 20, 20, 1])


def test_a_read_of_the_number_of_tokens_changes_nothing() -> None:
    clock = Clock()
    read, unread = RetryBudget(0.2, clock), RetryBudget(0.2, clock)
    for step in range(40):
        for budget in (read, unread):
            for _ in range(step % 7):
                budget.succeeded()
        clock.now += 0.7 * WINDOW_SECONDS * (step % 3)
        seen = read.tokens
        if step % 5 == 0:
            assert (read.take(), unread.take()) == (True, True)
            seen -= 1
        assert read.tokens == unread.tokens == pytest.approx(seen)


def test_a_budget_without_a_deposit_permits_only_its_first_retry() -> None:
    budget = RetryBudget(0, Clock())
    for _ in range(100):
        budget.succeeded()
    assert taken(budget) == 1


def failing_after(healthy: float, rate: float, failing: float) -> float:
    """Return the attempts per call to a service that fails after `healthy` seconds."""
    clock = Clock()
    budget = RetryBudget(0.2, clock)
    for _ in range(round(healthy * rate)):
        clock.now += 1 / rate
        budget.succeeded()
    attempts = calls = 0
    for _ in range(round(failing * rate)):
        clock.now += 1 / rate
        calls += 1
        attempts += 1
        for _ in range(2):
            if not budget.take():
                break
            attempts += 1
    return attempts / calls


@pytest.mark.parametrize("healthy", [0, 20, 3600], ids=["at once", "after 20 s", "after 1 h"])
@pytest.mark.parametrize("rate", [0.1, 1, 10])
def test_a_caller_sends_at_most_a_quarter_more_to_a_failing_service(
    rate: float, healthy: float
) -> None:
    assert failing_after(healthy, rate, failing=60) <= 1.25


@pytest.mark.parametrize("rate", [0.1, 1, 10])
def test_a_caller_sends_at_most_a_quarter_more_if_half_of_the_attempts_fail(rate: float) -> None:
    clock = Clock()
    budget = RetryBudget(0.2, clock)
    attempts = calls = 0
    outcome: Callable[[int], bool] = lambda number: number % 2 == 0  # noqa: E731
    for _ in range(round(600 * rate)):
        clock.now += 1 / rate
        calls += 1
        for _ in range(3):
            attempts += 1
            if outcome(attempts):
                budget.succeeded()
                break
            if not budget.take():
                break
    assert attempts / calls <= 1.25
