from bus.transports.rabbitmq.fastlane.confirm_watchdog import (
    EXHAUSTED_SECONDS,
    MAX_NACK_SECONDS,
    MAX_SILENT_SECONDS,
    MIN_NACK_SECONDS,
    NEW_CHANNEL_SILENT_SECONDS,
    SILENT_SECONDS,
    ConfirmStats,
    ConfirmWatchdog,
)

UNCONFIRMED, NACKED = "the broker does not confirm messages", "the broker nacks every message"


def is_due(
    watchdog: ConfirmWatchdog,
    stats: ConfirmStats,
    now: float,
    *,
    waiting: bool = False,
    exhausted: bool = False,
) -> str | None:
    """Return the symptom for which the channel is replaced at one check."""
    stats.observe(now, waiting=waiting, exhausted=exhausted)
    return watchdog.due_symptom(stats, now)


def first_due(
    watchdog: ConfirmWatchdog,
    stats: ConfirmStats,
    *,
    since: float,
    waiting: bool = False,
    exhausted: bool = False,
) -> tuple[str, float] | None:
    """Return the symptom of a channel and the seconds until it is replaced for it.

    None means that it is kept for two minutes.

    Args:
        watchdog: Watchdog under test.
        stats: Statistics of the channel.
        since: Time of the first check, in seconds. Two checks are half a second apart.
        waiting: Publishes are in flight that only the broker delays.
        exhausted: Abandoned publishes take too many slots of the window.
    """
    for half in range(241):
        now = since + half / 2
        if symptom := is_due(watchdog, stats, now, waiting=waiting, exhausted=exhausted):
            return symptom, half / 2
    return None


# --- Channels on which the broker nacks every message ---


def kept_nacked(
    watchdog: ConfirmWatchdog, stats: ConfirmStats, *, since: float = 0.0
) -> float | None:
    """Return the seconds for which a channel is kept after a first nack."""
    stats.refuse(since)
    due = first_due(watchdog, stats, since=since)
    return due and (due[1] if due[0] == NACKED else None)


def test_a_channel_with_only_nacks_is_replaced_and_the_next_one_after_twice_as_long() -> None:
    watchdog = ConfirmWatchdog()
    assert [kept_nacked(watchdog, ConfirmStats(), since=100.0) for _ in range(7)] == [
        MIN_NACK_SECONDS,
        3,
        6,
        12,
        24,
        MAX_NACK_SECONDS,
        MAX_NACK_SECONDS,
    ]


def test_after_an_ack_a_channel_with_only_nacks_is_replaced_soon_again() -> None:
    watchdog, stats = ConfirmWatchdog(), ConfirmStats()
    assert [kept_nacked(watchdog, ConfirmStats()) for _ in range(3)] == [MIN_NACK_SECONDS, 3, 6]
    stats.accept()
    assert kept_nacked(watchdog, stats, since=50.0) == MIN_NACK_SECONDS
    assert kept_nacked(watchdog, ConfirmStats()) == 2 * MIN_NACK_SECONDS


def test_a_channel_with_an_ack_between_nacks_is_kept() -> None:
    watchdog, stats = ConfirmWatchdog(), ConfirmStats()
    for second in range(60):
        stats.refuse(float(second))
        assert not is_due(watchdog, stats, second + 0.4)
        stats.accept()
        assert not is_due(watchdog, stats, second + 0.9)


def test_a_channel_on_which_nothing_is_published_is_kept() -> None:
    assert first_due(ConfirmWatchdog(), ConfirmStats(), since=0.0) is None


# --- Channels without acks and nacks ---


def kept_silent(
    watchdog: ConfirmWatchdog, stats: ConfirmStats, *, since: float = 0.0
) -> float | None:
    """Return the seconds for which a channel with publishes in flight is kept."""
    due = first_due(watchdog, stats, since=since, waiting=True)
    return due and (due[1] if due[0] == UNCONFIRMED else None)


def test_a_new_silent_channel_is_replaced_and_the_next_one_after_twice_as_long() -> None:
    watchdog = ConfirmWatchdog()
    assert [kept_silent(watchdog, ConfirmStats()) for _ in range(6)] == [
        NEW_CHANNEL_SILENT_SECONDS,
        8,
        16,
        32,
        MAX_SILENT_SECONDS,
        MAX_SILENT_SECONDS,
    ]


def test_a_silent_channel_with_an_earlier_ack_or_nack_is_replaced_later() -> None:
    """The broker notifies such a channel of a queue's new leader.

    After an ack or nack on its successor, the limit has its first value again.
    """
    watchdog, stats = ConfirmWatchdog(), ConfirmStats()
    stats.accept()
    assert kept_silent(watchdog, stats) == SILENT_SECONDS
    stats = ConfirmStats()
    stats.accept()
    assert kept_silent(watchdog, stats) == SILENT_SECONDS
    assert kept_silent(watchdog, ConfirmStats()) == 2 * NEW_CHANNEL_SILENT_SECONDS


def test_a_channel_with_an_ack_now_and_then_is_kept() -> None:
    watchdog, stats = ConfirmWatchdog(), ConfirmStats()
    for second in range(120):
        assert not is_due(watchdog, stats, float(second), waiting=True)
        if second % 3 == 0:
            stats.accept()


def test_a_channel_without_publishes_in_flight_or_in_an_alarm_is_kept() -> None:
    watchdog, stats = ConfirmWatchdog(), ConfirmStats()
    assert first_due(watchdog, stats, since=0.0) is None
    assert kept_silent(watchdog, stats, since=200.0) == NEW_CHANNEL_SILENT_SECONDS


# --- Channels with an exhausted window ---


def test_channels_with_an_exhausted_window_are_all_replaced_after_the_same_time() -> None:
    watchdog = ConfirmWatchdog()
    assert [
        first_due(watchdog, ConfirmStats(), since=0.0, exhausted=True) for _ in range(4)
    ] == 4 * [(UNCONFIRMED, EXHAUSTED_SECONDS)]


def test_a_channel_whose_window_is_exhausted_for_a_moment_is_kept() -> None:
    watchdog, stats = ConfirmWatchdog(), ConfirmStats()
    for half in range(120):
        assert not is_due(watchdog, stats, half / 2, exhausted=half % 3 != 0)


def test_the_limit_of_one_symptom_does_not_change_the_limit_of_another() -> None:
    watchdog = ConfirmWatchdog()
    assert kept_nacked(watchdog, ConfirmStats()) == MIN_NACK_SECONDS
    assert first_due(watchdog, ConfirmStats(), since=0.0, exhausted=True) is not None
    assert kept_silent(watchdog, ConfirmStats()) == NEW_CHANNEL_SILENT_SECONDS
    assert kept_nacked(watchdog, ConfirmStats()) == 2 * MIN_NACK_SECONDS


def test_a_symptom_that_lasts_for_days_does_not_overflow_its_limit() -> None:
    watchdog = ConfirmWatchdog()
    for _ in range(1100):
        assert kept_nacked(watchdog, ConfirmStats()) is not None
        assert first_due(watchdog, ConfirmStats(), since=0.0, exhausted=True) is not None
    assert kept_silent(watchdog, ConfirmStats()) == NEW_CHANNEL_SILENT_SECONDS
    assert first_due(watchdog, ConfirmStats(), since=0.0) is None
