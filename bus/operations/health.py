"""Health probes over HTTP. Orchestrators and `bus health` request `/livez` and `/readyz`.

`/livez` shows that the event loop runs, because the event loop sends the answer. `/readyz` shows
that every consumer is registered at the broker now. An answer is a status (200 or 503) and one
line. The line contains no data about messages, queues or addresses.
"""

import asyncio
import re
from collections import Counter
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
    "CombinedChecks",
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
READY_LINE = re.compile(r"ready(?: \((.*)\))?")
"""Text of a ready process, with its note."""


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


def aggregate(addresses: Sequence[HttpAddress]) -> "CombinedChecks":
    """Return the combined checks of the processes at these addresses."""
    return CombinedChecks(addresses)


class CombinedChecks:
    """The checks of several processes, as arguments of `serve_probes` in their parent."""

    def __init__(self, addresses: Sequence[HttpAddress]) -> None:
        self._addresses = addresses
        self._notes: list[str] = []
        """The note of each process at the last check of `ready`."""

    async def ready(self) -> str | None:
        """Return None if each process is ready. If not, return how many are not ready."""
        answers = await self._ask(READY)
        self._notes = [
            note[1] or ""
            for answer in answers
            if isinstance(answer, tuple) and answer[0] and (note := READY_LINE.fullmatch(answer[1]))
        ]
        not_ready = sum(isinstance(answer, BaseException) or not answer[0] for answer in answers)
        return f"{not_ready} of {len(answers)} processes" if not_ready else None

    async def live(self) -> str | None:
        """Return None if no process is stuck. If not, return how many are stuck.

        A process that does not listen does not count as stuck, because this process is starting or
        stopping. The parent process supervises it.
        """
        answers = await self._ask(LIVE)
        stuck = sum(
            isinstance(answer, DeadlineExceeded) or (isinstance(answer, tuple) and not answer[0])
            for answer in answers
        )
        return f"{stuck} of {len(answers)} processes" if stuck else None

    def note(self) -> str:
        """Return the different notes of the processes, each with the number of its processes."""
        total = len(self._addresses)
        return "; ".join(
            note if count == total else f"{note}, in {count} of {total} processes"
            for note, count in sorted(Counter(self._notes).items())
            if note
        )

    async def _ask(self, probe: str) -> list[tuple[bool, str] | BaseException]:
        """Send a health probe to each process, and return the answers or the errors."""
        return await asyncio.gather(
            *(read_probe(at, probe, timeout=SIBLING_TIMEOUT_SECONDS) for at in self._addresses),
            return_exceptions=True,
        )


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
