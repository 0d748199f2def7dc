from bus.transports.rabbitmq.fastlane.confirm_watchdog import (
    MAX_NACK_SECONDS,
    MAX_SILENT_SECONDS,
    MIN_NACK_SECONDS,
    NEW_CHANNEL_SILENT_SECONDS,
    SILENT_SECONDS,
    ConfirmStats,
    ConfirmTimeoutWatchdog,
    NackWatchdog,
)


def kept(giving_up: NackWatchdog, verdicts: ConfirmStats, *, since: float) -> float | None:
    """For how many seconds a channel is kept that has nacked everything since then; None: for a minute at least."""
    verdicts.refuse(since)
    return next(
        (half / 2 for half in range(121) if giving_up.is_due(verdicts, since + half / 2)), None
    )


def test_a_channel_that_nacks_everything_is_given_up_soon_and_each_further_one_after_twice_as_long() -> (
    None
):
    giving_up = NackWatchdog()
    assert [kept(giving_up, ConfirmStats(), since=100.0) for _ in range(7)] == [
        MIN_NACK_SECONDS,
        3,
        6,
        12,
        24,
        MAX_NACK_SECONDS,
        MAX_NACK_SECONDS,
    ]


def test_after_an_ack_the_next_is_given_up_soon_again() -> None:
    giving_up, verdicts = NackWatchdog(), ConfirmStats()
    assert [kept(giving_up, ConfirmStats(), since=0.0) for _ in range(3)] == [
        MIN_NACK_SECONDS,
        3,
        6,
    ]
    verdicts.accept()
    assert kept(giving_up, verdicts, since=50.0) == MIN_NACK_SECONDS


def test_a_channel_that_takes_something_is_kept() -> None:
    giving_up, verdicts = NackWatchdog(), ConfirmStats()
    for second in range(60):
        verdicts.refuse(float(second))
        assert not giving_up.is_due(verdicts, second + 0.4)
        verdicts.accept()
        assert not giving_up.is_due(verdicts, second + 0.9)


def test_a_channel_on_which_nothing_is_published_is_kept() -> None:
    assert not any(NackWatchdog().is_due(ConfirmStats(), float(second)) for second in range(100))


# --- one that says nothing -----------------------------------------------------------------------------------------


def borne(
    silence: ConfirmTimeoutWatchdog, verdicts: ConfirmStats, *, since: float = 0.0
) -> float | None:
    """For how many seconds a channel is kept that says nothing of what is under way since then; None: for two minutes at least."""
    return next(
        (
            half / 2
            for half in range(241)
            if silence.is_due(verdicts, since + half / 2, waiting=True)
        ),
        None,
    )


def test_a_new_channel_that_says_nothing_is_given_up_soon_and_each_further_one_after_twice_as_long() -> (
    None
):
    silence = ConfirmTimeoutWatchdog()
    assert [borne(silence, ConfirmStats()) for _ in range(6)] == [
        NEW_CHANNEL_SILENT_SECONDS,
        8,
        16,
        32,
        MAX_SILENT_SECONDS,
        MAX_SILENT_SECONDS,
    ]


def test_a_channel_that_has_said_something_before_is_given_up_later() -> None:
    """It hears of a queue's new leader by itself; and after a word of its successor the patience is what it was."""
    silence, verdicts = ConfirmTimeoutWatchdog(), ConfirmStats()
    verdicts.accept()
    assert borne(silence, verdicts) == SILENT_SECONDS
    verdicts = ConfirmStats()
    verdicts.refuse(0.0)
    assert borne(silence, verdicts) == SILENT_SECONDS
    assert borne(silence, ConfirmStats()) == 2 * NEW_CHANNEL_SILENT_SECONDS


def test_a_channel_that_says_something_now_and_then_is_kept() -> None:
    silence, verdicts = ConfirmTimeoutWatchdog(), ConfirmStats()
    for second in range(120):
        assert not silence.is_due(verdicts, float(second), waiting=True)
        if second % 3 == 0:
            verdicts.accept()


def test_a_channel_on_which_nothing_is_under_way_or_that_an_alarm_holds_up_is_kept() -> None:
    silence = ConfirmTimeoutWatchdog()
    assert not any(
        silence.is_due(ConfirmStats(), float(second), waiting=False) for second in range(100)
    )
    assert borne(silence, ConfirmStats(), since=100.0) == NEW_CHANNEL_SILENT_SECONDS
