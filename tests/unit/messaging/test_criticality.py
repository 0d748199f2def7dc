"""The criticality of a message: a header and a handled message can only lower it."""

from typing import Any, get_args

import pytest

from bus.contracts.criticality import Criticality
from bus.errors import InvalidArgument
from bus.messaging.context import Context, handling
from bus.messaging.criticality import criticality_header, criticality_of, lowered_criticality
from tests.unit.fakes import NoSender, envelope

ALL: tuple[Criticality, ...] = get_args(Criticality)


@pytest.mark.parametrize("own", ALL)
@pytest.mark.parametrize("stated", ALL)
def test_a_header_can_only_lower_the_criticality_of_the_contract(
    own: Criticality, stated: Criticality
) -> None:
    found = criticality_of(envelope(headers={"criticality": stated}), own)
    assert found == max(own, stated, key=ALL.index)


@pytest.mark.parametrize("header", ["", "CRITICAL", "important", 3, 10**9])
def test_an_unknown_header_is_ignored(header: Any) -> None:
    assert criticality_of(envelope(headers={"criticality": header}), "critical") == "critical"


def test_without_a_header_the_contract_counts() -> None:
    assert criticality_of(envelope(), "sheddable_plus") == "sheddable_plus"
    assert criticality_of(envelope(headers={"tenant": "a"}), "critical") == "critical"


@pytest.mark.parametrize("own", ALL)
@pytest.mark.parametrize("handled", [None, *ALL])
@pytest.mark.parametrize("limit", [None, *ALL])
def test_a_message_has_the_lowest_of_its_contract_the_handled_message_and_the_block(
    own: Criticality, handled: Criticality | None, limit: Criticality | None
) -> None:
    def header() -> Any:
        if limit is None:
            return criticality_header(own)
        with lowered_criticality(limit):
            return criticality_header(own)

    if handled is None:
        found = header()
    else:
        with handling(Context(envelope=envelope(), bus=NoSender(), criticality=handled)):
            found = header()
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
