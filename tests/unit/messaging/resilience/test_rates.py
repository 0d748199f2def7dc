"""Rate limits by key: each is bounded, and has no timer."""

from bus.messaging.resilience.rates import Rates


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_rate_permits_a_burst_and_then_refills() -> None:
    clock = Clock()
    rates = Rates(10, burst=10, max_keys=5, timer=clock)
    assert [rates.take("a") for _ in range(12)] == [True] * 10 + [False] * 2
    clock.now += 0.25
    assert [rates.take("a") for _ in range(4)] == [True, True, False, False]
    clock.now += 100
    assert [rates.take("a") for _ in range(11)] == [True] * 10 + [False]


def test_keys_have_rates_of_their_own() -> None:
    rates = Rates(10, burst=1, max_keys=5, timer=Clock())
    assert [rates.take(key) for key in "abab"] == [True, True, False, False]


def test_a_full_table_of_rates_refuses_new_keys_until_others_were_idle() -> None:
    clock = Clock()
    rates = Rates(10, burst=10, max_keys=1000, timer=clock)
    assert sum(rates.take(number) for number in range(5000)) == 1000
    assert len(rates) == 1000
    clock.now += 0.5
    assert not rates.take("new")
    clock.now += 2
    assert rates.take("new")
    assert len(rates) == 1
