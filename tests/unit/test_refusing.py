from bus.transports.rabbitmq.refusing import LONGEST, SHORTEST, Patience, Verdicts


def kept(patience: Patience, verdicts: Verdicts, *, since: float) -> float | None:
    """For how many seconds a channel is kept that has nacked everything since then; None: for a minute at least."""
    verdicts.refuse(since)
    return next((half / 2 for half in range(121) if patience.is_over(verdicts, since + half / 2)), None)


def test_a_channel_that_nacks_everything_is_given_up_soon_and_each_further_one_after_twice_as_long() -> None:
    patience = Patience()
    assert [kept(patience, Verdicts(), since=100.0) for _ in range(7)] == [SHORTEST, 3, 6, 12, 24, LONGEST, LONGEST]


def test_after_an_ack_the_next_is_given_up_soon_again() -> None:
    patience, verdicts = Patience(), Verdicts()
    assert [kept(patience, Verdicts(), since=0.0) for _ in range(3)] == [SHORTEST, 3, 6]
    verdicts.accept()
    assert kept(patience, verdicts, since=50.0) == SHORTEST


def test_a_channel_that_takes_something_is_kept() -> None:
    patience, verdicts = Patience(), Verdicts()
    for second in range(60):
        verdicts.refuse(float(second))
        assert not patience.is_over(verdicts, second + 0.4)
        verdicts.accept()
        assert not patience.is_over(verdicts, second + 0.9)


def test_a_channel_on_which_nothing_is_published_is_kept() -> None:
    assert not any(Patience().is_over(Verdicts(), float(second)) for second in range(100))
