"""Summaries of the statistics of instances, by operation and by service."""

import pytest

from bus.messaging import instruments
from bus.messaging.control import Announcement, Answer
from bus.messaging.service_info import ErrorInfo, InstanceState, InstanceStats, Series
from bus.runtime.discovery.live_view import LiveInstance, LiveView
from bus.runtime.discovery.measurements import Measurement, Measurements, difference
from bus.runtime.discovery.operation_summary import OperationSummary, summarize
from bus.runtime.discovery.service_summary import ServiceSummary, summarize_services
from tests.unit.runtime.discovery.records import GET, SENT, counted, handler, stats, timed


def only(*instances: InstanceStats) -> OperationSummary:
    (row,) = summarize(Measurement(stats=each) for each in instances).handled
    return row


def live(*records: InstanceState) -> list[LiveInstance]:
    view = LiveView(clock=lambda: 0)
    view.add_round([Answer(record=record, seconds=0.1) for record in records], begun=0)
    return view.instances()


def summary(*records: InstanceState) -> ServiceSummary:
    (service,) = summarize_services(live(*records))
    return service


def test_an_operation_is_summed_over_instances() -> None:
    row = only(
        stats("a", series=[counted(3), counted(1, "internal"), timed(0.01, 0.02)]),
        stats("b", series=[counted(5), counted(2, "not_found", caller="app"), timed(0.5)]),
    )
    assert (row.operation.type, row.operation.service) == ("billing.get.v1", "billing")
    assert (row.count, row.failed) == (11, 3)
    assert row.errors == {"internal": 1, "not_found": 2}
    assert (row.durations.count, row.durations.max) == (3, 0.5)
    assert row.durations.quantile(1) == 0.5


def test_an_operation_without_messages_has_slots_and_no_durations() -> None:
    row = only(stats(handlers=[handler(slots=4, free=1, in_flight=3)]), stats("b"))
    assert (row.slots, row.free, row.in_flight, row.count) == (4, 1, 3, 0)
    assert row.durations.quantile(0.5) is None
    assert row.rate is None


def test_the_last_error_of_all_instances_is_the_newest() -> None:
    errors = [ErrorInfo(code=code, at=at) for code, at in (("internal", 10), ("unavailable", 20))]
    row = only(
        *(stats(error.code, handlers=[handler(last_error=error)]) for error in errors),
        stats("c", handlers=[handler()]),
    )
    assert row.last_error == ("unavailable", errors[1])


def test_sent_messages_retries_and_dead_letters_are_counted_apart() -> None:
    retried, dead = (
        counted(2, "internal").model_copy(update={"name": each.name})
        for each in (instruments.RETRIES, instruments.DEAD_LETTERS)
    )
    delays = timed(0.3, instrument=instruments.START_DELAY_SECONDS)
    calls = timed(0.04, instrument=instruments.SEND_SECONDS, labels=SENT)
    found = summarize(
        [Measurement(stats=stats(series=[retried, dead, delays, calls, counted(9, labels=SENT)]))]
    )
    (handled,), (sent,) = found.handled, found.sent
    assert (handled.count, handled.retried, handled.dead_lettered) == (0, 2, 2)
    assert (handled.delays.count, handled.durations.count) == (1, 0)
    assert (sent.operation.type, sent.count, sent.durations.count) == ("stock.find.v2", 9, 1)


@pytest.mark.parametrize(
    "series",
    [
        Series(name="a.newer.instrument", value=3),
        Series(name=instruments.HANDLED.name, value=3),
        Series(name=instruments.HANDLED.name, labels={"operation": "x", "kind": "shout"}),
        Series(name=instruments.READY.name, value=1),
    ],
)
def test_a_series_of_another_version_of_the_bus_is_ignored(series: Series) -> None:
    found = summarize([Measurement(stats=stats(series=[series]))])
    assert (list(found.handled), list(found.sent)) == ([], [])


