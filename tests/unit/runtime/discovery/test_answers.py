"""The bodies of answers: they fit, and INFO is built once."""

import json

import pytest
from pydantic import ValidationError

from bus.messaging.chaos_info import InstanceChaos
from bus.messaging.control import FindMessages, GetBreakers, GetInfo, GetStats
from bus.messaging.policy_info import BreakerInfo, InstanceBreakers
from bus.messaging.service_info import (
    InstanceInfo,
    InstanceState,
    InstanceStats,
    RememberedMessage,
    RememberedMessages,
    Series,
)
from bus.runtime.discovery.answers import AnswerBodies, encode_record

STATE = InstanceState(service="ledger", instance="1", started=1, state="ready")


class ReportOfMany:
    """A report with many entries, which counts the builds of INFO and of STATS."""

    def __init__(self) -> None:
        self.now = STATE
        self.built, self.counted = 0, 0
        self.seconds, self.stats_take = 0.0, 0.0

    def state(self) -> InstanceState:
        return self.now

    def info(self) -> InstanceInfo:
        self.built += 1
        return InstanceInfo(**self.now.model_dump(), bus_version="1", python_version="3")

    def stats(self) -> InstanceStats:
        self.seconds += self.stats_take
        self.counted += 1
        series = tuple(
            Series(name="x" * 50 + str(each % 2), labels={"n": str(each)}) for each in range(1000)
        )
        return InstanceStats(**STATE.model_dump(), since=1, series=series)

    def breakers(self) -> InstanceBreakers:
        info = BreakerInfo(name="a.b.v1", kind="call", state="closed", since=1)
        return InstanceBreakers(**STATE.model_dump(), breakers=(info,) * 1000)

    def chaos(self) -> InstanceChaos:
        return InstanceChaos(**STATE.model_dump())

    def find(self, correlation_id: str) -> RememberedMessages:
        messages = tuple(
            RememberedMessage(action="sent", id=correlation_id, type="a", source="b", at=each)
            for each in range(1000)
        )
        return RememberedMessages(**STATE.model_dump(), since=1, messages=messages)


def test_an_answer_that_is_too_large_is_cut_and_says_how_many_entries_it_left_out() -> None:
    bodies = AnswerBodies(ReportOfMany(), 8192)
    for question, field in (
        (GetStats(), "series"),
        (FindMessages(correlation_id="c"), "messages"),
        (GetBreakers(), "breakers"),
    ):
        body = bodies.body_of(question)
        answer = json.loads(body)
        assert 4096 < len(body) <= 8192
        assert 0 < len(answer[field]) < 1000
        assert answer["left_out"] == 1000 - len(answer[field])


def test_an_answer_that_fits_is_whole() -> None:
    answer = json.loads(AnswerBodies(ReportOfMany(), 2**20).body_of(GetStats()))
    assert (len(answer["series"]), answer["left_out"]) == (1000, 0)


def test_an_answer_whose_first_entry_is_too_large_has_no_entries() -> None:
    record = InstanceStats(
        **STATE.model_dump(), since=1, series=(Series(name="x", labels={"n": "x" * 9000}),)
    )
    answer = json.loads(encode_record(record, 4096))
    assert (answer["series"], answer["left_out"]) == ([], 1)


def test_slow_answers_to_stats_take_a_tenth_of_the_time() -> None:
    report = ReportOfMany()
    report.stats_take = 0.1
    bodies = AnswerBodies(report, 2**20, timer=lambda: report.seconds)
    for _ in range(100):
        bodies.body_of(GetStats())
        report.seconds += 0.1
    assert report.counted <= 0.11 * report.seconds / report.stats_take
    assert report.counted >= 10
    report.now = STATE.model_copy(update={"state": "draining"})
    counted = report.counted
    bodies.body_of(GetStats())
    assert report.counted == counted + 1  # a new state is reported at once


def test_quick_answers_to_stats_are_never_old() -> None:
    report = ReportOfMany()
    bodies = AnswerBodies(report, 2**20, timer=lambda: report.seconds)
    for _ in range(3):
        bodies.body_of(GetStats())
    assert report.counted == 3


def test_the_answer_to_info_is_built_again_only_after_a_change() -> None:
    report = ReportOfMany()
    bodies = AnswerBodies(report, 2**20)
    first = [bodies.body_of(GetInfo()) for _ in range(5)]
    assert (len(set(first)), report.built) == (1, 1)
    report.now = STATE.model_copy(update={"state": "draining"})
    assert json.loads(bodies.body_of(GetInfo()))["state"] == "draining"
    bodies.forget_info()
    bodies.body_of(GetInfo())
    assert report.built == 3


@pytest.mark.parametrize("number", ["Infinity", "-Infinity", "NaN"])
def test_an_answer_with_a_number_that_is_not_finite_is_malformed(number: str) -> None:
    body = f'{{"name": "messages.sent", "value": {number}}}'
    with pytest.raises(ValidationError, match="finite number"):
        Series.model_validate_json(body)
