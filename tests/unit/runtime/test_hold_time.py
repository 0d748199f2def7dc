"""The time for which a process holds a message while a dependency is down."""

import pytest

from bus import Dependency, Router
from bus.runtime.handler_timeouts import consumer_timeout_for, hold_seconds_for
from tests.unit.ledger import CloseBooks, Total


def router_of(timeout: float, *, interval: float = 30, named: bool = True) -> Router:
    router = Router("ledger")
    dependency = Dependency(name="ehr", failures=(OSError,), probe_interval=interval)

    @router.job(CloseBooks, timeout=timeout, dependency=dependency if named else None)
    async def close(_job: CloseBooks) -> Total:
        return Total(total=1)

    return router


@pytest.mark.parametrize(
    ("timeout", "interval", "is_requested", "seconds"),
    [
        (600, 30, False, 900),  # half of the consumer timeout
        (1200, 30, False, 510),  # the rest must be long enough for the handler and the settlement
        (1790, 30, False, 30),  # at least the interval
        (1790, 3600, False, 900),  # but never more than half
        (7200, 30, True, 900),  # the consumer requests a timeout that is long enough
    ],
)
def test_a_message_is_held_for_half_of_the_consumer_timeout_or_as_its_handler_permits(
    timeout: float, interval: float, is_requested: bool, seconds: float
) -> None:
    (endpoint,) = router_of(timeout, interval=interval).endpoints.values()
    assert hold_seconds_for(endpoint, 1800, is_requested=is_requested) == seconds


def test_the_requested_consumer_timeout_has_the_time_of_the_hold() -> None:
    plain, held = router_of(2000, named=False), router_of(2000)
    timeouts = []
    for router in (plain, held):
        (endpoint,) = router.endpoints.values()
        timeouts.append(consumer_timeout_for(endpoint, router, least=1800))
    assert timeouts == [2000 + 2000 + 90, 900 + 2000 + 2000 + 90]
