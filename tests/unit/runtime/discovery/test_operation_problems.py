"""Problems of one operation: each rule needs evidence of more than one moment."""

from typing import Any

import pytest

from bus.messaging import instruments
from bus.messaging.service_info import InstanceStats, Series
from bus.runtime.discovery.measurements import Measurement, difference
from bus.runtime.discovery.operation_problems import problems_of
from bus.runtime.discovery.operation_summary import OperationSummary, summarize
from tests.unit.runtime.discovery.records import counted, handler, shed, stats, timed

DELAY = instruments.START_DELAY_SECONDS


def only(*measured: Measurement) -> OperationSummary:
    (row,) = summarize(measured).handled
    return row


def texts(*series: Series, **state: Any) -> list[str]:
    """Return the problems of an operation with one handler in one instance."""
    row = only(Measurement(stats=stats(handlers=[handler(**state)], series=series)))
    return [problem.text.removeprefix("billing.get.v1: ") for problem in problems_of(row)]


def test_failures_that_began_a_minute_ago_are_a_problem_after_thousands_of_good_attempts() -> None:
    found = texts(counted(8_080, recent=80), counted(20, "internal", recent=20))
    assert found == ["20% of the attempts in the last 1 to 2 minutes failed"]


def test_failures_of_the_last_seconds_are_a_problem_after_a_burst_of_good_attempts() -> None:
    good, failed = counted(8_040, latest=40), counted(10, "internal", latest=10)
    assert texts(good, failed) == ["20% of the attempts in the last 10 to 20 s failed"]


@pytest.mark.parametrize(
    "failed", [counted(2, "internal", latest=2), counted(9, "not_found", latest=9)]
)
def test_two_failures_after_a_burst_of_good_attempts_are_no_problem(failed: Series) -> None:
    assert texts(counted(8_040, latest=8), failed) == []


def test_failures_that_ended_are_no_problem() -> None:
    assert texts(counted(80, recent=40), counted(20, "internal", recent=0)) == []


def test_an_operation_without_recent_attempts_has_no_problem() -> None:
    assert texts(counted(5, "internal", recent=0)) == []


# --- Requests that are refused before their handler ---


def test_requests_that_are_shed_are_a_problem_with_their_number() -> None:
    assert texts(shed(30, "age"), shed(9, "criticality"), counted(200)) == [
        "39 requests shed in the last 1 to 2 minutes; add instances"
    ]


def test_callers_above_their_rate_limit_are_no_overload() -> None:
    assert texts(shed(1, "rate")) == ["1 request above the rate limit in the last 1 to 2 minutes"]


def test_an_overload_that_ended_is_no_problem() -> None:
    assert texts(shed(30, "deadline", recent=0)) == []


# --- A message that runs long ---


def test_a_message_that_runs_much_longer_than_others_is_a_problem() -> None:
    found = texts(timed(*[0.7] * 20), oldest_seconds=45, free=3)
    assert found == [
        "its oldest message has run for 45 s in a; 99% of the attempts take at most 0.8 s"
    ]


@pytest.mark.parametrize(
    ("usual", "oldest"),
    [
        pytest.param([0.7] * 20, 9, id="less than 10 s"),
        pytest.param([20.0] * 20, 45, id="not 5 times as long"),
        pytest.param([0.7] * 19, 45, id="too few attempts to compare with"),
        pytest.param([0.7] * 20, None, id="nothing runs"),
    ],
)
def test_a_message_that_may_need_its_time_is_no_problem(
    usual: list[float], oldest: float | None
) -> None:
    assert texts(timed(*usual), oldest_seconds=oldest, free=3) == []


def test_the_usual_time_is_that_since_the_start() -> None:
    assert texts(timed(earlier=[0.7] * 20), oldest_seconds=45, free=3) != []


def test_a_message_that_outlives_the_timeout_of_its_handler_is_a_problem() -> None:
    (text,) = texts(oldest_seconds=31, timeout=30, free=3)
    assert (
        text == "its oldest message has run for 31 s in a, although the handler's timeout is 30 s"
    )
    assert texts(oldest_seconds=29, timeout=30, free=3) == []


