"""Announcements: an instance reports its start and its stop, and others listen."""

import asyncio
import logging
from collections import Counter, deque
from typing import Literal, Self

from pydantic import ValidationError

from bus.errors import BusError, Unavailable, UnknownKey
from bus.messaging.control import ANNOUNCEMENT_TYPE, MAX_WINDOW_SECONDS, Announcement
from bus.messaging.envelope import Envelope, new_id
from bus.messaging.resilience.rates import Rates
from bus.messaging.service_info import InstanceState
from bus.messaging.topology.control import announcement_key, announcement_topology
from bus.runtime.discovery.control_link import ControlLink, Member
from bus.runtime.discovery.limits import Refusals, SeenIds

__all__ = ["AnnouncementStream", "build_announcement"]

log = logging.getLogger("bus.discovery")

MAX_WAITING = 1000
"""Maximum number of announcements that wait for the listener. The oldest is dropped."""
MAX_CHECKS_PER_SECOND = 500.0
"""Maximum number of announcements per second whose proofs are checked."""
MAX_SEEN = 10_000
MALFORMED = "a value is invalid or beyond its limit. Check the version of this service."
CONNECT_SECONDS = 5.0
"""Seconds to wait for the queue of announcements."""


def build_announcement(
    member: Member, state: InstanceState, event: Literal["started", "stopping"]
) -> Envelope:
    """Return the signed announcement of an instance."""
    now = member.clock()
    body = Announcement(**state.model_dump(), event=event).model_dump_json().encode()
    envelope = Envelope(
        id=new_id(),
        type=ANNOUNCEMENT_TYPE,
        role="control",
        source=member.source,
        body=body,
        timestamp=int(now),
        expires=int((now + MAX_WINDOW_SECONDS) * 1000),
        expiration=int(MAX_WINDOW_SECONDS * 1000),
    )
    return member.guard.sign_announcement(envelope, announcement_key(member.source))


class AnnouncementStream:
    """The announcements that arrive at one listener, which has a queue of its own."""

    def __init__(self, member: Member) -> None:
        """Start to listen."""
        self._member = member
        instance = f"{member.instance}-{new_id()[:8]}"
        self._link = ControlLink(
            member,
            announcement_topology(member.receiver, instance),
            purpose="the listening to announcements",
            refusal_level=logging.DEBUG,  # the listener gets the error
        )
        self._waiting: deque[Announcement] = deque(maxlen=MAX_WAITING)
        self._arrived = asyncio.Event()
        self._checks = Rates(
            MAX_CHECKS_PER_SECOND,
            burst=MAX_CHECKS_PER_SECOND,
            max_keys=1,
            timer=asyncio.get_running_loop().time,
        )
        self._seen = SeenIds(MAX_SEEN, clock=member.clock)
        self._refusals = Refusals(
            member.source, timer=asyncio.get_running_loop().time, subject="an announcement"
        )
        self.is_closed = False
        self._opening = asyncio.get_running_loop().create_task(self._open())

    @property
    def dropped(self) -> Counter[str]:
        """Number of dropped announcements by the reason."""
        return self._refusals.counts

    async def _open(self) -> None:
        error = self._member.guard.may_ask("read", None)
        if error is not None:
            raise error
        await self._link.open(self._on_message)
        await self._link.wait_ready(CONNECT_SECONDS)

    def _on_message(self, envelope: Envelope) -> None:
        if envelope.type != ANNOUNCEMENT_TYPE:
            return  # of a later version
        if envelope.fault is not None or not self._checks.take(None):
            self.dropped["malformed" if envelope.fault else "too many"] += 1
            return
        try:
            self._member.guard.check_announcement(envelope, announcement_key(envelope.source))
            announcement = Announcement.model_validate_json(envelope.body)
        except BusError as error:
            if isinstance(error, UnknownKey):
                self._member.guard.refresh_keys_soon()
            self.dropped["not proven"] += 1
        except ValidationError:
            self._refusals.record("malformed", MALFORMED, envelope.source)
        else:
            self._add(envelope, announcement)

    def _add(self, envelope: Envelope, announcement: Announcement) -> None:
        key = (envelope.source, envelope.id)
        ends = self._member.clock() + MAX_WINDOW_SECONDS + 2 * self._member.leeway
        if announcement.service != envelope.source:
            self.dropped["of another service"] += 1
        elif key in self._seen or not self._seen.add(key, ends):
            self.dropped["replayed"] += 1
        else:
            self._waiting.append(announcement)
            self._arrived.set()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Announcement:
        """Wait for the next announcement.

        Raises:
            Unavailable: Discovery is off, or the broker is not connected.
            PermissionDenied: The listener has no right to read.
        """
        await asyncio.wait([self._opening])  # `aclose` cancels it, and must not cancel the reader
        if not self.is_closed:
            self._opening.result()
        while not self._waiting:
            if self.is_closed:
                raise StopAsyncIteration
            self._arrived.clear()
            await self._arrived.wait()
        return self._waiting.popleft()

    async def aclose(self) -> None:
        """Stop to listen."""
        if self.is_closed:
            return
        self.is_closed = True
        self._opening.cancel()
        await asyncio.wait([self._opening])
        if not self._opening.cancelled():
            self._opening.exception()  # asyncio logs an exception that is never retrieved
        self._arrived.set()
        try:
            await self._link.close()
        except Unavailable as error:
            log.debug("the queue of announcements: %s", error, extra={"why": str(error)})
