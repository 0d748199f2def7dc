"""Abbreviated ids and types in the commands of `bus dead`."""

import pytest

from bus.cli.dead.abbreviations import complete
from bus.errors import InvalidArgument
from bus.messaging.fault_record import FaultRecord
from bus.operations.dead_letters import BrowseResult, DeadLetter, ObservedValues, Selection
from tests.unit.fakes import envelope

FIRST = "1bca7969-65da-4741-9053-a6d7357cb8dc"
SECOND = "1bca7a00-6317-41c6-8d6f-706ff91cfd5a"
QUEUE = "library.jobs.scan.v1.dead"


def letter(id_: str, type_: str = "library.scan.v1", source: str = "desk") -> DeadLetter:
    sent = envelope(type_, role="job", id=id_, source=source, correlation_id=f"c-{id_}")
    return DeadLetter(
        envelope=sent, record=FaultRecord(by="worker", code="internal"), dead_queue=QUEUE
    )


def scanned(*letters: DeadLetter, not_scanned: int = 0) -> BrowseResult:
    return BrowseResult(
        letters=letters, matching=len(letters), not_scanned=not_scanned, seen=ObservedValues()
    )


def completed(given: str, *letters: DeadLetter, not_scanned: int = 0) -> set[str]:
    selection = Selection(ids=frozenset({given}))
    return {*complete(selection, scanned(*letters, not_scanned=not_scanned)).ids}


def test_the_beginning_of_an_id_selects_one_message_and_the_full_id_is_printed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert completed("1bca79", letter(FIRST), letter(SECOND)) == {FIRST}
    assert capsys.readouterr().err == f"id '1bca79' is {FIRST}\n"


def test_a_message_that_is_in_two_queues_is_one_message() -> None:
    assert completed("1bca", letter(FIRST), letter(FIRST)) == {FIRST}


def test_an_ambiguous_id_is_refused_with_the_candidates() -> None:
    with pytest.raises(
        InvalidArgument, match=rf"'1bca7' is ambiguous: {FIRST}, {SECOND}\. Write more characters\."
    ):
        completed("1bca7", letter(FIRST), letter(SECOND))


def test_the_error_about_an_ambiguous_id_shows_at_most_five_candidates() -> None:
    letters = [letter(f"m-{number:04}") for number in range(9)]
    with pytest.raises(InvalidArgument, match=r"m-0000, .*, m-0004 and 4 more\. Write"):
        completed("m-00", *letters)


def test_an_id_that_two_senders_use_is_ambiguous_if_it_is_abbreviated() -> None:
    both = letter(FIRST), letter(FIRST, source="thief")
    with pytest.raises(InvalidArgument, match=rf"{FIRST} from desk, {FIRST} from thief"):
        completed("1bca", *both)
    assert completed(FIRST, *both) == {FIRST}


def test_an_id_is_refused_if_it_is_shorter_than_four_characters() -> None:
    with pytest.raises(InvalidArgument, match=r"'1bc' is too short\. Write at least 4 characters"):
        completed("1bc", letter(FIRST))


def test_a_full_id_is_never_taken_for_the_beginning_of_another() -> None:
    assert completed("m-10", letter("m-10"), letter("m-100"), not_scanned=5) == {"m-10"}
    assert completed("m-1", letter("m-1"), letter("m-10")) == {"m-1"}


def test_an_id_is_not_completed_before_all_dead_letters_are_scanned() -> None:
    with pytest.raises(InvalidArgument, match=r"because 5 more dead letters were not scanned"):
        completed("1bca79", letter(FIRST), not_scanned=5)


def test_an_id_without_a_match_stays_as_it_is() -> None:
    assert completed("9cbb", letter(FIRST)) == {"9cbb"}


def test_a_correlation_id_can_be_abbreviated() -> None:
    result = scanned(letter(FIRST), letter(SECOND))
    assert complete(Selection(correlation_id="c-1bca79"), result).correlation_id == f"c-{FIRST}"
    with pytest.raises(InvalidArgument, match="correlation id 'c-1bca' is ambiguous"):
        complete(Selection(correlation_id="c-1bca"), result)


def test_the_only_version_of_a_type_may_be_left_out() -> None:
    one, two = letter("a", "library.scan.v1"), letter("b", "library.scan.v2")
    other = letter("c", "library.scanned.v1")
    selection = Selection(types=frozenset({"library.scan"}))
    assert complete(selection, scanned(one, other)).types == {"library.scan.v1"}
    with pytest.raises(InvalidArgument, match=r"versions .*: library.scan.v1, library.scan.v2\."):
        complete(selection, scanned(one, two, other))
    assert complete(selection, scanned(other)).types == {"library.scan"}
