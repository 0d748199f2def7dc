"""Detection of a container engine on this machine."""

import contextlib
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import urlsplit

__all__ = ["engine_answers"]

PING = b"GET /_ping HTTP/1.0\r\nHost: docker\r\n\r\n"
TIMEOUT_SECONDS = 2.0
"""Maximum seconds to wait for an answer. A container engine answers in milliseconds."""
DOCKER_PORT = 2375


def engine_answers(environment: Mapping[str, str]) -> bool:
    """Return True if Docker's API or a compatible API answers.

    Wait at most `TIMEOUT_SECONDS` for each address.
    """
    return any(map(pings, addresses(environment)))


def addresses(environment: Mapping[str, str]) -> Iterator[str]:
    """Yield the address in `DOCKER_HOST`.

    If `DOCKER_HOST` is not set, yield Docker's default sockets.
    """
    if host := environment.get("DOCKER_HOST"):
        yield host
        return
    yield "unix:///var/run/docker.sock"
    if home := environment.get("HOME"):
        yield f"unix://{home}/.docker/run/docker.sock"
    if runtime := environment.get("XDG_RUNTIME_DIR"):
        yield f"unix://{runtime}/docker.sock"


def pings(address: str) -> bool:
    """Return True if an engine answers at `unix:///path` or `tcp://host:port`."""
    with contextlib.suppress(OSError, ValueError), connect(address) as connection:
        connection.sendall(PING)
        return b" 200 " in connection.recv(64)
    return False


def connect(address: str) -> socket.socket:
    """Open a connection to an engine.

    Raises:
        OSError: No engine accepts connections at this address.
        ValueError: The socket does not exist, or the address is neither `unix://` nor `tcp://`.
    """
    parts = urlsplit(address)
    if parts.scheme == "tcp":
        return socket.create_connection(
            (parts.hostname or "localhost", parts.port or DOCKER_PORT), TIMEOUT_SECONDS
        )
    if parts.scheme != "unix" or not Path(parts.path).exists():
        raise ValueError(address)
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(TIMEOUT_SECONDS)
    try:
        connection.connect(parts.path)
    except OSError:
        connection.close()
        raise
    return connection
