"""Tests of requests that the client sends again, because the service says that it is safe."""

from collections.abc import Callable

import pytest

from bus.errors import BusError, ResourceExhausted, Unavailable, executed_of
from bus.messaging.context import Context
from bus.runtime.router import Router
from tests.conformance.contracts import Ask, Look, Price, Word
from tests.conformance.world import World


def refusing(times: int, refusal: Callable[[], BusError]) -> tuple[Router, list[str]]:
    """Return a service that refuses its first requests, and the ids of all requests."""
    router, seen = Router("desk"), list[str]()

    def answer(text: str, context: Context) -> Word:
        seen.append(context.envelope.id)
        if len(seen) <= times:
            raise refusal()
        return Word(text=f"so {text}")

    @router.request(Ask)
    async def ask(request: Ask, context: Context) -> Word:
        return answer(request.text, context)

    @router.request(Look)
    async def look(request: Look, context: Context) -> Word:
        return answer(request.text, context)

    return router, seen


@pytest.mark.parametrize("request_", [Ask(text="be it"), Look(text="be it")])
async def test_a_request_that_no_handler_has_begun_runs_when_it_is_sent_again(
    world: World, request_: Ask | Look
) -> None:
    """Send again with the same id: the server remembers no refusal, and answers the new one."""
    desk, client = await world.bus("desk"), await world.bus("client")
    router, seen = refusing(1, lambda: Unavailable("busy", executed="no", retry_after=0))
    await world.serve(desk, router)
    assert await client.request(request_, timeout=30) == Word(text="so be it")
    assert len(seen) == 2
    assert len(set(seen)) == 1


async def test_a_request_that_must_not_run_twice_is_not_sent_again_after_its_handler_failed(
    world: World,
) -> None:
    desk, client = await world.bus("desk"), await world.bus("client")
    router, seen = refusing(1, lambda: Unavailable("busy"))
    await world.serve(desk, router)
    with pytest.raises(Unavailable) as raised:
        await client.request(Ask(), timeout=30)
    assert executed_of(raised.value) == "maybe"
    assert len(seen) == 1


async def test_an_error_of_a_nested_call_says_nothing_about_the_handler_that_passes_it_on(
    world: World,
) -> None:
    desk, shop, client = await world.bus("desk"), await world.bus("shop"), await world.bus("client")
    router, _ = refusing(100, lambda: ResourceExhausted("busy", executed="no", retry_after=60))
    await world.serve(desk, router)
    shops = Router("shop")

    @shops.request(Price)
    async def price(_request: Price, context: Context) -> Word:
        return await context.bus.request(Ask())

    await world.serve(shop, shops)
    with pytest.raises(ResourceExhausted) as raised:
        await client.request(Price(), timeout=30)
    assert (executed_of(raised.value), raised.value.retry_after) == ("maybe", 60)
    with pytest.raises(ResourceExhausted) as direct:
        await client.request(Ask(), timeout=30)
    assert executed_of(direct.value) == "no"
