from bus.transports.rabbitmq.fastlane.confirm_watchdog import (
    LONGEST,
    LONGEST_SILENT,
    SHORTEST,
    SILENT,
    SILENT_AT_FIRST,
    GivingUp,
    Silence,
    Verdicts,
)


def kept(giving_up: GivingUp, verdicts: Verdicts, *, since: float) -> float | None:
    """For how many seconds a channel is kept that has nacked everything since then; None: for a minute at least."""
    verdicts.refuse(since)
    return next((half / 2 for half in range(121) if giving_up.is_due(verdicts, since + half / 2)), None)


def test_a_channel_that_nacks_everything_is_given_up_soon_and_each_further_one_after_twice_as_long() -> None:
    giving_up = GivingUp()
    assert [kept(giving_up, Verdicts(), since=100.0) for _ in range(7)] == [SHORTEST, 3, 6, 12, 24, LONGEST, LONGEST]


def test_after_an_ack_the_next_is_given_up_soon_again() -> None:
    giving_up, verdicts = GivingUp(), Verdicts()
    assert [kept(giving_up, Verdicts(), since=0.0) for _ in range(3)] == [SHORTEST, 3, 6]
    verdicts.accept()
    assert kept(giving_up, verdicts, since=50.0) == SHORTEST


def test_a_channel_that_takes_something_is_kept() -> None:
    giving_up, verdicts = GivingUp(), Verdicts()
    for second in range(60):
        verdicts.refuse(float(second))
        assert not giving_up.is_due(verdicts, second + 0.4)
        verdicts.accept()
        assert not giving_up.is_due(verdicts, second + 0.9)


def test_a_channel_on_which_nothing_is_published_is_kept() -> None:
    assert not any(GivingUp().is_due(Verdicts(), float(second)) for second in range(100))


# --- one that says nothing -----------------------------------------------------------------------------------------


def borne(silence: Silence, verdicts: Verdicts, *, since: float = 0.0) -> float | None:
    """For how many seconds a channel is kept that says nothing of what is under way since then; None: for two minutes at least."""
    return next((half / 2 for half in range(241) if silence.is_due(verdicts, since + half / 2, waiting=True)), None)


def test_a_new_channel_that_says_nothing_is_given_up_soon_and_each_further_one_after_twice_as_long() -> None:
    silence = Silence()
    assert [borne(silence, Verdicts()) for _ in range(6)] == [SILENT_AT_FIRST, 8, 16, 32, LONGEST_SILENT, LONGEST_SILENT]


def test_a_channel_that_has_said_something_before_is_given_up_later() -> None:
    """It hears of a queue's new leader by itself; and after a word of its successor the patience is what it was."""
    silence, verdicts = Silence(), Verdicts()
    verdicts.accept()
    assert borne(silence, verdicts) == SILENT
    verdicts = Verdicts()
    verdicts.refuse(0.0)
    assert borne(silence, verdicts) == SILENT
    assert borne(silence, Verdicts()) == 2 * SILENT_AT_FIRST


def test_a_channel_that_says_something_now_and_then_is_kept() -> None:
    silence, verdicts = Silence(), Verdicts()
    for second in range(120):
        assert not silence.is_due(verdicts, float(second), waiting=True)
        if second % 3 == 0:
            verdicts.accept()


def test_a_channel_on_which_nothing_is_under_way_or_that_an_alarm_holds_up_is_kept() -> None:
    silence = Silence()
    assert not any(silence.is_due(Verdicts(), float(second), waiting=False) for second in range(100))
    assert borne(silence, Verdicts(), since=100.0) == SILENT_AT_FIRST
