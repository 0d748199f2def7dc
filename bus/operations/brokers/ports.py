"""TCP ports. The functions search for free ports, and check whether a server listens on a port."""

import contextlib
import random
import socket
from collections.abc import Collection
from pathlib import Path

from bus.errors import Unavailable

__all__ = ["LOOPBACK", "accepts", "check_free", "free_ports", "port_in_use", "speaks_amqp"]

LOOPBACK = "127.0.0.1"
MIN_PORT = 20_000
# Default of Linux for the first source port of outgoing connections. A broker's port must be lower.
# If it were not, a client that connects to a stopped broker could get the broker's port as its
# source port. The client would be connected to itself. The broker could not open the port again.
FIRST_EPHEMERAL = 32_768
EPHEMERAL_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
PROTOCOL_HEADER = b"AMQP\x00\x00\x09\x01"
METHOD_FRAME = b"\x01"


def free_ports(
    count: int, chance: random.Random | None = None, *, excluded: Collection[int] = ()
) -> list[int]:
    """Return `count` different ports on which no program listens.

    Args:
        count: The number of ports.
        chance: The random number generator that chooses the ports. None: the system's generator.
        excluded: Ports that the function must not return.

    Raises:
        Unavailable: The range of ports has fewer than `count` free ports.
    """
    ports_below = range(MIN_PORT, max(first_ephemeral(), MIN_PORT + 1_000))
    candidates = [port for port in ports_below if port not in excluded]
    order = (chance or random.SystemRandom()).sample(candidates, len(candidates))
    ports = [port for _, port in zip(range(count), filter(bindable, order), strict=False)]
    if len(ports) < count:
        raise Unavailable(
            f"this machine has {len(ports)} free ports between {candidates[0]} and "
            f"{candidates[-1]}, but {count} are required. Stop programs that use these ports."
        )
    return ports


def check_free(ports: Collection[int]) -> None:
    """Check that no program listens on the ports.

    Raises:
        Unavailable: A program listens on one of the ports.
    """
    for port in ports:
        if not bindable(port):
            raise port_in_use(port)


def port_in_use(port: int) -> Unavailable:
    """Return the error for a port on which another program listens."""
    return Unavailable(
        f"port {port} cannot be opened, because another program uses it. "
        "Stop that program, or choose another port."
    )


def first_ephemeral() -> int:
    """Return the first port that this machine uses for outgoing connections."""
    with contextlib.suppress(OSError, ValueError):
        return int(EPHEMERAL_RANGE.read_text(encoding="ascii").split()[0])
    return FIRST_EPHEMERAL


def bindable(port: int) -> bool:
    """Return True if no program uses `port` on any address of this machine."""
    with socket.socket() as candidate:
        candidate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            candidate.bind(("", port))
        except OSError:
            return False
    return True


def accepts(port: int) -> bool:
    """Return True if a program on this machine accepts connections on `port`."""
    with contextlib.suppress(OSError), socket.create_connection((LOOPBACK, port), 0.5):
        return True
    return False


def speaks_amqp(host: str, port: int) -> bool:
    """Return True if an AMQP 0-9-1 broker answers with a method frame (Connection.Start)."""
    with contextlib.suppress(OSError), socket.create_connection((host, port), 0.5) as connection:
        connection.sendall(PROTOCOL_HEADER)
        return connection.recv(1) == METHOD_FRAME
    return False
