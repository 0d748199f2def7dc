"""`bus breakers` gives orders to two instances on a real RabbitMQ."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from bus import Bus, Message, Request, Router, Unavailable, contract
from bus.settings import Settings
from tests.integration.command import bus

QUICK = ("--window", "0.4")
NAME = "lighthouse.light.v1"


class Light(Message):
    is_on: bool


@contract("lighthouse.light", version=1)
class GetLight(Request[Light]):
    number: int = 1


@asynccontextmanager
async def two_ships(url: str) -> AsyncIterator[tuple[Bus, Bus]]:
    router = Router("lighthouse")

    @router.request(GetLight)
    async def light(_request: GetLight) -> Light:
        return Light(is_on=True)

    settings = Settings(url=url, auth="off")  # type: ignore[arg-type]  # pydantic makes the secret
    async with (
        Bus("lighthouse", settings=settings) as served,
        served.serving(router),
        Bus("ship", settings=settings) as one,
        Bus("ship", settings=settings) as two,
    ):
        yield one, two


async def is_lit(ship: Bus) -> bool:
    try:
        return (await ship.request(GetLight(), timeout=3)).is_on
    except Unavailable:
        return False


async def test_orders_reach_both_instances_and_are_listed_with_the_operator_and_the_reason(
    vhost_url: str,
) -> None:
    environment = {"BUS_URL": vhost_url, "BUS_AUTH": "off"}
    async with two_ships(vhost_url) as ships:
        assert await asyncio.gather(*map(is_lit, ships)) == [True, True]
        isolated = await bus(
            *("breakers", "isolate", NAME, "--service", "ship", "--for", "5m"),
            *("--reason", "repairs", *QUICK),
            **environment,
        )
        assert isolated.code == 0, isolated.err
        assert isolated.out.startswith(f"isolated {NAME}: 2 of 2 instances, until ")
        assert await asyncio.gather(*map(is_lit, ships)) == [False, False]
        listed = await bus("breakers", "list", "ship", "--json", *QUICK, **environment)
        rows = json.loads(listed.out)["breakers"]
        assert [(row["state"], row["reason"], row["rejected"]) for row in rows] == [
            ("isolated", "repairs", 1)
        ] * 2
        assert "@" in rows[0]["ordered_by"]
        reset = await bus(
            "breakers", "reset", NAME, "--all", "--reason", "done", *QUICK, **environment
        )
        assert (reset.code, reset.out) == (0, f"reset {NAME}: 2 of 2 instances\n"), reset.err
        assert await asyncio.gather(*map(is_lit, ships)) == [True, True]
