"""Control of a speech-recognition process from the service."""

import asyncio
from collections.abc import AsyncGenerator
from multiprocessing import get_context
from multiprocessing.reduction import send_handle
from typing import Self

from bus import BusError, Internal, Unavailable
from workers.processes.control import GONE, ControlledProcess
from workers.transcription.engine import EngineSpec
from workers.transcription.recogniser import Begun, Done, Heard, serve

__all__ = ["RecogniserProcess"]


class RecogniserProcess:
    """Process with a loaded engine. It recognises one recording at a time."""

    def __init__(self, process: ControlledProcess) -> None:
        self._process = process
        self._idle = False

    @classmethod
    async def start(cls, spec: EngineSpec, *, max_seconds: float, timeout: float) -> Self:
        """Start a process, and wait until its engine is loaded.

        Raise `Unavailable` if this takes more than `timeout` seconds. If the engine cannot be
        loaded, raise the engine's error.
        """
        # Spawn the process: a fork would copy the running event loop and its sockets.
        context = get_context("spawn")
        started = cls(
            await ControlledProcess.started(context, serve, spec, max_seconds, name="recogniser")
        )
        try:
            await started._loaded(timeout)
        except BaseException:
            await started.end()
            raise
        return started

    @property
    def pid(self) -> int | None:
        """Process id."""
        return self._process.pid

    @property
    def usable(self) -> bool:
        """True if the process is alive and idle. During a recording the process is not idle."""
        return self._idle and self._process.alive

    async def recognise(self, file: int) -> AsyncGenerator[Begun | Heard, None]:
        """Recognise the recording in an open file, from the file's current position.

        Yield `Begun` first, and then a `Heard` after each recognised utterance. Raise the errors of
        `read_wav`, `Internal` for a bug in the engine, and `Unavailable` if the process died.
        """
        self._idle = False
        self._send(file)
        while not isinstance(message := await self._process.receive(), Done):
            if isinstance(message, BusError):
                self._idle = True
                raise message
            yield message
        self._idle = True

    async def end(self) -> None:
        """Kill the process, even if it is recognising a recording, and wait until it has ended."""
        await self._process.end()

    async def _loaded(self, timeout: float) -> None:
        try:
            async with asyncio.timeout(timeout):
                message = await self._process.receive()
        except TimeoutError as error:
            problem = f"the recogniser did not load within {timeout:g} s"
            raise Unavailable(f"{problem}. Raise TRANSCRIPTION_START_TIMEOUT.") from error
        if isinstance(message, BusError):
            raise message
        self._idle = True

    def _send(self, file: int) -> None:
        if self._process.pid is None:
            raise Internal("the recogniser is not started. Call `start` first.")
        try:
            # Send the open file and not its name. The process then reads exactly the file that was
            # checked, and a download can be a file without a name.
            send_handle(self._process.connection, file, self._process.pid)
        except GONE as error:
            raise self._process.died() from error
