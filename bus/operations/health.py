"""Health probes over HTTP. Orchestrators and `bus health` request `/livez` and `/readyz`.

`/livez` shows that the event loop runs, because the event loop sends the answer. `/readyz` shows
that every consumer is registered at the broker now. An answer is a status (200 or 503) and one
line. The line contains no data about messages, queues or addresses.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from http import HTTPStatus

from bus.errors import ConfigurationError, DeadlineExceeded, Unavailable
from bus.operations.http_address import HttpAddress, format_address
from bus.operations.http_client import UnreadableReply, fetch
from bus.operations.http_server import Page, Response, serve_http, text_response

__all__ = [
    "LIVE",
    "READY",
    "Check",
    "aggregate",
    "always_live",
    "no_note",
    "probe",
    "read_probe",
    "serve_probes",
]

Check = Callable[[], Awaitable[str | None]]
"""Function that returns None if the process is healthy. If not, it returns a short reason."""

LIVE, READY = "/livez", "/readyz"
ANSWERS = {HTTPStatus.OK, HTTPStatus.SERVICE_UNAVAILABLE}
WORDS = {LIVE: "live", READY: "ready"}
MAX_REPLY_BYTES = 8192
"""Maximum size of a reply to a probe. The reply is one line."""
SIBLING_TIMEOUT_SECONDS = 2.0
"""Maximum seconds for a child process to answer a health probe of its parent.

After this time the parent reports that the event loop of the child process is stuck.
"""
LINE = re.compile(rb"([ -~]*)\n?")
"""Content of a reply to a probe."""


async def always_live() -> str | None:
    """Return None, which means live. If the event loop is stuck, this function does not run."""
    return None


def no_note() -> str:
    """Return no text."""
    return ""


@asynccontextmanager
async def serve_probes(
    at: HttpAddress | None,
    *,
    ready: Check,
    live: Check = always_live,
    note: Callable[[], str] = no_note,
    pages: Mapping[str, Page] | None = None,
    remedy: str = "Set BUS_HEALTH_PORT to a free port.",
) -> AsyncIterator[None]:
    """Answer health probes while the `async with` block runs.

    Args:
        at: The address to listen on. None: do not listen.
        ready: The check for `/readyz`.
        live: The check for `/livez`.
        note: Function that returns a short text for the answer of a ready process, or "".
        pages: Further pages on the same address, by their paths, for example `/metrics`.
        remedy: Instruction at the end of the error text.

    Raises:
        ConfigurationError: The address cannot be opened.
    """
    if at is None:
        yield
        return
    probes = {READY: _page_of(READY, ready, note), LIVE: _page_of(LIVE, live)}
    async with AsyncExitStack() as stack:
        try:
            await stack.enter_async_context(serve_http(at, {**(pages or {}), **probes}))
        except OSError as error:
            why = error.strerror or type(error).__name__
            raise ConfigurationError(
                f"health probes cannot be answered on {format_address(at)} ({why}). {remedy}"
            ) from error
        yield


async def probe(at: HttpAddress, probe: str, *, timeout: float) -> str | None:
    """Send a health probe. Return None if the status is 200. If not, return the reason.

    The arguments and the errors are those of `read_probe`.
    """
    is_healthy, text = await read_probe(at, probe, timeout=timeout)
    return None if is_healthy else text


async def read_probe(at: HttpAddress, probe: str, *, timeout: float) -> tuple[bool, str]:
    """Send a health probe. Return True if the status is 200, and the text of the answer.

    Args:
        at: The address of the process.
        probe: The path of the probe, `LIVE` or `READY`.
        timeout: Maximum seconds to wait for the answer.

    Raises:
        Unavailable: No process answers at this address, or the process does not serve this probe.
        DeadlineExceeded: The process accepts the connection, but does not answer within
            `timeout` seconds.
    """
    try:
        async with asyncio.timeout(timeout):
            reply = await fetch(at, probe, max_bytes=MAX_REPLY_BYTES)
    except TimeoutError as error:
        raise DeadlineExceeded(
            f"{format_address(at)} does not answer within {timeout:g} s"
        ) from error
    except OSError as error:
        raise Unavailable(f"no process answers health probes on {format_address(at)}") from error
    except UnreadableReply as error:
        raise Unavailable(f"the server on {format_address(at)} does not serve {probe}") from error
    line = LINE.fullmatch(reply.content)
    if reply.status not in ANSWERS or line is None:
        raise Unavailable(f"the server on {format_address(at)} does not serve {probe}")
    return reply.status == HTTPStatus.OK, line[1].decode("ascii")


def aggregate(addresses: Sequence[HttpAddress]) -> Mapping[str, Check]:
    """Return the combined checks of several processes, as arguments of `serve_probes`.

    The check `ready` fails if a process is not ready. The check `live` fails if a process is stuck.
    A process that does not listen does not count as stuck, because this process is starting or
    stopping. The parent process supervises it.
    """

    async def ready() -> str | None:
        verdicts = await asyncio.gather(
            *(probe(address, READY, timeout=SIBLING_TIMEOUT_SECONDS) for address in addresses),
            return_exceptions=True,
        )
        not_ready = sum(verdict is not None for verdict in verdicts)
        return f"{not_ready} of {len(addresses)} processes" if not_ready else None

    async def live() -> str | None:
        verdicts = await asyncio.gather(
            *(probe(address, LIVE, timeout=SIBLING_TIMEOUT_SECONDS) for address in addresses),
            return_exceptions=True,
        )
        stuck = sum(isinstance(verdict, str | DeadlineExceeded) for verdict in verdicts)
        return f"{stuck} of {len(addresses)} processes" if stuck else None

    return {"ready": ready, "live": live}


def _page_of(probe: str, check: Check, note: Callable[[], str] = no_note) -> Page:
    """Return the page that answers a probe. `note` returns a text for a healthy process."""
    word = WORDS[probe]

    async def page(_: str) -> Response:
        why = await check()
        if why is None:
            text = note()
            return text_response(HTTPStatus.OK, f"{word} ({text})" if text else word)
        return text_response(HTTPStatus.SERVICE_UNAVAILABLE, f"not {word}: {why}")

    return page
