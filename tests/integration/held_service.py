"""A service for tests of synchronous callers. It can keep a call in flight."""

import asyncio
from collections import defaultdict

from bus import Context, Event, Job, Message, Request, Router, contract

__all__ = ["Begun", "Echo", "Held", "Hold", "Pid", "Sold"]


class Pid(Message):
    pid: int


@contract("held.echo", version=1)
class Echo(Request[Pid]):
    pid: int


@contract("held.hold", version=1)
class Hold(Request[Pid]):
    """A request that is answered after the event `Sold`, or never."""

    pid: int


@contract("held.begun", version=1)
class Begun(Job[None]):
    """A job that ends when the handler of `Hold` has begun for this process."""

    pid: int


@contract("synchronous.sold", version=1)
class Sold(Event):
    pid: int


class Held:
    """The service that the programs call."""

    def __init__(self) -> None:
        self.router = Router("held")
        self.begun: defaultdict[int, asyncio.Event] = defaultdict(asyncio.Event)
        self.free = asyncio.Event()
        self.instances: set[str] = set()
        self.router.request(Echo)(self.echo)
        self.router.request(Hold, concurrency=9)(self.hold)
        self.router.job(Begun, concurrency=9)(self.wait_begun)
        self.router.event(Sold)(self.on_sold)

    async def echo(self, request: Echo, context: Context) -> Pid:
        self.instances.add(context.envelope.reply_to or "")
        return Pid(pid=request.pid)

    async def hold(self, request: Hold) -> Pid:
        self.begun[request.pid].set()
        await self.free.wait()
        return Pid(pid=request.pid)

    async def wait_begun(self, job: Begun) -> None:
        await self.begun[job.pid].wait()

    async def on_sold(self, event: Sold) -> None:
        self.free.set()
