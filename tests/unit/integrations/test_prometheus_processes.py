"""The sums over several processes, which restart, hang and report other labels."""

import os

import pytest
from prometheus_client.parser import text_string_to_metric_families

from bus.integrations.prometheus import ProcessesCollector, processes_registry
from bus.integrations.prometheus import processes as processes_module
from bus.integrations.prometheus.exposition import render
from bus.integrations.prometheus.totals import Totals
from bus.messaging.instruments import BREAKER_STATE, RETRY_BUDGET_TOKENS
from bus.messaging.service_info import InstanceStats, ProcessStats
from tests.unit.integrations.stats import durations, handled, number, ready, slots, stats

Values = dict[str, float]


class Family:
    """A parent of two processes, and the metrics that it shows."""

    def __init__(self) -> None:
        self.collector = ProcessesCollector(2)
        self.registry = processes_registry(self.collector)

    def scrape(self, *answers: bytes | None) -> Values:
        """Return the values by name, with the labels that the tests vary."""
        self.collector.update(answers)
        text = render(self.registry, "text").decode()
        return {
            "".join(
                [each.name, *(f" {each.labels[name]}" for name in VARIED if name in each.labels)]
            ): each.value
            for family in text_string_to_metric_families(text)
            for each in family.samples
        }


VARIED = ("state", "process", "caller")
HANDLED = "trunkline_messages_handled_total till"
COUNT = "trunkline_messages_handler_duration_seconds_count"
SLOTS = "trunkline_handler_slots"


def answer(*instances: InstanceStats, pid: int = 1) -> bytes:
    return ProcessStats(pid=pid, instances=instances).model_dump_json().encode()


def process(instance: str, handled_messages: float, *, is_ready: int = 1) -> bytes:
    series = (handled(handled_messages), durations(0.1, 0.2), slots(3), ready(is_ready))
    return answer(stats(*series, instance=instance))


def test_counters_histograms_and_slots_are_sums() -> None:
    found = Family().scrape(process("a", 5), process("b", 7))

    assert (found[HANDLED], found[COUNT], found[SLOTS]) == (12, 4, 6)


@pytest.mark.parametrize(("one", "other", "expected"), [(1, 1, 1), (1, 0, 0), (0, 0, 0)])
def test_the_processes_are_ready_if_each_of_them_is(one: int, other: int, expected: int) -> None:
    found = Family().scrape(process("a", 1, is_ready=one), process("b", 1, is_ready=other))

    assert found["trunkline_ready"] == expected


def test_a_counter_does_not_decrease_when_a_process_is_restarted() -> None:
    family = Family()
    seen = [
        family.scrape(process("a", 5), process("b", 7)),
        family.scrape(process("a", 6), None),  # b has ended
        family.scrape(process("a", 6), process("b2", 0)),
        family.scrape(process("a", 6), process("b2", 2)),
        family.scrape(None, process("b2", 2)),
        family.scrape(process("a2", 1), process("b3", 1)),
    ]

    assert [each[HANDLED] for each in seen] == [12, 13, 13, 15, 15, 17]
    assert [each[COUNT] for each in seen] == [4, 4, 6, 6, 6, 10]


def test_the_state_of_a_breaker_is_the_worst_of_the_processes() -> None:
    totals = Totals()
    for value in (0, 2, 1):
        state = number(BREAKER_STATE, value, name="billing.quote.v1", kind="call")
        totals.add(stats(state), ("library",))
    ((labels, total),) = totals.rows(BREAKER_STATE)
    assert (labels, total.value) == (("library", "billing.quote.v1", "call"), 2)


def test_breakers_above_the_number_of_series_share_the_worst_state() -> None:
    totals = Totals(max_series=1)
    for name in "abc":
        totals.add(stats(number(BREAKER_STATE, 2, name=name, kind="call")), ("library",))
    assert [total.value for _, total in totals.rows(BREAKER_STATE)] == [2, 2]


def test_the_tokens_for_retries_are_those_of_the_process_with_the_fewest() -> None:
    totals = Totals()
    for value in (9, 0.5, 3):
        tokens = number(RETRY_BUDGET_TOKENS, value, destination="billing")
        totals.add(stats(tokens), ("library",))
    ((_, total),) = totals.rows(RETRY_BUDGET_TOKENS)
    assert total.value == 0.5


def test_a_process_without_an_answer_has_no_gauges_and_is_not_ready() -> None:
    family = Family()
    family.scrape(process("a", 5), process("b", 7))
    found = family.scrape(process("a", 5), None)

    assert (found[SLOTS], found["trunkline_ready"]) == (3, 0)
    assert found["trunkline_processes answering"] == 1
    assert found["trunkline_processes silent"] == 1


def test_processes_that_have_never_answered_are_counted() -> None:
    found = Family().scrape(None, None)

    assert found["trunkline_processes silent"] == 2
    assert "trunkline_ready" not in found


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"pid": "x"}', b"\xff"])
def test_an_answer_that_is_not_a_report_is_no_answer(content: bytes) -> None:
    family = Family()
    family.scrape(process("a", 5), process("b", 7))
    found = family.scrape(process("a", 5), content)

    assert found[HANDLED] == 12
    assert found["trunkline_processes silent"] == 1


def test_each_service_of_the_processes_has_its_own_sums() -> None:
    both = answer(stats(handled(1), instance="a"), stats(handled(10), service="till", instance="b"))
    family = Family()
    family.collector.update([both, both])
    text = render(family.registry, "text").decode()
    found = {
        each.labels["service"]: each.value
        for metric in text_string_to_metric_families(text)
        for each in metric.samples
        if each.name == "trunkline_messages_handled_total"
    }

    assert found == {"library": 2, "till": 20}


def test_the_resources_of_each_process_have_its_number_and_are_not_added() -> None:
    mine = answer(stats(), pid=os.getpid())
    found = Family().scrape(mine, mine)

    memory = [found[f"process_resident_memory_bytes {number}"] for number in (1, 2)]
    assert memory[0] > 1_000_000
    assert "process_resident_memory_bytes" not in found


def test_a_process_that_has_just_ended_has_no_resources() -> None:
    found = Family().scrape(answer(stats(), pid=2**22 + 1), None)

    assert not [name for name in found if name.startswith("process_")]


def test_the_memory_for_ended_processes_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes_module, "MAX_RETIRED_SERIES", 10)
    family = Family()
    total, found = 0.0, Values()
    for run in range(20):
        report = stats(
            *(handled(1, caller=f"{run}-{number}") for number in range(5)), instance=str(run)
        )
        found = family.scrape(answer(report), None)
        counted = sum(value for name, value in found.items() if name.startswith("trunkline_mess"))
        assert counted >= total
        total = counted

    assert total == 100
    assert len([name for name in found if name.startswith("trunkline_messages_handled")]) <= 16
    assert found["trunkline_messages_handled_total other"] == 85
