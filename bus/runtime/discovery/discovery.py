"""Discovery of one bus: it answers questions about its process, and asks other processes."""

import asyncio
import logging
from contextlib import suppress
from typing import Literal, Self, TypeVar

from bus.errors import BusError, Unavailable
from bus.messaging.control import ALL, ANNOUNCEMENT_TYPE, Announcement, Answer, Question, Target
from bus.messaging.envelope import REPLY_SUFFIX, Envelope
from bus.messaging.service_info import InstanceState
from bus.messaging.topology.control import announcement_key, control_topology
from bus.runtime.discovery.announcements import build_announcement
from bus.runtime.discovery.answers import AnswerBodies
from bus.runtime.discovery.asker import Announcements
from bus.runtime.discovery.control_asker import ControlAsker
from bus.runtime.discovery.control_link import ControlLink, Member
from bus.runtime.discovery.report import Report
from bus.runtime.discovery.responder import Execute, Responder
from bus.runtime.service_runtime import ServiceRuntime

__all__ = ["Discovery", "NoDiscovery", "discovery_of"]

log = logging.getLogger("bus.discovery")

R = TypeVar("R", bound=InstanceState)

ANNOUNCE_SECONDS = 5.0
"""Maximum seconds until the start is announced after the bus serves its router."""
START_SECONDS = 0.25
"""Maximum seconds by which the control channel delays the start of the bus."""
CLOSE_SECONDS = 0.25
"""Maximum seconds by which an announcement of the stop delays the end of the bus."""


class Discovery:
    """The part of a bus that uses the control channel. It implements `Asker`."""

    def __init__(self, member: Member, report: Report, execute: Execute | None = None) -> None:
        """Create the discovery of a process that `report` describes, and that obeys `execute`."""
        self._member, self._report = member, report
        self._link = ControlLink(member, control_topology(member.source, member.instance))
        bodies = self._bodies = AnswerBodies(
            report, member.max_body_bytes, is_flooded=self._is_flooded
        )
        self.responder = Responder(member, self._link, bodies, execute)
        self.asker = ControlAsker(member, self._link)
        self._announcing: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Open the control channel. Wait a moment, because it is usually ready at once."""
        self.responder.start()
        await self._link.open(self._on_message)
        with suppress(Unavailable):
            await self._link.wait_ready(START_SECONDS)

    def _on_message(self, message: Envelope) -> None:
        if message.type.endswith(REPLY_SUFFIX):
            self.asker.on_answer(message)
        elif message.type != ANNOUNCEMENT_TYPE:
            self.responder.on_question(message)

    def _is_flooded(self) -> bool:
        return self._link.is_flooded or self.responder.refusals.is_flooded

    async def ask(
        self,
        question: Question[R],
        target: Target = ALL,
        *,
        window: float = 1.0,
        expected: int | None = None,
    ) -> list[Answer[R]]:
        """Ask live instances; see `Asker.ask`."""
        return await self.asker.ask(question, target, window=window, expected=expected)

    def announcements(self) -> Announcements:
        """Return the announcements of all services; see `Asker.announcements`."""
        return self.asker.announcements()

    def forget_info(self) -> None:
        """Build the next answer to INFO again, because the contracts have changed."""
        self._bodies.forget_info()

    def announce(self, event: Literal["started", "stopping"]) -> None:
        """Start to announce an event of this process. The announcement can be lost."""
        task = asyncio.get_running_loop().create_task(self._announce(event))
        self._announcing.add(task)
        task.add_done_callback(self._announcing.discard)

    async def _announce(self, event: Literal["started", "stopping"]) -> None:
        try:
            if event == "started":
                await self._link.wait_ready(ANNOUNCE_SECONDS)
            message = build_announcement(self._member, self._report.state(), event)
            await self._link.send(message, announcement_key(self._member.source))
        except BusError as error:
            log.debug("%s was not announced: %s", event, error, extra={"why": str(error)})

    async def close(self) -> None:
        """Close the control channel. Wait a moment for the announcement of the stop."""
        if self._announcing:
            await asyncio.wait(self._announcing, timeout=CLOSE_SECONDS)
        for task in self._announcing:
            task.cancel()
        await self.responder.close()
        await self.asker.close()
        with suppress(BusError):
            await self._link.close()


class NoDiscovery:
    """The discovery of a process with `BUS_DISCOVERY=off`: it has no queue, and cannot ask."""

    async def start(self) -> None:
        """Do nothing."""

    def forget_info(self) -> None:
        """Do nothing."""

    def announce(self, event: Literal["started", "stopping"]) -> None:
        """Do nothing."""

    async def close(self) -> None:
        """Do nothing."""

    async def ask(
        self,
        question: Question[R],
        target: Target = ALL,  # noqa: ARG002 - as in `Asker`
        *,
        window: float = 1.0,  # noqa: ARG002 - as above
        expected: int | None = None,  # noqa: ARG002 - as above
    ) -> list[Answer[R]]:
        """Raise `Unavailable`, because discovery is off."""
        raise _is_off(question.name)

    def announcements(self) -> Announcements:
        """Return an iterator that raises `Unavailable`, because discovery is off."""
        return NoAnnouncements()


class NoAnnouncements:
    """The announcements of a process without discovery."""

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Announcement:
        """Raise `Unavailable`."""
        raise _is_off("announcements")

    async def aclose(self) -> None:
        """Do nothing."""


def discovery_of(
    runtime: ServiceRuntime, report: Report, execute: Execute | None = None
) -> Discovery | NoDiscovery:
    """Return the discovery of a bus, as its settings specify.

    Args:
        runtime: The objects that all parts of the bus share.
        report: The answers to questions about the bus.
        execute: Function that obeys orders.
    """
    settings = runtime.settings
    if settings.discovery == "off":
        return NoDiscovery()
    member = Member(
        source=runtime.service,
        receiver=runtime.service,
        instance=runtime.instance,
        transport=runtime.transport,
        guard=runtime.security.identity.control,
        max_body_bytes=settings.max_message,
        leeway=settings.clock_leeway,
        clock=runtime.clock,
    )
    return Discovery(member, report, execute)


def _is_off(subject: str) -> Unavailable:
    return Unavailable(f"{subject}: discovery is off (BUS_DISCOVERY=off). Set BUS_DISCOVERY=on.")
