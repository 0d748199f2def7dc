"""Resolution of host names, in threads that stop nothing else.

A name server may answer slowly, and a lookup cannot be cancelled. In the executor of the event
loop, a few such lookups would block each other use of `asyncio.to_thread`, and also the exit.
"""

import asyncio
import socket
import threading
from contextlib import suppress

__all__ = ["Resolver"]

MOST_LOOKUPS = 8
"""Maximum number of lookups at a time, abandoned ones included. A lookup needs a thread."""


class Resolver:
    """Resolver of host names, by the system's own rules."""

    def __init__(self) -> None:
        self._free = asyncio.Semaphore(MOST_LOOKUPS)

    async def addresses(self, host: str) -> list[str]:
        """Return the addresses of a host in the system's order, at least one.

        Raise `OSError` if the name has no address, or if it cannot be resolved now.
        """
        await self._free.acquire()
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[list[str]] = loop.create_future()

        def settle(found: list[str] | OSError) -> None:
            self._free.release()
            if answer.done():  # the caller was cancelled
                return
            if isinstance(found, OSError):
                answer.set_exception(found)
            else:
                answer.set_result(found)

        def look_up() -> None:
            found = _look_up(host)
            with suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(settle, found)

        # A daemon thread does not delay the exit of the process.
        threading.Thread(target=look_up, name="resolver", daemon=True).start()
        return await answer


def _look_up(host: str) -> list[str] | OSError:
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError as error:
        return error
    return list(dict.fromkeys(str(address[0]) for *_, address in found))
