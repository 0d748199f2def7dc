"""Problems that the policies of live instances show to an operator."""

from typing import Any

from bus.messaging import instruments
from bus.messaging.breaker_info import BreakerInfo
from bus.messaging.control import Answer
from bus.messaging.service_info import InstanceStats
from bus.runtime.discovery.live_view import LiveView
from bus.runtime.discovery.measurements import Measurement
from bus.runtime.discovery.operation_summary import summarize
from bus.runtime.discovery.service_summary import summarize_services
from tests.unit.runtime.discovery.records import SENT, called, counted, handler, rejected, stats


def breaker(name: str = "stock.find.v2", **fields: Any) -> BreakerInfo:
    values = {"kind": "call", "state": "open", "since": 1, "cause": "5 consecutive failures"}
    return BreakerInfo.model_validate({**values, "name": name, **fields})


def problems(*records: InstanceStats) -> list[str]:
    view = LiveView(clock=lambda: 0)
    view.add_round([Answer(record=record, seconds=0.1) for record in records], begun=0)
    (service,) = summarize_services(view.instances())
    return [each.text for each in service.problems]


def test_an_open_breaker_is_a_problem_with_its_cause_and_the_number_of_instances() -> None:
    later = breaker(since=2, cause="50% of 20 calls failed")
    assert problems(stats("a", breakers=[breaker()]), stats("b", breakers=[later]), stats("c")) == [
        (
            "stock.find.v2: the circuit breaker of 2 of 3 instances is open after 50% of 20 calls "
            "failed; run `bus breakers list`"
        )
    ]


def test_a_half_open_breaker_is_not_called_open_unless_another_instance_rejects_calls() -> None:
    idle = breaker(since=2, state="half-open", cause="50% of 20 calls failed")
    assert problems(stats("a", breakers=[idle])) == [
        (
            "stock.find.v2: the circuit breaker of 1 of 1 instance is half-open after 50% of 20 "
            "calls failed; run `bus breakers list`"
        )
    ]
    assert problems(stats("a", breakers=[idle]), stats("b", breakers=[breaker()])) == [
        (
            "stock.find.v2: the circuit breaker of 2 of 2 instances is open after 5 consecutive "
            "failures; run `bus breakers list`"
        )
    ]


def test_an_isolated_operation_shows_the_operator_the_end_and_the_reason() -> None:
    isolated = breaker(state="isolated", ordered_by="anna", until=3_600_000, reason="moving")
    assert problems(stats(breakers=[isolated])) == [
        (
            "stock.find.v2: isolated in 1 of 1 instance by anna until 01:00:00 UTC (moving); run "
            "`bus breakers list`"
        )
    ]


def test_an_isolated_dependency_is_not_called_down() -> None:
    isolated = breaker("ehr", kind="dependency", state="isolated", ordered_by="anna", reason="new")
    assert problems(stats(breakers=[isolated])) == [
        "the dependency ehr: isolated in 1 of 1 instance by anna (new); run `bus breakers list`"
    ]


def test_a_dependency_that_is_down_is_a_problem() -> None:
    down = breaker("ehr", kind="dependency", cause="5 consecutive failures (EhrDown)")
    assert problems(stats(breakers=[down])) == [
        (
            "the dependency ehr is down for 1 of 1 instance after 5 consecutive failures "
            "(EhrDown); run `bus breakers list`"
        )
    ]


def test_a_dependency_that_waits_for_a_message_was_down() -> None:
    tried = breaker("ehr", kind="dependency", state="half-open", since=9, cause="5 failures")
    waiting = (
        "the dependency ehr was down for 1 of 1 instance after 5 failures; the next message tries "
        "it; run `bus breakers list`"
    )
    assert problems(stats(breakers=[tried])) == [waiting]
    down = breaker("ehr", kind="dependency", cause="2 failures")
    assert problems(stats("a", breakers=[tried]), stats("b", breakers=[down])) == [
        "the dependency ehr is down for 2 of 2 instances after 2 failures; run `bus breakers list`"
    ]


