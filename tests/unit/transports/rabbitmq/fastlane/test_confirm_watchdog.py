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


def kept(watchdog: NackWatchdog, stats: ConfirmStats, *, since: float) -> float | None:
    """Return the seconds for which a channel with nothing but nacks is kept.

    None means at least a minute.

    Args:
        watchdog: Watchdog under test.
        stats: Statistics of the channel.
        since: Time of the first nack.
    """
    stats.refuse(since)
    return next((half / 2 for half in range(121) if watchdog.is_due(stats, since + half / 2)), None)


def test_a_channel_with_only_nacks_is_abandoned_and_the_next_one_after_twice_as_long() -> None:
    watchdog = NackWatchdog()
    assert [kept(watchdog, ConfirmStats(), since=100.0) for _ in range(7)] == [
        MIN_NACK_SECONDS,
        3,
        6,
        12,
        24,
        MAX_NACK_SECONDS,
        MAX_NACK_SECONDS,
    ]


def test_after_an_ack_the_next_is_given_up_soon_again() -> None:
    watchdog, stats = NackWatchdog(), ConfirmStats()
    assert [kept(watchdog, ConfirmStats(), since=0.0) for _ in range(3)] == [
        MIN_NACK_SECONDS,
        3,
        6,
    ]
    stats.accept()
    assert kept(watchdog, stats, since=50.0) == MIN_NACK_SECONDS


def test_a_channel_that_takes_something_is_kept() -> None:
    watchdog, stats = NackWatchdog(), ConfirmStats()
    for second in range(60):
        stats.refuse(float(second))
        assert not watchdog.is_due(stats, second + 0.4)
        stats.accept()
        assert not watchdog.is_due(stats, second + 0.9)


def test_a_channel_on_which_nothing_is_published_is_kept() -> None:
    assert not any(NackWatchdog().is_due(ConfirmStats(), float(second)) for second in range(100))


# --- Channels without acks and nacks ---


def borne(
    watchdog: ConfirmTimeoutWatchdog, stats: ConfirmStats, *, since: float = 0.0
) -> float | None:
    """Return the seconds for which a channel without acks and nacks is kept.

    None means at least two minutes.

    Args:
        watchdog: Watchdog under test.
        stats: Statistics of the channel.
        since: Time from which publishes are in flight.
    """
    return next(
        (half / 2 for half in range(241) if watchdog.is_due(stats, since + half / 2, waiting=True)),
        None,
    )


def test_a_new_silent_channel_is_abandoned_and_the_next_one_after_twice_as_long() -> None:
    watchdog = ConfirmTimeoutWatchdog()
    assert [borne(watchdog, ConfirmStats()) for _ in range(6)] == [
        NEW_CHANNEL_SILENT_SECONDS,
        8,
        16,
        32,
        MAX_SILENT_SECONDS,
        MAX_SILENT_SECONDS,
    ]


def test_a_channel_that_has_said_something_before_is_given_up_later() -> None:
    """The broker notifies the channel of a queue's new leader.

    After an ack or nack on its successor, the limit has its first value again.
    """
    watchdog, stats = ConfirmTimeoutWatchdog(), ConfirmStats()
    stats.accept()
    assert borne(watchdog, stats) == SILENT_SECONDS
    stats = ConfirmStats()
    stats.refuse(0.0)
    assert borne(watchdog, stats) == SILENT_SECONDS
    assert borne(watchdog, ConfirmStats()) == 2 * NEW_CHANNEL_SILENT_SECONDS


def test_a_channel_that_says_something_now_and_then_is_kept() -> None:
    watchdog, stats = ConfirmTimeoutWatchdog(), ConfirmStats()
    for second in range(120):
        assert not watchdog.is_due(stats, float(second), waiting=True)
        if second % 3 == 0:
            stats.accept()


def test_a_channel_on_which_nothing_is_under_way_or_that_an_alarm_holds_up_is_kept() -> None:
    watchdog = ConfirmTimeoutWatchdog()
    assert not any(
        watchdog.is_due(ConfirmStats(), float(second), waiting=False) for second in range(100)
    )
    assert borne(watchdog, ConfirmStats(), since=100.0) == NEW_CHANNEL_SILENT_SECONDS
