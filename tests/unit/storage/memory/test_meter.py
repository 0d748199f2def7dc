"""The meter in memory: its series, its bounds and its cost in memory."""

import threading
import tracemalloc
from math import inf, nan

from bus.messaging.histograms import bucket_of
from bus.messaging.instruments import (
    HANDLED,
    HANDLER_SECONDS,
    READY,
    SEND_SECONDS,
    START_DELAY_SECONDS,
)
from bus.messaging.ports.meter import Meter
from bus.messaging.service_info import MAX_SECONDS, Series
from bus.storage.memory.meter import MAX_SERIES, OTHER, MemoryMeter
from bus.storage.memory.meter_values import GENERATION_SECONDS, LATEST_SECONDS
from tests.unit.fakes import NOW

SENT = ("billing.quote", "1", "request")
HANDLER = (*SENT, "")
TRACE, OTHER_TRACE = "0af7651916cd43dd8448eb211c80319c", "b" * 32


class StoppedClock:
    """A clock that only a test moves."""

    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def only(meter: MemoryMeter) -> Series:
    (series,) = meter.snapshot()
    return series


def handled(name: str) -> tuple[str, ...]:
    return (name, "1", "request", "", "shop", "ok")


def test_a_counter_adds_up() -> None:
    clock = StoppedClock(NOW)
    meter = MemoryMeter(clock=clock)
    meter.count(HANDLED, handled("billing.quote"))
    clock.now += 5
    meter.count(HANDLED, handled("billing.quote"), 3)
    assert only(meter) == Series(
        name="messages.handled",
        labels={
            "operation": "billing.quote",
            "version": "1",
            "kind": "request",
            "subscription": "",
            "caller": "shop",
            "outcome": "ok",
        },
        value=4,
        recent_value=4,
        latest_value=4,
        last=int((NOW + 5) * 1000),
    )


def test_a_gauge_has_its_last_value() -> None:
    meter = MemoryMeter()
    meter.set(READY, (), 1)
    meter.set(READY, (), 0)
    assert (only(meter).value, only(meter).recent_value) == (0, 0)


def test_the_recent_value_of_a_counter_is_that_of_the_last_one_to_two_minutes() -> None:
    clock = StoppedClock(NOW)
    meter = MemoryMeter(clock=clock)
    meter.count(HANDLED, handled("billing.quote"), 8_000)
    clock.now += GENERATION_SECONDS - 1
    meter.count(HANDLED, handled("billing.quote"), 5)
    assert only(meter).recent_value == 8_005
    clock.now += GENERATION_SECONDS
    meter.count(HANDLED, handled("billing.quote"))
    assert only(meter).recent_value == 8_006
    clock.now += GENERATION_SECONDS
    meter.count(HANDLED, handled("billing.quote"), 2)
    assert (only(meter).recent_value, only(meter).value) == (3, 8_008)


def test_the_recent_value_of_a_counter_passes_without_a_further_report() -> None:
    clock = StoppedClock(NOW)
    meter = MemoryMeter(clock=clock)
    meter.count(HANDLED, handled("billing.quote"), 7)
    clock.now += 2 * GENERATION_SECONDS - 1
    assert only(meter).recent_value == 7
    clock.now += 1
    assert (only(meter).recent_value, only(meter).value) == (0, 7)


def test_the_latest_value_of_a_counter_is_that_of_the_last_ten_to_twenty_seconds() -> None:
    assert LATEST_SECONDS == 10
    clock = StoppedClock(NOW)
    meter = MemoryMeter(clock=clock)
    meter.count(HANDLED, handled("billing.quote"), 8_000)
    found = []
    for _ in range(4):
        clock.now += LATEST_SECONDS - 1
        meter.count(HANDLED, handled("billing.quote"), 2)
        found.append(only(meter).latest_value)
    assert found == [8_002, 8_004, 4, 4]
    assert only(meter).recent_value == 8_008
    clock.now += 2 * LATEST_SECONDS
    assert (only(meter).latest_value, only(meter).recent_value) == (0, 8_008)


def test_a_batch_that_is_reported_late_counts_at_its_own_time() -> None:
    clock = StoppedClock(NOW)
    meter = MemoryMeter(clock=clock)
    meter.count(HANDLED, handled("billing.quote"), 7)
    clock.now += 10 * GENERATION_SECONDS
    meter.count(HANDLED, handled("billing.quote"), 2, at=NOW + 1)
    assert (only(meter).recent_value, only(meter).value) == (0, 9)


def test_a_histogram_has_its_count_its_sum_and_its_largest_value() -> None:
    meter = MemoryMeter()
    for value in (0.01, 0.2, 0.01):
        meter.observe(SEND_SECONDS, SENT, value)
    series = only(meter)
    assert (series.count, series.max) == (3, 0.2)
    assert abs(series.value - 0.22) < 1e-9
    assert series.buckets == {bucket_of(0.01): 2, bucket_of(0.2): 1}


def test_recent_values_are_those_of_the_last_one_to_two_minutes() -> None:
    assert GENERATION_SECONDS == 60
    clock = StoppedClock(NOW)
    meter = MemoryMeter(clock=clock)
    old, new = bucket_of(2), bucket_of(0.01)
    meter.observe(SEND_SECONDS, SENT, 2)
    clock.now += GENERATION_SECONDS - 1
    meter.observe(SEND_SECONDS, SENT, 0.01)
    assert only(meter).recent == {old: 1, new: 1}
    clock.now += GENERATION_SECONDS
    meter.observe(SEND_SECONDS, SENT, 0.01)
    assert (only(meter).recent, only(meter).recent_max) == ({old: 1, new: 2}, 2)
    clock.now += GENERATION_SECONDS
    meter.observe(SEND_SECONDS, SENT, 0.01)
    assert (only(meter).recent, only(meter).recent_max) == ({new: 2}, 0.01)
    assert only(meter).buckets == {old: 1, new: 3}