@pytest.mark.parametrize("version", ["other", "", "9" * 5000, "٣"])
def test_a_version_that_is_not_a_number_is_shown_without_a_version(version: str) -> None:
    series = counted(3)
    row = only(
        stats(series=[series.model_copy(update={"labels": {**series.labels, "version": version}})])
    )
    assert (row.operation.type, row.count) == ("billing.get", 3)


def test_an_interval_has_the_difference_of_two_answers() -> None:
    before = stats(series=[counted(10), counted(4, "internal"), timed(2.0, 0.001)])
    after = stats(
        series=[
            counted(30),
            counted(5, "internal"),
            counted(1, "not_found"),
            timed(2.0, 0.001, 0.3),
        ]
    )
    (row,) = summarize([difference(before, after, 2.0)]).handled
    assert (row.count, row.rate, row.error_rate) == (22, 11, 1)
    assert row.errors == {"internal": 1, "not_found": 1}
    assert row.durations.count == 1
    assert row.durations.quantile(0.5) == pytest.approx(0.3, rel=0.27)
    assert row.durations.max == pytest.approx(0.3, rel=0.27)


def test_a_new_maximum_of_an_interval_is_exact() -> None:
    measured = difference(stats(series=[timed(0.1)]), stats(series=[timed(0.1, 0.33)]), 1)
    (row,) = summarize([measured]).handled
    assert row.durations.max == 0.33


def test_a_meter_that_began_again_has_no_negative_rate() -> None:
    measured = difference(
        stats(series=[counted(100), timed(0.1, 0.1)]), stats(series=[counted(7), timed(0.2)]), 2
    )
    (row,) = summarize([measured]).handled
    assert (row.rate, row.durations.count) == (3.5, 1)


def test_rates_of_instances_are_added() -> None:
    intervals = [
        difference(stats(name, series=[]), stats(name, series=[counted(10)]), seconds)
        for name, seconds in (("a", 1.0), ("b", 2.0))
    ]
    (row,) = summarize(intervals).handled
    assert row.rate == 15


def answered(
    record: InstanceStats, at: float, measurements: Measurements, view: LiveView
) -> Measurements:
    view.add_round([Answer(record=record, seconds=at)], begun=0)
    measurements.record(view.instances())
    return measurements


def test_measurements_have_an_interval_from_the_second_answer_of_a_process() -> None:
    measurements, view = Measurements(), LiveView(clock=lambda: 0)
    answered(stats(series=[counted(10)]), 1, measurements, view)
    assert (len(measurements.totals), measurements.intervals) == (1, [])
    answered(stats(series=[counted(30)]), 3, measurements, view)
    assert [each.seconds for each in measurements.intervals] == [2]
    answered(stats(series=[counted(5)], started=2), 5, measurements, view)
    assert (len(measurements.totals), measurements.intervals) == (1, [])


def test_measurements_forget_an_instance_that_is_gone() -> None:
    measurements, view = Measurements(), LiveView(clock=lambda: 0)
    answered(stats(), 1, measurements, view)
    measurements.record([])
    assert measurements.totals == []


def test_a_round_that_repeats_an_answer_keeps_the_interval() -> None:
    measurements, view = Measurements(), LiveView(clock=lambda: 0)
    answered(stats(series=[counted(10)]), 1, measurements, view)
    answered(stats(series=[counted(30)]), 3, measurements, view)
    measurements.record(view.instances())
    assert [each.seconds for each in measurements.intervals] == [2]


def test_a_service_is_summed_over_its_instances_and_operations() -> None:
    busy = handler(slots=4, free=1)
    job = handler(operation="billing.close", kind="job", slots=2, free=2)
    service = summary(
        stats("a", handlers=[busy, job], started=50, series=[counted(6), timed(0.1)]),
        stats("b", handlers=[busy], started=20, series=[counted(2, "not_found"), timed(0.2)]),
    )
    assert (service.name, service.state, service.versions) == ("billing", "ready", ["1.0"])
    assert (service.slots, service.used, service.started) == (10, 6, 20)
    assert (service.count, service.failed, service.durations.count) == (8, 2, 2)
    assert len(service.totals.handled) == 2


