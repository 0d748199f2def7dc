"""One recognising process, seen from the service."""

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
"""Seconds for the system to end a killed process; milliseconds, unless the machine is in trouble."""
GONE = (EOFError, ConnectionResetError, BrokenPipeError)
"""What a dead process looks like at this end of the pipe."""


class RecogniserProcess:
    """A loaded engine, in a process of its own; recognises one recording at a time."""

    def __init__(self, process: SpawnProcess, connection: "Connection[Any, Any]") -> None:
        self._process = process
        self._connection = connection
        self._idle = False

    @classmethod
    async def start(cls, spec: EngineSpec, *, max_seconds: float, timeout: float) -> Self:
        """A process with its engine loaded, within `timeout` seconds; raises what loading it raises, or `Unavailable`."""
        # Spawned: a fork would copy a running event loop and its sockets.
        context = get_context("spawn")
        ours, theirs = context.Pipe()
        # A daemon, so that even an interpreter that exits without a clean stop takes it along.
        process = context.Process(target=serve, args=(theirs, spec, max_seconds), name="recogniser", daemon=True)
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
        """The system's number for it."""
        return self._process.pid

    @property
    def usable(self) -> bool:
        """Whether it waits for work: a recording was not left half-way, and the process lives."""
        return self._idle and self._process.is_alive()

    async def recognise(self, file: int) -> AsyncGenerator[Begun | Heard, None]:
        """Recognise the recording in an open file, from its position: first `Begun`, then each utterance when it is done.

        Raises what `read_wav` raises, `Internal` for a fault of the engine, `Unavailable` where the process died.
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
        """Kill the process, whatever it does, and wait until it is gone."""
        self._process.kill()
        self._connection.close()
        # Shielded, so that a second cancellation leaves no zombie.
        await asyncio.shield(asyncio.to_thread(self._process.join, REAPED_WITHIN))

    async def _loaded(self, timeout: float) -> None:
        try:
            async with asyncio.timeout(timeout):
                message = await self._receive()
        except TimeoutError as error:
            raise Unavailable(f"the recogniser did not load within {timeout:g} s; raise TRANSCRIPTION_START_TIMEOUT") from error
        if isinstance(message, BusError):
            raise message
        self._idle = True

    def _send(self, file: int) -> None:
        if self._process.pid is None:
            raise Internal("the recogniser was not started")
        try:
            # The open file itself, not its name: what was checked is what is read, and a download needs no name.
            send_handle(self._connection, file, self._process.pid)
        except GONE as error:
            raise self._died() from error

    async def _receive(self) -> Any:
        """The next message; waiting for it holds no thread, so that cancelling leaves nothing behind."""
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
        return Unavailable("the recogniser's process ended unexpectedly; try again, and read the worker's log if that repeats")
