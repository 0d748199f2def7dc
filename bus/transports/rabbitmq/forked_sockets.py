"""The sockets of broker connections in forked processes.

A forked child inherits the sockets of its parent. If the child kept them, the broker would not
notice that the parent has died. If the child wrote to them, it would send frames in the parent's
name.
"""

import asyncio
import contextlib
import os
from weakref import WeakSet

__all__ = ["close_in_children"]

_open: WeakSet[asyncio.BaseTransport] = WeakSet()


def close_in_children(transport: asyncio.BaseTransport) -> None:
    """Close the socket of a transport in each process that is forked from now on.

    The connection of this process stays open, and the broker receives nothing.
    """
    with contextlib.suppress(TypeError):  # a loop of another library may allow no weak references
        _open.add(transport)


def _close_inherited() -> None:
    if not _open:
        return
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    for transport in _open:
        socket = transport.get_extra_info("socket")
        if socket is not None and socket.fileno() >= 0:
            # The number stays in use, so a file that the child opens later has another number.
            os.dup2(null, socket.fileno(), inheritable=False)
    os.close(null)
    _open.clear()


os.register_at_fork(after_in_child=_close_inherited)
