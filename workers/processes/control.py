"""Control of a process from the worker that started it."""

import asyncio
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from typing import Any, Self

from bus import Unavailable

__all__ = ["GONE", "ControlledProcess"]

REAPED_WITHIN = 5.0
"""Maximum seconds to wait until a killed process has ended. This usually takes milliseconds."""
GONE = (EOFError, ConnectionResetError, BrokenPipeError)
"""Errors that the pipe raises in the worker after the process has died."""


class ControlledProcess:
    """Process and the pipe to it. The process does one task at a time."""

    def __init__(self, process: BaseProcess, connection: "Connection[Any, Any]") -> None:
        self._process = process
        self._connection = connection

    @classmethod
    async def started(
        cls, context: BaseContext, target: Callable[..., None], *args: object, name: str
    ) -> Self:
        """Start `target(connection, *args)` in a new process.

        `name` is the name of the process in errors and in lists of processes.
        """
        ours, theirs = context.Pipe()
        # Make it a daemon process, which also ends if the worker exits without a clean stop.
        process = context.Process(  # type: ignore[attr-defined]  # of each concrete context
            target=target, args=(theirs, *args), name=name, daemon=True
        )
        # Start the process in a thread: the first start may wait until a fork server has loaded.
        starting = asyncio.ensure_future(asyncio.to_thread(process.start))
        control = cls(process, ours)
        try:
            await asyncio.shield(starting)
        except BaseException:
            # A start cannot be cancelled. End the process as soon as it exists.
            await asyncio.wait([starting])
            await control.end()
            raise
        finally:
            theirs.close()
        return control

    @property
    def pid(self) -> int | None:
        """Process id. None before the start."""
        return self._process.pid

    @property
    def connection(self) -> "Connection[Any, Any]":
        """Worker's end of the pipe."""
        return self._connection

    @property
    def alive(self) -> bool:
        """True if the process has not ended."""
        return self._process.is_alive()

    async def send(self, message: object) -> None:
        """Send a message. Raise `Unavailable` if the process died."""
        try:
            # Send in a thread, because a large message waits until the process reads it. The
            # thread ends with the process at the latest, which `end` kills.
            await asyncio.to_thread(self._connection.send, message)
        except (*GONE, OSError) as error:
            raise self.died() from error

    async def receive(self) -> Any:
        """Wait for the next message, and return it. Raise `Unavailable` if the process died."""
        await self._readable()
        try:
            return self._connection.recv()
        except GONE as error:
            raise self.died() from error

    async def receive_bytes(self) -> bytes:
        """Wait for the next part of a large message. Raise `Unavailable` if the process died."""
        await self._readable()
        try:
            return self._connection.recv_bytes()
        except GONE as error:
            raise self.died() from error

    async def end(self) -> None:
        """Kill the process, even during a task, and wait until it has ended."""
        if self._process.pid is not None and self._process.is_alive():
            self._process.kill()
        self._connection.close()
        if self._process.pid is not None:
            # Shield the wait from cancellation: a process that is not joined becomes a zombie.
            await asyncio.shield(asyncio.to_thread(self._process.join, REAPED_WITHIN))

    def died(self) -> Unavailable:
        """Return the error that the process ended unexpectedly."""
        problem = f"the {self._process.name}'s process ended unexpectedly"
        return Unavailable(f"{problem}. Try again, and read the worker's log if this repeats.")

    async def _readable(self) -> None:
        """Wait until the pipe has a message.

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
