"""Tests of handlers' dependencies on every transport."""

import asyncio
from collections.abc import AsyncIterator

from bus.messaging.context import Context
from bus.runtime.dependencies import Depends
from bus.runtime.router import Router
from tests.conformance.contracts import Ask, Told, Word, Write
from tests.conformance.world import World, until

life: list[str] = []


async def pen(context: Context) -> AsyncIterator[str]:
    life.append(f"opened for {context.envelope.role}")
    yield "ink"
    life.append(f"closed for {context.envelope.role}")


def on(pen: str = Depends(pen)) -> str:
    """Return a text. A function that is not asynchronous runs in a thread."""
    return f"{pen} on paper"


async def test_requests_jobs_and_events_get_what_they_depend_on(world: World) -> None:
    life.clear()
    desk, router, heard = await world.bus("desk"), Router("desk"), list[str]()

    @router.request(Ask)
    async def ask(request: Ask, written: str = Depends(on)) -> Word:
        return Word(text=f"{request.text}: {written}")

    @router.job(Write)
    async def write(job: Write, context: Context, written: str = Depends(on)) -> Word:
        await context.bus.publish(Told(text=written))
        return Word(text=written)

    @router.event(Told)
    async def told(event: Told, pen: str = Depends(pen)) -> None:
        heard.append(f"{event.text}, {pen}")

    await world.serve(desk, router)
    async with asyncio.timeout(30):
        assert await desk.request(Ask(text="note"), timeout=20) == Word(text="note: ink on paper")
        job = await desk.submit(Write(), timeout=20)
        assert await job.result(timeout=20) == Word(text="ink on paper")
    await until(lambda: heard == ["ink on paper, ink"] and len(life) == 6, "the event")
    for kind in ("request", "job", "event"):
        assert [line for line in life if line.endswith(kind)] == [
            f"opened for {kind}",
            f"closed for {kind}",
        ]
