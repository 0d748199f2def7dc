"""Tests of the reader of queries, which the tests of examples/monitoring use."""

import pytest

from tests.promql import labels_of, selectors


@pytest.mark.parametrize(
    ("expr", "names"),
    [
        ("up == 0", ["up"]),
        ("sum by (service) (rate(a_total[5m])) / sum by (service) (b)", ["a_total", "b"]),
        ('x{le="1"} offset 10m unless y', ["x", "y"]),
        ("x unless x offset $__range", ["x", "x"]),
        ("a:b:rate5m > 14.4 * scalar(c:d:ratio)", ["a:b:rate5m", "c:d:ratio"]),
        ("1 * group by (v) (a) < on (s) group_left () max by (s) (b)", ["a", "b"]),
        ('label_replace(a{b="c"}, "service", "$1", "queue", "([^.]+)[.].+")', ["a"]),
        ('sum({__name__=~"a_.+"})', [""]),
    ],
)
def test_the_selectors_of_a_query_are_found(expr: str, names: list[str]) -> None:
    assert sorted(each.name for each in selectors(expr)) == sorted(names)


def test_the_labels_of_a_query_are_those_that_it_matches_and_groups_by() -> None:
    expr = 'sum by (service, le) (rate(a{kind="request",b!~"c|d"}[5m])) and on (job) {__name__="x"}'
    assert labels_of(expr) == {"service", "le", "kind", "b", "job"}