@pytest.mark.parametrize(
    ("records", "texts"),
    [
        ([stats()], []),
        ([stats(), stats("b", state="not-ready")], ["1 of 2 instances is not-ready"]),
        (
            [stats(state="draining"), stats("b", state="draining")],
            ["2 of 2 instances are draining"],
        ),
        (
            [stats(), stats("b", version="1.1"), stats("c", version=None)],
            ["instances run different versions: -, 1.0, 1.1"],
        ),
        (
            [
                stats(handlers=[handler(pauses=["poison-isolation"])]),
                stats("b", handlers=[handler()]),
            ],
            ["billing.get.v1: 1 of 2 consumers paused by poison-isolation"],
        ),
        (
            [stats(handlers=[handler(free=0, oldest_seconds=45, full_seconds=3)])],
            ["billing.get.v1: all 4 slots are in use by the same work for 3 s"],
        ),
        (
            [stats(series=[counted(90), counted(10, "internal")])],
            ["billing.get.v1: 10% of the attempts in the last 1 to 2 minutes failed"],
        ),
        ([stats(series=[counted(990), counted(10, "internal")])], []),
        ([stats(series=[counted(10), counted(90, "not_found")])], []),
    ],
)
def test_the_problems_of_a_service_are_named(
    records: list[InstanceStats], texts: list[str]
) -> None:
    assert [problem.text for problem in summary(*records).problems] == texts


def test_a_failing_operation_comes_before_a_full_and_a_slow_one() -> None:
    other = {**GET, "operation": "billing.find"}
    service = summary(
        stats(
            handlers=[handler(free=0, full_seconds=3)],
            series=[
                counted(9, labels=other),
                counted(1, "internal", labels=other),
                timed(*[0.7] * 20, earlier=[0.02] * 100),
            ],
        )
    )
    assert [each.code for each in service.problems] == ["failing", "full", "slow"]


def test_a_slow_caller_names_the_requests_that_it_waits_for() -> None:
    recent, earlier = [0.7] * 20, [0.02] * 100
    calls = timed(*recent, earlier=earlier, instrument=instruments.SEND_SECONDS, labels=SENT)
    service = summary(stats(series=[timed(*recent, earlier=earlier), calls]))
    (problem,) = service.problems
    assert problem.text == (
        "billing.get.v1: half of the recent attempts took 0.7 s or longer, before that 0.018 s; "
        "its service waits longer for stock.find.v2"
    )


def test_recent_attempts_are_counted_apart_from_those_since_the_start() -> None:
    service = summary(
        stats("a", series=[counted(8_000, recent=80), counted(30, "internal", recent=20)]),
        stats("b", series=[counted(10, "not_found", recent=0)]),
    )
    assert (service.count, service.failed) == (8_040, 40)
    assert (service.recent, service.recently_failed) == (100, 20)


def test_services_with_problems_come_first() -> None:
    records = [
        stats(service=name, state=state)
        for name, state in (("a", "ready"), ("b", "not-ready"), ("c", "ready"), ("d", "draining"))
    ]
    assert [each.name for each in summarize_services(live(*records))] == ["b", "d", "a", "c"]


def test_an_instance_that_stopped_answering_is_a_problem_and_a_clean_stop_is_not() -> None:
    view = LiveView(clock=lambda: 100)

    def ask(*names: str, begun: float) -> None:
        view.add_round([Answer(record=stats(name), seconds=0) for name in names], begun=begun)

    ask("a", "b", "c", begun=1)
    stop = stats("b").model_dump() | {"event": "stopping"}
    view.announce(Announcement.model_validate(stop))
    for begun in (101, 102, 103):
        ask("a", begun=begun)
    (service,) = summarize_services(view.instances())
    assert [each.text for each in service.problems] == ["1 of 2 instances no longer answer"]
    assert service.state == "ready"
