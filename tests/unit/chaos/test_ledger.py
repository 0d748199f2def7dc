"""The ledger of the chaos campaigns. If it missed a lost message, every campaign would pass."""

from pathlib import Path

from tests.chaos.journal import (
    ACKED,
    DELIVERED,
    EFFECT,
    FAILED,
    SENT,
    UNKNOWN,
    Entry,
    Journal,
    Tail,
)
from tests.chaos.ledger import Ledger, Verdict, judged


def entry(mark: str, number: int, detail: str = "", at: float = 0.0) -> Entry:
    return Entry(mark, number, at, 1, detail)


def verdict(*entries: Entry, dead: frozenset[int] = frozenset()) -> Verdict:
    """Return the verdict on entries of the senders and of the workers."""
    senders = {SENT, ACKED, FAILED, UNKNOWN}
    sends = [each for each in entries if each.mark in senders]
    return judged(
        Ledger(sends=sends, work=[each for each in entries if each.mark not in senders], dead=dead)
    )


def test_what_was_acked_and_done_is_all_right() -> None:
    found = verdict(
        entry(SENT, 1, "a"), entry(ACKED, 1), entry(DELIVERED, 1, "a 1"), entry(EFFECT, 1, "a 1")
    )
    assert (found.lost, found.unexpected, found.duplicate_effects) == ((), (), 0)


def test_what_was_acked_and_never_done_is_lost() -> None:
    assert verdict(entry(SENT, 1, "a"), entry(ACKED, 1)).lost == (1,)


def test_what_lies_in_a_dead_letter_queue_is_not_lost() -> None:
    assert verdict(entry(SENT, 1, "a"), entry(ACKED, 1), dead=frozenset({1})).lost == ()


def test_what_nobody_was_promised_cannot_be_lost() -> None:
    found = verdict(entry(SENT, 1, "a"), entry(UNKNOWN, 1), entry(SENT, 2, "b"), entry(FAILED, 2))
    assert (found.lost, found.unknown, found.failed) == ((), 1, 1)


def test_a_send_without_an_outcome_is_unknown() -> None:
    assert verdict(entry(SENT, 1, "a")).unknown == 1


def test_an_effect_of_what_was_never_sent_is_unexpected() -> None:
    assert verdict(entry(EFFECT, 9, "z 1")).unexpected == (9,)


def test_an_effect_of_a_send_that_surely_failed_is_unexpected() -> None:
    assert verdict(entry(SENT, 1, "a"), entry(FAILED, 1), entry(EFFECT, 1, "a 1")).unexpected == (
        1,
    )


def test_an_effect_of_an_unknown_send_is_not() -> None:
    assert verdict(entry(SENT, 1, "a"), entry(UNKNOWN, 1), entry(EFFECT, 1, "a 1")).unexpected == ()


def test_a_message_that_comes_under_another_id_is_unexpected() -> None:
    assert verdict(
        entry(SENT, 1, "a"), entry(ACKED, 1), entry(DELIVERED, 1, "b 1"), entry(EFFECT, 1, "b 1")
    ).unexpected == (1,)


def test_a_second_effect_is_counted_and_an_attempt_is_no_second_delivery() -> None:
    found = verdict(
        entry(SENT, 1, "a"), entry(ACKED, 1),
        entry(DELIVERED, 1, "a 1"), entry(DELIVERED, 1, "a 2"), entry(EFFECT, 1, "a 2"),
        entry(DELIVERED, 1, "a 2"), entry(EFFECT, 1, "a 2"),
    )  # fmt: skip
    assert (found.duplicate_deliveries, found.duplicate_effects) == (1, 1)


def test_the_gap_is_the_longest_time_without_an_effect() -> None:
    assert (
        verdict(
            *(entry(EFFECT, number, at=at) for number, at in enumerate((1.0, 4.0, 2.0, 9.0)))
        ).gap
        == 5.0
    )


def test_a_journal_is_read_while_it_is_written(tmp_path: Path) -> None:
    journal, tail = Journal(tmp_path / "work"), Tail(tmp_path / "work")
    assert tail.news() == []
    journal.write(FAILED, 1, "two\nlines\tof it")
    (first,) = tail.news()
    assert (first.mark, first.number, first.detail) == (FAILED, 1, "two lines of it")
    with (tmp_path / "work").open("a") as half:
        half.write("sent\t2\t1.0")
    assert tail.news() == []
    with (tmp_path / "work").open("a") as rest:
        rest.write("\t7\ta\n")
    assert [(each.number, each.process) for each in tail.news()] == [(2, 7)]
    assert len(tail.entries) == 2
