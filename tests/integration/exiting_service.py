"""A service for tests whose handlers call `sys.exit`, and start and end other processes."""

import asyncio
import multiprocessing
import os
import signal
import sys
import time

from bus import Message, Request, Router, contract

__all__ = ["Exit", "ForkAndReturn", "ForkAndTerminate", "Pid", "router"]

SECRET = "4711-secret"


class Pid(Message):
    pid: int
    child: int | None = None
    """The exit code of the child process."""


@contract("exiting.exit", version=1)
class Exit(Request[Pid]):
    """A request whose handler exits in the named way. With "no", it does not exit."""

    way: str = "no"


@contract("exiting.terminate", version=1)
class ForkAndTerminate(Request[Pid]):
    """A request whose handler forks a process, and terminates it by this signal."""

    number: int = signal.SIGTERM


@contract("exiting.fork", version=1)
class ForkAndReturn(Request[Pid]):
    """A request whose handler forks a process that returns, or exits with a code."""

    code: int | None = None


router = Router("exiting")


async def leave() -> None:
    sys.exit(SECRET)


@router.request(Exit)
async def exit_(request: Exit) -> Pid:
    if request.way == "handler":
        await leave()
    elif request.way == "task":
        await asyncio.create_task(leave())
    elif request.way == "forgotten task":
        asyncio.create_task(leave())  # noqa: RUF006 - nothing keeps it
        await asyncio.sleep(0.05)
    elif request.way == "thread":
        await asyncio.to_thread(sys.exit, SECRET)
    elif request.way == "interrupt":
        await asyncio.create_task(interrupt())
    elif request.way == "callback":
        asyncio.get_running_loop().call_soon(sys.exit, SECRET)
        await asyncio.sleep(0)
    return Pid(pid=os.getpid())


async def interrupt() -> None:
    raise KeyboardInterrupt(SECRET)


@router.request(ForkAndTerminate)
async def terminate(request: ForkAndTerminate) -> Pid:
    process = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
    process.start()
    os.kill(process.pid or 0, request.number)
    await asyncio.to_thread(process.join, 30)
    return Pid(pid=os.getpid(), child=process.exitcode)


@router.request(ForkAndReturn)
async def fork(request: ForkAndReturn) -> Pid:
    child = os.fork()
    if not child:
        if request.code is not None:
            sys.exit(request.code)
        return Pid(pid=os.getpid())
    _, status = await asyncio.to_thread(os.waitpid, child, 0)
    return Pid(pid=os.getpid(), child=os.waitstatus_to_exitcode(status))
