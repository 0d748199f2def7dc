"""Suggestions for mistyped names."""

from bus.contracts.similar_names import similar_names

NAMES = ["library.find.v1", "library.find.v2", "billing.quote.v1"]


def test_a_name_in_the_wrong_case_has_the_same_suggestions() -> None:
    assert similar_names("library.find", NAMES) == ["library.find.v1", "library.find.v2"]
    assert similar_names("LIBRARY.Find", NAMES) == ["library.find.v1", "library.find.v2"]
    assert similar_names("Billing.qoute.v1", NAMES) == ["billing.quote.v1"]
    assert similar_names("BUS_HEARTBAET", ["BUS_HEARTBEAT"]) == ["BUS_HEARTBEAT"]


def test_names_that_differ_only_in_case_are_all_suggested() -> None:
    assert similar_names("url", ["URL", "Url"]) == ["URL", "Url"]
