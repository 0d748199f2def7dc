"""The limits of the control channel: each is bounded, and has no timer."""

import logging

import pytest

from bus.runtime.discovery.limits import Refusals, SeenIds


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_ids_are_forgotten_only_after_their_end() -> None:
    clock = Clock()
    seen = SeenIds(2, clock=clock)
    assert [seen.add("a", 105), seen.add("b", 120), seen.add("c", 120)] == [True, True, False]
    clock.now = 110
    assert seen.add("c", 120)
    assert [each in seen for each in "abc"] == [False, True, True]


def test_refusals_of_many_names_keep_little_memory_and_log_no_more(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = Clock()
    refusals = Refusals("ledger", timer=clock)
    with caplog.at_level(logging.WARNING):
        for number in range(3000):
            refusals.record("not granted", "no right", f"service-{number}")
        assert len(caplog.records) == 1000
        clock.now += 61
        refusals.record("not granted", "no right", "another")
        assert len(caplog.records) == 1001
    assert refusals.counts == {"not granted": 3001}
    assert len(refusals._logged) == 1


def test_a_refusal_with_line_ends_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    Refusals("ledger", timer=Clock()).record("not proven", "a\nb", "x\ny")
    assert "\n" not in caplog.records[0].getMessage()
