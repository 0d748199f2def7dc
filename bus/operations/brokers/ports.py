"""Ports: which are free on this machine, and what answers on one."""

import contextlib
import random
import socket
from pathlib import Path

from bus.errors import Unavailable

__all__ = ["LOOPBACK", "accepts", "free_ports", "speaks_amqp"]

LOOPBACK = "127.0.0.1"
MIN_PORT = 20_000
# Linux's and IANA's usual first port for outgoing connections. Above it a client that keeps dialling a broker which is
# down can be given the very port that it dials, and then talks to itself and holds the port against the broker.
FIRST_EPHEMERAL = 32_768
EPHEMERAL_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
PROTOCOL_HEADER = b"AMQP\x00\x00\x09\x01"
METHOD_FRAME = b"\x01"


def free_ports(count: int, chance: random.Random | None = None) -> list[int]:
    """`count` different ports on which nothing listens; `Unavailable` where there are not so many."""
    candidates = range(MIN_PORT, max(first_ephemeral(), MIN_PORT + 1_000))
    order = (chance or random.SystemRandom()).sample(candidates, len(candidates))
    found = [port for _, port in zip(range(count), filter(bindable, order), strict=False)]
    if len(found) < count:
        raise Unavailable(
            f"no {count} free ports between {candidates[0]} and {candidates[-1]}; end what uses them"
        )
    return found


def first_ephemeral() -> int:
    """The first port that this machine gives to outgoing connections."""
    with contextlib.suppress(OSError, ValueError):
        return int(EPHEMERAL_RANGE.read_text(encoding="ascii").split()[0])
    return FIRST_EPHEMERAL


def bindable(port: int) -> bool:
    """Whether nothing holds `port`, on any address."""
    with socket.socket() as candidate:
        candidate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            candidate.bind(("", port))
        except OSError:
            return False
    return True


def accepts(port: int) -> bool:
    """Whether something on this machine accepts connections on `port`."""
    with contextlib.suppress(OSError), socket.create_connection((LOOPBACK, port), 0.5):
        return True
    return False


def speaks_amqp(host: str, port: int) -> bool:
    """Whether an AMQP 0-9-1 broker answers there: with a method frame, which is Connection.Start."""
    with contextlib.suppress(OSError), socket.create_connection((host, port), 0.5) as connection:
        connection.sendall(PROTOCOL_HEADER)
        return connection.recv(1) == METHOD_FRAME
    return False
