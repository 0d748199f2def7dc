"""Control of a speech-recognition process from the service."""

import asyncio
from collections.abc import AsyncGenerator
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from multiprocessing.reduction import send_handle
from typing import Any, Self

from bus import BusError, Internal, Unavailable
from workers.transcription.engine import EngineSpec
from workers.transcription.recogniser import Begun, Done, Heard, serve

__all__ = ["RecogniserProcess"]

REAPED_WITHIN = 5.0
"""Maximum seconds to wait until a killed process has ended. This usually takes milliseconds."""
GONE = (EOFError, ConnectionResetError, BrokenPipeError)
"""Errors that the pipe raises in the service after the process has died."""


class RecogniserProcess:
    """Process with a loaded engine. It recognises one recording at a time."""

    def __init__(self, process: SpawnProcess, connection: "Connection[Any, Any]") -> None:
        self._process = process
        self._connection = connection
        self._idle = False

    @classmethod
    async def start(cls, spec: EngineSpec, *, max_seconds: float, timeout: float) -> Self:
        """Start a process, and wait until its engine is loaded.

        Raise `Unavailable` if this takes more than `timeout` seconds. If the engine cannot be
        loaded, raise the engine's error.
        """
        # Spawn the process: a fork would copy the running event loop and its sockets.
        context = get_context("spawn")
        ours, theirs = context.Pipe()
        # Make it a daemon process, which also ends if the service exits without a clean stop.
        process = context.Process(
            target=serve, args=(theirs, spec, max_seconds), name="recogniser", daemon=True
        )
        process.start()
        theirs.close()
        started = cls(process, ours)
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
        return self._idle and self._process.is_alive()

    async def recognise(self, file: int) -> AsyncGenerator[Begun | Heard, None]:
        """Recognise the recording in an open file, from the file's current position.

        Yield `Begun` first, and then a `Heard` after each recognised utterance. Raise the errors of
        `read_wav`, `Internal` for a bug in the engine, and `Unavailable` if the process died.
        """
        self._idle = False
        self._send(file)
        while not isinstance(message := await self._receive(), Done):
            if isinstance(message, BusError):
                self._idle = True
                raise message
            yield message
        self._idle = True

    async def end(self) -> None:
        """Kill the process, even if it is recognising a recording, and wait until it has ended."""
        self._process.kill()
        self._connection.close()
        # Shield the wait from cancellation, because a process that is not joined becomes a zombie.
        await asyncio.shield(asyncio.to_thread(self._process.join, REAPED_WITHIN))

    async def _loaded(self, timeout: float) -> None:
        try:
            async with asyncio.timeout(timeout):
                message = await self._receive()
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
            send_handle(self._connection, file, self._process.pid)
        except GONE as error:
            raise self._died() from error

    async def _receive(self) -> Any:
        """Wait for the next message from the process, and return it.

        The event loop waits for the message. A thread is not used, because it would continue to
        wait after a cancellation.
        """
        loop = asyncio.get_running_loop()
        readable = asyncio.Event()
        loop.add_reader(self._connection.fileno(), readable.set)
        try:
            await readable.wait()
        finally:
            loop.remove_reader(self._connection.fileno())
        try:
            return self._connection.recv()
        except GONE as error:
            raise self._died() from error

    def _died(self) -> Unavailable:
        problem = "the recogniser's process ended unexpectedly"
        return Unavailable(f"{problem}. Try again, and read the worker's log if this repeats.")
