"""The headers of a message that waits for a dependency."""

from typing import Any

import pytest

from bus.messaging.dependency_wait import (
    DEPENDENCY_FAILURES,
    DEPENDENCY_RETURNS,
    DEPENDENCY_WAIT,
    with_return,
    with_wait,
)
from bus.messaging.fault_record import FIRST_FAILED
from bus.runtime.inbound_message import InboundMessage
from tests.unit.fakes import FakeDelivery, envelope


def test_a_return_counts_itself_and_keeps_the_other_headers() -> None:
    first = with_return({"mine": "kept"}, waited=30, is_failure_counted=True)
    assert first == {DEPENDENCY_RETURNS: 1, DEPENDENCY_FAILURES: 1, "mine": "kept"}
    second = with_return(first, waited=30, is_failure_counted=False)
    assert second == {DEPENDENCY_RETURNS: 2, DEPENDENCY_FAILURES: 1, "mine": "kept"}
    assert next(iter(second)) == DEPENDENCY_RETURNS  # a reader cuts the last headers


def test_the_wait_is_added_up_only_after_the_first_failure() -> None:
    assert with_wait({}, 30) == {}
    failed = with_wait({FIRST_FAILED: 5}, 30)
    assert failed == {DEPENDENCY_WAIT: 30_000, FIRST_FAILED: 5}
    assert with_wait(failed, 1.5) == {DEPENDENCY_WAIT: 31_500, FIRST_FAILED: 5}
    assert with_wait(failed, 0) == failed


@pytest.mark.parametrize("invented", ["many", -1, 2**60, True])
def test_a_value_that_a_sender_has_invented_counts_as_zero(invented: Any) -> None:
    headers = with_return({DEPENDENCY_RETURNS: invented}, waited=0, is_failure_counted=False)
    assert headers == {DEPENDENCY_RETURNS: 1}


def test_a_returned_message_is_not_a_redelivery_of_the_message_before() -> None:
    keys = [
        InboundMessage(FakeDelivery(envelope(role="job", headers=headers))).key
        for headers in ({}, {DEPENDENCY_RETURNS: 1}, {DEPENDENCY_RETURNS: 2})
    ]
    assert len(set(keys)) == 3
    assert keys[1][3]  # so that measurements know that an attempt can have started before
