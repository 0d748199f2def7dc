from bus.transports.rabbitmq.refusing import LONGEST, SHORTEST, GivingUp, Verdicts


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
