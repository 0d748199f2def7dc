"""The wait in a queue, from clocks that can differ."""

import pytest

from bus.messaging.resilience.queue_wait import MAX_SENDERS, QueueWait


def busy(queue: QueueWait, sender: str, ages: list[float], *, start: float = 10.0) -> list[float]:
    """Note requests every 50 ms that had to wait for a slot, and return their waits."""
    return [
        round(queue.wait_of(sender, age, 0.0, start + number * 0.05, 10.0), 6)
        for number, age in enumerate(ages)
    ]


@pytest.mark.parametrize("skew", [-30.0, -0.5, 0.0, 0.5, 30.0])
def test_a_different_clock_of_the_sender_does_not_change_the_wait(skew: float) -> None:
    queue = QueueWait()
    queue.learn("a", skew + 0.001, 1.0)
    assert busy(queue, "a", [skew + 0.101, skew + 1.001]) == [0.1, 1.0]


def test_the_time_in_the_process_counts() -> None:
    queue = QueueWait()
    queue.learn("a", 0.0, 1.0)
    assert queue.wait_of("a", 0.5, 0.25, 10.0, 10.0) == 0.75


def test_a_clock_that_jumps_ahead_in_an_overload_corrects_the_difference() -> None:
    queue = QueueWait()
    queue.learn("a", 5.0, 1.0)
    assert busy(queue, "a", [6.0, 2.0, 2.5]) == [1.0, 0.0, 0.5]


def test_a_clock_that_jumps_back_is_corrected_in_the_next_idle_moments() -> None:
    queue = QueueWait()
    queue.learn("a", 0.0, 1.0)
    assert busy(queue, "a", [5.0]) == [5.0]
    for number in range(100):
        queue.learn("a", 5.0, 20.0 + number * 0.02)
    assert busy(queue, "a", [5.1], start=30.0)[0] == pytest.approx(0.1, abs=0.001)


def test_a_delivery_that_was_delayed_hardly_changes_the_difference() -> None:
    queue = QueueWait()
    for age in (0.002, 0.001, 0.101):
        queue.learn("a", age, 1.0)
    assert busy(queue, "a", [1.001]) == [0.99]


@pytest.mark.parametrize(("age", "waited"), [(-3.0, 0.0), (0.0, 0.0), (9.0, 9.0), (12.0, 0.0)])
def test_the_clock_of_a_new_sender_is_taken_as_equal_if_the_request_is_not_too_old(
    age: float, waited: float
) -> None:
    assert busy(QueueWait(), "a", [age]) == [waited]


def test_a_new_sender_with_another_clock_does_not_raise_the_standing_wait() -> None:
    queue = QueueWait()
    queue.learn("a", 0.0, 1.0)
    busy(queue, "a", [0.3] * 5)
    assert queue.wait_of("b", 5.0, 0.0, 10.26, 10.0) == 5.0
    assert queue.standing(10.27) <= 0.3


def test_after_distrust_the_first_request_of_a_sender_has_not_waited() -> None:
    queue = QueueWait()
    queue.learn("a", 0.0, 1.0)
    busy(queue, "a", [9.0] * 8)
    queue.distrust_clocks()
    assert busy(queue, "a", [9.0, 9.5], start=11.0) == [0.0, 0.5]
    assert busy(queue, "b", [5.0], start=12.0) == [0.0]


def test_the_standing_wait_is_the_shortest_of_two_intervals() -> None:
    queue = QueueWait()
    queue.learn("a", 0.0, 1.0)
    busy(queue, "a", [3.0, 2.0, 2.5, 4.0, 4.0, 4.0])
    assert queue.standing(10.25) == 2.5
    busy(queue, "a", [4.0, 4.0, 4.0, 4.0], start=10.3)
    assert queue.standing(10.45) == 4.0


def test_after_an_idle_moment_no_wait_stands_for_an_interval() -> None:
    queue = QueueWait()
    queue.learn("a", 0.0, 1.0)
    busy(queue, "a", [3.0] * 8)
    assert queue.standing(10.35) == 3.0
    queue.idle_at = 10.36
    assert queue.standing(10.40) == 0.0
    busy(queue, "a", [3.0] * 2, start=10.5)
    assert queue.standing(10.55) == 0.0  # the last interval had an idle moment
    busy(queue, "a", [3.0] * 2, start=10.65)
    assert queue.standing(10.7) == 3.0


def test_a_slow_handler_has_intervals_with_one_request() -> None:
    queue = QueueWait()
    queue.learn("a", 0.0, 1.0)
    for number in range(4):
        queue.wait_of("a", 2.0 + number, 0.0, 10.0 + 5 * number, 10.0)
    assert queue.standing(25.0) == 4.0


def test_the_number_of_senders_is_bounded_and_the_oldest_is_forgotten() -> None:
    queue = QueueWait()
    for number in range(MAX_SENDERS + 1):
        queue.learn(f"s{number}", 7.0, 1.0)
    assert len(queue._offsets) == MAX_SENDERS
    assert queue.wait_of("s1", 7.5, 0.0, 10.0, 10.0) == 0.5
    assert "s0" not in queue._offsets


@pytest.mark.parametrize(
    ("known", "ages"),
    [
        (True, [-2.0 - 5 * number for number in range(8)]),  # ever later send times
        (True, [-2.0 + 0.001 * number for number in range(8)]),  # one jump
        (True, [3.0 - 0.09 * number for number in range(40)]),  # many small steps
        (False, [-2.0 + 0.001 * number for number in range(8)]),  # a new sender
        (False, [11.0] * 8),
    ],
)
def test_a_sender_that_states_contradicting_times_does_not_lower_the_wait_of_the_queue(
    known: bool, ages: list[float]
) -> None:
    queue = QueueWait()
    queue.learn("good", 0.0, 1.0)
    if known:
        queue.learn("liar", 3.0, 1.0)
    for number, age in enumerate([*ages, *[ages[-1]] * 5]):
        queue.wait_of("good", 4.0, 0.0, 10.0 + number * 0.05, 10.0)
        queue.wait_of("liar", age, 0.0, 10.01 + number * 0.05, 10.0)
    assert queue.standing(10.02 + (len(ages) + 4) * 0.05) == 4.0


def test_a_sender_is_believed_again_after_an_idle_moment() -> None:
    queue = QueueWait()
    queue.learn("a", 0.0, 1.0)
    busy(queue, "a", [-5.0] * 4)
    queue.learn("a", -5.0, 11.0)
    busy(queue, "a", [-2.0] * 8, start=12.0)
    assert queue.standing(12.4) == 3.0