def test_recent_values_pass_without_a_further_report() -> None:
    clock = StoppedClock(NOW)
    meter = MemoryMeter(clock=clock)
    meter.observe(SEND_SECONDS, SENT, 2)
    clock.now += 2 * GENERATION_SECONDS - 1
    assert only(meter).recent == {bucket_of(2): 1}
    clock.now += 1
    assert (only(meter).recent, only(meter).recent_max, only(meter).max) == ({}, 0, 2)


def test_a_pause_between_reports_does_not_make_the_recent_values_older() -> None:
    clock = StoppedClock(NOW)
    meter = MemoryMeter(clock=clock)
    for value in (2, 0.01, 0.01):
        meter.observe(SEND_SECONDS, SENT, value)
        clock.now += 1.2 * GENERATION_SECONDS
    assert only(meter).recent == {bucket_of(0.01): 1}, "the middle one is 2.4 generations old"


def test_after_a_silence_the_recent_values_begin_again() -> None:
    clock = StoppedClock(NOW)
    meter = MemoryMeter(clock=clock)
    meter.observe(SEND_SECONDS, SENT, 2)
    clock.now += 10 * GENERATION_SECONDS
    meter.observe(SEND_SECONDS, SENT, 0.01)
    assert (only(meter).recent, only(meter).recent_max) == ({bucket_of(0.01): 1}, 0.01)


def test_a_bucket_keeps_one_exemplar_and_replaces_it_when_it_is_old() -> None:
    clock = StoppedClock(NOW)
    meter = MemoryMeter(clock=clock)
    meter.observe(SEND_SECONDS, SENT, 0.01, TRACE)
    meter.observe(SEND_SECONDS, SENT, 0.01, OTHER_TRACE)
    assert only(meter).exemplars == {bucket_of(0.01): (TRACE, 0.01, int(NOW * 1000))}
    clock.now += 10
    meter.observe(SEND_SECONDS, SENT, 0.01, OTHER_TRACE)
    assert only(meter).exemplars[bucket_of(0.01)][0] == OTHER_TRACE


def test_an_exemplar_that_is_not_a_trace_id_is_ignored() -> None:
    meter = MemoryMeter()
    for text in ("", "short", 'a" b\n' + "c" * 27, "x" * 10_000):
        meter.observe(SEND_SECONDS, SENT, 0.01, text)
    assert (only(meter).count, only(meter).exemplars) == (4, {})


def test_values_that_are_not_durations_do_no_harm() -> None:
    meter = MemoryMeter()
    for value in (-1.0, nan, inf, -inf):
        meter.observe(SEND_SECONDS, SENT, value)
    series = only(meter)
    assert (series.count, series.value, series.buckets) == (2, 0, {0: 2})


def test_a_time_that_a_sender_invents_does_not_make_the_answer_invalid() -> None:
    meter = MemoryMeter()
    meter.observe(START_DELAY_SECONDS, ("a", "1", "job", ""), 1e15)
    meter.observe_many(START_DELAY_SECONDS, ("a", "1", "job", ""), [1e15, 1.0], at=1)
    (series,) = meter.snapshot()
    assert (series.count, series.max) == (3, MAX_SECONDS)


def test_labels_that_no_encoder_accepts_are_replaced_or_cut() -> None:
    meter = MemoryMeter()
    meter.count(HANDLED, handled("\ud800" + "x" * 1000))
    series = only(meter)
    assert series.labels["operation"] == "?" + "x" * 99
    series.model_dump_json()


def test_ten_thousand_unknown_types_share_one_series_and_take_bounded_memory() -> None:
    meter = MemoryMeter()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for number in range(10_000):
        meter.count(HANDLED, handled(f"unknown.type{number}"))
        meter.observe(HANDLER_SECONDS, (f"unknown.type{number}", "1", "request", ""), 0.01, TRACE)
    used = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    series = meter.snapshot()
    shared = {each.name: each for each in series if each.labels["operation"] == OTHER}
    assert len(series) == 2 * (MAX_SERIES + 1)
    assert shared["messages.handled"].value == 10_000 - MAX_SERIES
    assert shared["messages.handler.duration"].count == 10_000 - MAX_SERIES
    assert set(shared["messages.handled"].labels.values()) == {OTHER}
    assert used < 1_500_000, f"{used} bytes"


def test_a_known_series_still_counts_after_the_limit() -> None:
    meter = MemoryMeter()
    for number in range(MAX_SERIES + 10):
        meter.count(HANDLED, handled(f"type{number}"))
    meter.count(HANDLED, handled("type0"))
    assert {each.labels["operation"]: each.value for each in meter.snapshot()}["type0"] == 2


def test_another_thread_can_take_snapshots_while_values_are_reported() -> None:
    clock = StoppedClock(NOW)
    meter = MemoryMeter(clock=clock)
    failures: list[BaseException] = []
    stop = threading.Event()

    def read() -> None:
        try:
            while not stop.is_set():
                meter.snapshot()
        except BaseException as error:  # noqa: BLE001 - the test fails with it
            failures.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(20_000):
        clock.now += 1
        meter.count(HANDLED, handled(f"type{number % 600}"))
        meter.observe(SEND_SECONDS, (f"type{number % 100}", "1", "job"), number / 1000, TRACE)
    stop.set()
    reader.join()
    assert failures == []
    assert sum(each.count for each in meter.snapshot()) == 20_000


def test_the_memory_meter_is_a_meter() -> None:
    meter: Meter = MemoryMeter()
    meter.count(READY, ())
