"""Rendering in processes that the worker can end."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from multiprocessing import get_context
from typing import Self

from bus import BusError, OutOfRange, Unavailable
from contracts.documentation.v1 import DocumentFormat, Note
from workers.documents.renderer import Limits, Renders, serve
from workers.documents.rendering import Rendered
from workers.processes.control import ControlledProcess
from workers.processes.pool import Pool

__all__ = ["Renderer", "RenderingProcess"]

STARTED_WITHIN = 25.0
"""Maximum seconds until a process can render. The first takes 0.5 s, and others take 0.05 s.

The limit is below the 30 s that the bus allows for the start of a service.
"""
PRELOADED = ["workers.documents.renderer", "workers.documents.rendering"]


class RenderingProcess:
    """Process that renders one document at a time."""

    def __init__(self, process: ControlledProcess, limits: Limits) -> None:
        self._process = process
        self._limits = limits
        self._idle = False

    @classmethod
    async def start(cls, template: Renders, limits: Limits) -> Self:
        """Start a process, and wait until it can render."""
        # A fork server has loaded the libraries, so a new process takes milliseconds. A fork of
        # the worker itself would copy its threads' locks and its sockets.
        context = get_context("forkserver")
        context.set_forkserver_preload(PRELOADED)
        started = cls(
            await ControlledProcess.started(context, serve, template, limits, name="renderer"),
            limits,
        )
        try:
            async with asyncio.timeout(STARTED_WITHIN):
                await started._process.receive()
        except TimeoutError as error:
            await started.end()
            problem = f"the renderer did not start within {STARTED_WITHIN:g} s"
            raise Unavailable(f"{problem}. Check the load of this machine.") from error
        except BaseException:
            await started.end()
            raise
        started._idle = True
        return started

    @property
    def pid(self) -> int | None:
        """Process id."""
        return self._process.pid

    @property
    def usable(self) -> bool:
        """True if the process is alive and idle. During a document the process is not idle."""
        return self._idle and self._process.alive

    async def render(self, note: Note, format_: DocumentFormat) -> Rendered:
        """Render the note in this format.

        Raise the errors of `Template.rendered`, `OutOfRange` beyond a limit, and `Unavailable` if
        the process died. After a limit of time the process is not usable, and must be ended.
        """
        self._idle = False
        try:
            async with asyncio.timeout(self._limits.max_seconds):
                result = await self._result(note, format_)
        except TimeoutError as error:
            problem = f"the document took longer than {self._limits.max_seconds:g} s"
            raise OutOfRange(
                f"{problem}. Shorten the note, or raise DOCUMENTS_MAX_SECONDS."
            ) from error
        self._idle = True
        if isinstance(result, BusError):
            raise result
        return result

    async def end(self) -> None:
        """Kill the process, even if it is rendering, and wait until it has ended."""
        await self._process.end()

    async def _result(self, note: Note, format_: DocumentFormat) -> Rendered | BusError:
        await self._process.send((note, format_))
        answer = await self._process.receive()
        if isinstance(answer, BusError):
            return answer
        data = bytearray()
        while len(data) < answer.size:
            data += await self._process.receive_bytes()
        return Rendered(data=bytes(data), pages=answer.pages)


class Renderer:
    """Renderer of notes, with a process for each document at a time."""

    def __init__(self, pool: Pool[RenderingProcess]) -> None:
        self._pool = pool

    @classmethod
    @asynccontextmanager
    async def opened(
        cls, template: Renders, limits: Limits, *, processes: int
    ) -> AsyncIterator[Self]:
        """Start the processes, and end them when the block ends."""
        start = partial(RenderingProcess.start, template, limits)
        async with Pool.opened(start, size=processes) as pool:
            yield cls(pool)

    async def render(self, note: Note, format_: DocumentFormat) -> Rendered:
        """Render the note in the next free process. Raise the errors of `RenderingProcess.render`.

        If the caller is cancelled, the process is ended.
        """
        async with self._pool.lease() as process:
            return await process.render(note, format_)
