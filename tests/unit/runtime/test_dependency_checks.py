"""The dependency of a handler is checked when the module of the handler is imported."""

from typing import Any

import pytest

from bus import Dependency, Router
from bus.errors import ContractError
from tests.unit.ledger import BooksClosed, CloseBooks, GetTotal, Total


class EhrDown(Exception):
    """The dependency of these tests is down."""


EHR = Dependency(name="ehr", failures=(EhrDown,))


async def close(_job: CloseBooks) -> Total:
    return Total(total=1)


async def note(_event: BooksClosed) -> None: ...


async def get(_request: GetTotal) -> Total:
    return Total(total=1)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"dependency": "ehr"}, "dependency requires failures"),
        ({"failures": (EhrDown,)}, "failures requires dependency"),
        (
            {"dependency": EHR, "failures": (EhrDown,)},
            "failures cannot be given beside",
        ),
        ({"dependency": "ehr", "failures": ()}, "failures must be a tuple of at least one"),
        ({"dependency": "ehr", "failures": (3,)}, "failures must contain only subclasses"),
        ({"dependency": "EHR", "failures": (EhrDown,)}, "is not a valid dependency name"),
        ({"dependency": 7, "failures": (EhrDown,)}, "dependency must be a name or a Dependency"),
    ],
)
@pytest.mark.parametrize("kind", ["job", "event", "request"])
def test_a_handler_refuses_a_dependency_that_is_not_complete(
    kind: str, options: dict[str, Any], problem: str
) -> None:
    model = {"job": CloseBooks, "event": BooksClosed, "request": GetTotal}[kind]
    with pytest.raises(ContractError) as refused:
        getattr(Router("ledger"), kind)(model, **options)
    assert problem in str(refused.value)
    assert str(refused.value).startswith("ledger.")


@pytest.mark.parametrize(
    ("other", "value"),
    [
        (Dependency(name="ehr", failures=(OSError,)), "failures"),
        (Dependency(name="ehr", failures=(EhrDown,), consecutive_failures=9), "consecutive_fail"),
        (Dependency(name="ehr", failures=(EhrDown,), probe_interval=9), "probe_interval"),
    ],
)
def test_two_handlers_refuse_different_values_of_one_dependency(
    other: Dependency, value: str
) -> None:
    router = Router("ledger")
    router.job(CloseBooks, dependency=EHR)(close)
    with pytest.raises(ContractError) as refused:
        router.event(BooksClosed, dependency=other)(note)
    assert f"the dependency 'ehr' has another value of {value}" in str(refused.value)
    assert "Write one Dependency, and pass it to both." in str(refused.value)


def test_two_handlers_share_a_dependency_with_equal_values() -> None:
    router = Router("ledger")
    router.job(CloseBooks, dependency=EHR)(close)
    router.event(BooksClosed, dependency="ehr", failures=(EhrDown,))(note)
    router.request(GetTotal, dependency=Dependency(name="crm", failures=(OSError,)))(get)
    assert len(router.endpoints) == 3


def test_an_included_router_refuses_other_values_of_a_dependency() -> None:
    router, part = Router("ledger"), Router("ledger")
    router.job(CloseBooks, dependency=EHR)(close)
    part.event(BooksClosed, dependency="ehr", failures=(OSError,))(note)
    with pytest.raises(ContractError, match="has another value of failures"):
        router.include(part)


@pytest.mark.parametrize(
    ("interval", "tier"), [(1, "1s"), (4.9, "1s"), (10, "5s"), (30, "30s"), (3600, "1h")]
)
def test_messages_wait_for_a_dependency_in_the_longest_tier_within_the_interval(
    interval: float, tier: str
) -> None:
    router = Router("ledger")
    slow = Dependency(name="ehr", failures=(EhrDown,), probe_interval=interval)
    router.job(CloseBooks, dependency=slow)(close)
    router.request(GetTotal, dependency=slow)(get)
    job, request = router.endpoints.values()
    assert (job.dependency_tier, request.dependency_tier) == (tier, None)
    assert (tier in job.tiers(), request.tiers()) == (True, ())
