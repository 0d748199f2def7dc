"""Rights and kept replies: a reply is kept only for the rights with which it was requested."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from bus import Message, PermissionDenied, Request, Router, contract
from bus.testing import MemoryBuses, wall_clock
from tests.security.deployment import GRANTS, Deployment
from tests.security.test_buses import on_virtual_time

MINUTE = 60


class Rate(Message):
    number: int


@contract("ledger.rate", version=1, permission="ledger.total", idempotent=True, cache=3600)
class GetRate(Request[Rate]):
    pass


@pytest.fixture
def deployment(tmp_path: Path) -> Deployment:
    return Deployment(tmp_path)


async def office_of(buses: MemoryBuses, deployment: Deployment) -> tuple[Any, list[str]]:
    router, seen = Router("ledger"), list[str]()

    @router.request(GetRate)
    async def rate(_: GetRate) -> Rate:
        seen.append("request")
        return Rate(number=len(seen))

    await buses.serve(await buses.bus("ledger", **deployment.of("ledger")), router)
    return await buses.bus("office", **deployment.of("office")), seen


def test_a_service_that_lost_its_right_gets_no_kept_reply(deployment: Deployment) -> None:
    async def scene() -> None:
        async with MemoryBuses(clock=wall_clock) as buses:
            office, seen = await office_of(buses, deployment)
            for _ in range(3):
                assert (await office.request(GetRate(), timeout=5)).number == 1
            deployment.grants.write_text(GRANTS.replace('"ledger.total", ', ""))
            await asyncio.sleep(MINUTE)
            with pytest.raises(PermissionDenied, match=r"office has no right to call ledger\.tot"):
                await office.request(GetRate(), timeout=5)
            assert seen == ["request"]

    on_virtual_time(scene())


def test_a_service_with_other_rights_than_before_asks_again(deployment: Deployment) -> None:
    async def scene() -> None:
        async with MemoryBuses(clock=wall_clock) as buses:
            office, seen = await office_of(buses, deployment)
            assert (await office.request(GetRate(), timeout=5)).number == 1
            deployment.grants.write_text(GRANTS.replace('"ledger.close"', '"ledger.audit"'))
            await asyncio.sleep(MINUTE)
            assert (await office.request(GetRate(), timeout=5)).number == 2
            assert len(seen) == 2

    on_virtual_time(scene())