def test_failed_probes_of_a_dependency_are_not_failures_of_the_operation() -> None:
    failed = counted(20, "internal")
    waiting, works = handler(pauses=["dependency:ehr"]), handler()
    assert problems(stats(handlers=[waiting], series=[failed])) == [
        "billing.get.v1: 1 of 1 consumers paused by dependency:ehr"
    ]
    assert problems(stats("a", handlers=[waiting]), stats("b", handlers=[works], series=[failed]))[
        -1
    ].endswith("100% of the attempts in the last 1 to 2 minutes failed")


def test_chaos_is_a_problem_until_it_ends() -> None:
    line = "billing.get: error=unavailable@5% (by anna, until 2026-11-30T16:00:00+00:00)"
    assert problems(stats("a", chaos=[line]), stats("b")) == [f"chaos in 1 of 2 instances: {line}"]
    assert problems(stats("a")) == []


def test_calls_that_a_policy_rejected_lately_are_a_problem() -> None:
    found = problems(
        stats("a", series=[rejected(30, "budget"), rejected(3, "breaker")]),
        stats("b", series=[rejected(2, "budget"), rejected(9, "bulkhead", recent=0)]),
    )
    assert found == [
        (
            "stock.find.v2: 32 retries were not sent in the last 1 to 2 minutes, because the retry "
            "budget has no token"
        )
    ]


def test_calls_that_nobody_answers_are_a_problem_although_the_caller_received_fallbacks() -> None:
    failed = counted(20, "unavailable", labels=SENT)
    assert problems(stats(series=[failed, called(instruments.FALLBACKS, 20)])) == [
        (
            "stock.find.v2: 20 of 20 calls in the last 1 to 2 minutes failed (unavailable); 20 of "
            "them received a fallback; run `bus services stock`"
        )
    ]
    late = counted(3, "deadline_exceeded", labels=SENT, latest=3)
    good = counted(1000, labels=SENT)
    assert problems(stats(series=[good, late])) == [
        (
            "stock.find.v2: 3 of 3 calls in the last 10 to 20 s failed (deadline_exceeded); run "
            "`bus services stock`"
        )
    ]


def test_fallbacks_alone_are_a_problem() -> None:
    refused = counted(33, "resource_exhausted", labels=SENT)
    found = problems(stats(series=[refused, called(instruments.FALLBACKS, 33)]))
    assert found == ["stock.find.v2: 33 calls in the last 1 to 2 minutes received a fallback"]


def test_calls_that_an_open_breaker_rejects_and_few_failed_calls_have_no_line_of_their_own() -> (
    None
):
    failed = counted(20, "unavailable", labels=SENT)
    (line,) = problems(stats(series=[failed], breakers=[breaker()]))
    assert "the circuit breaker of" in line
    idle = breaker(state="half-open")
    assert len(problems(stats(series=[failed], breakers=[idle]))) == 2
    few = [counted(100, labels=SENT), counted(2, "unavailable", labels=SENT, latest=2)]
    assert problems(stats(series=few)) == []
    refused = counted(20, "not_found", labels=SENT)
    assert problems(stats(series=[refused])) == []


def test_the_hedges_the_retries_and_the_fallbacks_of_calls_are_counted() -> None:
    series = [
        called(instruments.CALLS_HEDGED, 5),
        called(instruments.CALLS_RETRIED, 4),
        called(instruments.FALLBACKS, 3, recent=1),
        rejected(2, "budget", recent=0),
    ]
    (row,) = summarize([Measurement(stats=stats(series=series))]).sent
    assert (row.hedged, row.retried, row.fallbacks, row.recent_fallbacks) == (5, 4, 3, 1)
    assert (row.rejected, row.recently_rejected) == ({"budget": 2}, {})


def test_a_series_of_calls_is_no_operation_that_the_service_handles() -> None:
    retried = rejected(3, "budget").model_copy(update={"name": instruments.CALLS_RETRIED.name})
    found = summarize([Measurement(stats=stats(series=[retried, rejected(3, "budget")]))])
    assert [row.operation.type for row in found.handled] == []
    assert [row.operation.type for row in found.sent] == ["stock.find.v2"]