# --- Slots ---


def test_a_moment_without_a_free_slot_is_no_problem() -> None:
    assert texts(timed(*[0.02] * 30), counted(30), free=0, oldest_seconds=0.01) == []


@pytest.mark.parametrize(
    ("slots", "text"),
    [
        (1, "its slot is in use by the same work for 45 s"),
        (4, "all 4 slots are in use by the same work for 45 s"),
    ],
)
def test_slots_that_have_had_the_same_messages_for_seconds_are_a_problem(
    slots: int, text: str
) -> None:
    assert texts(slots=slots, free=0, full_seconds=45) == [text]


def test_the_slots_of_an_operation_are_full_if_those_of_each_instance_are() -> None:
    full = handler(free=0, full_seconds=45)
    others = [handler(free=0, full_seconds=3), handler(free=0), handler(free=1)]
    found = [
        [
            problem.text
            for problem in problems_of(
                only(
                    Measurement(stats=stats("a", handlers=[full])),
                    Measurement(stats=stats("b", handlers=[other])),
                )
            )
        ]
        for other in others
    ]
    assert found == [["billing.get.v1: all 8 slots are in use by the same work for 3 s"], [], []]


def test_full_slots_are_a_problem_if_messages_wait_longer_than_they_run() -> None:
    delays = timed(*[0.9] * 30, instrument=DELAY)
    (text,) = texts(timed(*[0.7] * 30), delays, free=0)
    assert text == "all 4 slots are in use, and half of the last messages waited 0.9 s"
    assert texts(timed(*[0.7] * 30), delays, free=1) == []
    assert texts(timed(*[1.7] * 30), delays, free=0) == []
    assert texts(timed(*[0.01] * 30), timed(*[0.05] * 30, instrument=DELAY), free=0) == []


def test_full_slots_are_a_problem_beside_a_message_that_runs_long() -> None:
    _, text = texts(timed(*[0.7] * 20), oldest_seconds=45, slots=1, free=0)
    assert text == "its slot is in use"


def after(*seconds: float, free: int = 0) -> InstanceStats:
    return stats(
        handlers=[handler(slots=2, free=free)], series=[timed(*seconds), counted(len(seconds))]
    )


@pytest.mark.parametrize(
    ("measured", "found"),
    [
        pytest.param(after(*[0.5] * 8), ["full"], id="all of 2 s"),
        pytest.param(after(*[0.5] * 5), [], id="1.25 slots on average"),
        pytest.param(after(*[0.5] * 8, free=1), [], id="a slot is free now"),
        pytest.param(after(30.0), [], id="one attempt from before the interval"),
    ],
)
def test_slots_that_are_busy_for_the_whole_interval_are_a_problem(
    measured: InstanceStats, found: list[str]
) -> None:
    interval = only(difference(stats(handlers=[handler(slots=2)]), measured, 2.0))
    row = only(Measurement(stats=measured))
    assert [problem.code for problem in problems_of(row, interval)] == found


# --- Slower than before ---


def test_an_operation_that_became_several_times_slower_is_a_problem() -> None:
    (text,) = texts(timed(*[0.7] * 20, earlier=[0.02] * 100))
    assert text == "half of the recent attempts took 0.7 s or longer, before that 0.018 s"


@pytest.mark.parametrize(
    ("recent", "earlier"),
    [
        pytest.param([0.7] * 100, [], id="always so slow"),
        pytest.param([0.7] * 20, [0.3] * 100, id="not 3 times as slow"),
        pytest.param([0.7] * 19, [0.02] * 100, id="too few recent attempts"),
        pytest.param([0.7] * 20, [0.02] * 99, id="too few earlier attempts"),
        pytest.param([0.004] * 20, [0.0002] * 100, id="still fast"),
        pytest.param([0.02] * 15 + [9.0] * 10, [0.02] * 100, id="only some"),
    ],
)
def test_an_operation_that_is_not_clearly_slower_is_no_problem(
    recent: list[float], earlier: list[float]
) -> None:
    assert texts(timed(*recent, earlier=earlier)) == []
