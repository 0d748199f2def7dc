"""The criticality of a message: a header and a handled message can only lower it."""

from contextlib import ExitStack
from itertools import product
from typing import Any, get_args

import pytest

from bus.contracts.criticality import Criticality
from bus.errors import InvalidArgument
from bus.messaging.context import Context, handling
from bus.messaging.criticality import criticality_header, criticality_of, lowered_criticality
from tests.unit.fakes import NoSender, envelope

ALL: tuple[Criticality, ...] = get_args(Criticality)


def test_a_header_can_only_lower_the_criticality_of_the_contract() -> None:
    for own, stated in product(ALL, ALL):
        found = criticality_of(envelope(headers={"criticality": stated}), own)
        assert found == max(own, stated, key=ALL.index)


@pytest.mark.parametrize("header", ["", "CRITICAL", "important", 3, 10**9])
def test_an_unknown_header_is_ignored(header: Any) -> None:
    assert criticality_of(envelope(headers={"criticality": header}), "critical") == "critical"


def test_without_a_header_the_contract_counts() -> None:
    assert criticality_of(envelope(), "sheddable_plus") == "sheddable_plus"
    assert criticality_of(envelope(headers={"tenant": "a"}), "critical") == "critical"


@pytest.mark.parametrize("handled", [None, *ALL])
def test_a_message_has_the_lowest_of_its_contract_the_handled_message_and_the_block(
    handled: Criticality | None,
) -> None:
    context = Context(envelope=envelope(), bus=NoSender(), criticality=handled)
    for own, limit in product(ALL, (None, *ALL)):
        with ExitStack() as stack:
            if handled is not None:
                stack.enter_context(handling(context))
            if limit is not None:
                stack.enter_context(lowered_criticality(limit))
            found = criticality_header(own)
        lowest = max((each for each in (own, handled, limit) if each), key=ALL.index)
        assert found == ({} if lowest == own else {"criticality": lowest})


def test_an_inner_block_cannot_raise_the_criticality_again() -> None:
    with lowered_criticality("sheddable"):
        with lowered_criticality("critical"):
            assert criticality_header("critical") == {"criticality": "sheddable"}
        assert criticality_header("critical") == {"criticality": "sheddable"}
    assert criticality_header("critical") == {}


@pytest.mark.parametrize("value", ["urgent", None, 1, ["critical"]])
def test_a_block_with_an_unknown_criticality_is_refused(value: Any) -> None:
    text = "the criticality must be one of 'critical_plus', 'critical', 'sheddable_plus'"
    with pytest.raises(InvalidArgument, match=text), lowered_criticality(value):
        pass
