"""A process of a service that is killed at a point of a transactional handler.

usage: python -m tests.integration.store.doomed URL

For each line `POINT ID` of the input, a forked process handles the event with the id, and kills
itself at the point. The command then writes the signal that has ended the process.
"""

import asyncio
import os
import signal
import sys
from typing import Any

from pydantic import SecretStr
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from bus import Bus, Event, Router, contract
from bus.contracts.contract import encode
from bus.messaging.context import Context
from bus.messaging.envelope import Envelope
from bus.messaging.topology.addresses import address_of
from bus.storage.sqlalchemy.claims import Claims
from bus.testing import MemoryBroker, MemoryTransport
from bus.testing.explicit_settings import ExplicitSettings
from tests.conformance.world import Ear

POINTS = ("claimed", "first-write", "before-commit", "after-commit")
SERVICE = "bindery"


@contract("paper.arrived", version=1)
class PaperArrived(Event):
    sheets: int = 1


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def router_of(point: str = "") -> Router:
    """Return the handler, which writes two rows. It is killed between them at `first-write`."""
    router = Router(SERVICE)

    @router.event(PaperArrived, transactional=True)
    async def bind(event: PaperArrived, context: Context, session: AsyncSession) -> None:
        for part in ("cover", "pages"):
            await session.execute(
                text("INSERT INTO effects VALUES (:id, :part)"),
                {"id": context.envelope.id, "part": part},
            )
            if point == "first-write":
                die()

    return router


async def publish(broker: MemoryBroker, id_: str) -> None:
    transport = MemoryTransport(broker)
    await transport.start(Ear(), timeout=5)
    event = Envelope(
        id=id_,
        type="paper.arrived.v1",
        role="event",
        source="paper",
        body=encode(PaperArrived()),
    )
    await transport.send(event, address_of("event", event.type), timeout=5)
    await transport.close()


def arm(point: str) -> None:
    """Let this process die at a point outside of the handler."""
    claim, commit = Claims.claim, AsyncSession.commit

    async def dying_claim(self: Claims, *args: Any, **options: Any) -> Any:
        await claim(self, *args, **options)
        die()

    async def dying_commit(self: AsyncSession) -> None:
        if point == "after-commit":
            await commit(self)
        die()

    if point == "claimed":
        Claims.claim = dying_claim  # type: ignore[method-assign]
    elif point != "first-write":
        AsyncSession.commit = dying_commit  # type: ignore[method-assign]


async def handle(url: str, point: str, id_: str) -> None:
    broker = MemoryBroker()
    settings = ExplicitSettings(auth="off", store=SecretStr(url))
    async with (
        Bus(SERVICE, settings=settings, transport=MemoryTransport(broker)) as bus,
        bus.serving(router_of(point)),
    ):
        await publish(broker, id_)
        await asyncio.sleep(60)


def main(url: str) -> None:
    for line in sys.stdin:
        point, id_ = line.split()
        child = os.fork()
        if not child:
            arm(point)
            asyncio.run(handle(url, point, id_))
            os._exit(0)
        _, status = os.waitpid(child, 0)
        sys.stdout.write(f"{os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1])
