import dataclasses

import pytest

from benchmarks.store_rows import Measured, filters
from bus.messaging.jobs.records import JobFilter


@pytest.mark.parametrize("field", [each.name for each in dataclasses.fields(JobFilter)])
def test_each_filter_of_a_list_is_measured_among_a_million_jobs(field: str) -> None:
    empty = getattr(JobFilter(), field)
    assert any(getattr(each, field) != empty for each in filters(0).values())


def test_a_statement_that_is_too_slow_is_marked() -> None:
    assert Measured("claim", [1.0] * 99 + [60.0]).line().endswith("over the target")
    assert Measured("claim", [1.0] * 98 + [2.0, 3.0]).line().endswith("100 times")


def test_counts_have_no_target() -> None:
    assert not Measured("list", [60.0]).has_reached
    assert Measured("counts", [60.0]).has_reached
