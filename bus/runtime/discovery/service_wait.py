"""Wait until instances of a service are ready."""

import asyncio
import re
import time
from collections.abc import Callable, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import Any, Self

from bus.contracts.names import check_part
from bus.errors import BusError, ContractError, Unavailable
from bus.messaging.control import GetInfo, Ping, Question, Target
from bus.messaging.plurals import count_noun
from bus.messaging.service_info import InstanceInfo
from bus.runtime.discovery.asker import Asker
from bus.runtime.discovery.live_view import LiveInstance, LiveView

__all__ = ["Requirement", "ServiceWait"]

VERSIONED = re.compile(r"(?P<name>.+)\.v(?P<version>[0-9]+)")
WINDOW_SECONDS = 1.0
PAUSE_SECONDS = 0.5
"""Seconds between two questions that were answered at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Requirement:
    """The instances that a caller waits for."""

    service: str
    operation: str | None = None
    """Name of a contract without its version. None: any contract, or none."""
    contract_version: int | None = None
    """Version of the contract. None: any version."""
    version: str | None = None
    """Version of the service (`BUS_SERVICE_VERSION`). None: any version."""
    instances: int = 1
    all: bool = False
    """True if no instance of another version of the service may be live."""

    @classmethod
    def parse(
        cls, text: str, *, version: str | None = None, instances: int = 1, all_: bool = False
    ) -> Self:
        """Return the requirement for a service, an operation or a type.

        Args:
            text: `transcription`, `transcription.get` or `transcription.get.v1`.
            version: Required version of the service.
            instances: Required number of instances.
            all_: True if no instance of another version may be live. Needs `version`.

        Raises:
            ContractError: The name of the service is invalid.
        """
        match = VERSIONED.fullmatch(text)
        name, contract_version = (match["name"], int(match["version"])) if match else (text, None)
        service, _, operation = name.partition(".")
        try:
            check_part(service, "service")
        except ContractError as error:
            raise ContractError(f"{error}, as in transcription or transcription.get.v1.") from None
        return cls(
            service=service,
            operation=name if operation else None,
            contract_version=contract_version,
            version=version,
            instances=instances,
            all=all_,
        )

    @property
    def subject(self) -> str:
        """The service, the operation or the type."""
        if self.operation is None:
            return self.service
        suffix = "" if self.contract_version is None else f".v{self.contract_version}"
        return f"{self.operation}{suffix}"

    @property
    def question(self) -> Question[Any]:
        """The question for the facts that the requirement needs."""
        return Ping() if self.operation is None else GetInfo()

    def accepts(self, instance: LiveInstance) -> bool:
        """Return True if the instance is ready, and has the required version and contract."""
        return (
            instance.state == "ready"
            and self.version in {None, instance.record.version}
            and self.serves(instance)
        )

    def describe(self, instance: LiveInstance) -> str:
        """Return the facts about an instance that decide whether it is accepted."""
        record = instance.record
        facts = [f"{record.instance}: {instance.state}"]
        if record.version:
            facts.append(f"version {record.version}")
        if not self.serves(instance):
            facts.append(f"does not serve {self.subject}")
        return ", ".join(facts)

    def serves(self, instance: LiveInstance) -> bool:
        """Return True if the instance has the required contract, or none is required."""
        return self.operation is None or bool(self._served_by(instance))

    def _served_by(self, instance: LiveInstance) -> list[str]:
        """Return the types of the instance that fulfil the requirement."""
        record = instance.record
        types = (
            [contract.type for contract in record.contracts]
            if isinstance(record, InstanceInfo)
            else []
        )
        return [each for each in types if self._is_required(each)]

    def _is_required(self, type_: str) -> bool:
        match = VERSIONED.fullmatch(type_)
        return (
            match is not None
            and match["name"] == self.operation
            and self.contract_version in {None, int(match["version"])}
        )


class ServiceWait:
    """The wait of one caller, and the instances that it has seen."""

    def __init__(
        self, requirement: Requirement, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Create the wait. `clock` returns seconds."""
        self._requirement = requirement
        self._view = LiveView(clock=clock)
        self.error: BusError | None = None
        """Reason why the last question was not sent."""
        self._has_round = False
        """True if all instances have had the time to answer once."""

    async def run(self, asker: Asker) -> list[LiveInstance]:
        """Return the required instances when they are ready. Wait for them without a time limit.

        An announcement ends the wait at once. Without the right to read, the wait notices a start
        within about a second.

        Raises:
            PermissionDenied: The asker has no right to ask the service.
        """
        announced = asyncio.Event()
        listening = asyncio.ensure_future(self._listen(asker, announced))
        try:
            # Instances of other versions are found only by a whole window.
            is_versioned = self._requirement.version is not None
            expected = None if is_versioned else self._requirement.instances
            while True:
                announced.clear()
                await self._ask_or_listen(asker, expected, announced)
                if self._is_fulfilled():
                    return self.accepted()
                with suppress(TimeoutError):
                    await asyncio.wait_for(announced.wait(), PAUSE_SECONDS)
                # After an announcement, the known instances are enough. If not, wait for the whole
                # window: an instance that is not ready can answer before one that is ready.
                is_known = announced.is_set() and not is_versioned
                expected = max(1, len(self.live())) if is_known else None
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)

    def accepted(self) -> list[LiveInstance]:
        """Return the live instances that fulfil the requirement."""
        return [each for each in self.live() if self._requirement.accepts(each)]

    def others(self) -> list[LiveInstance]:
        """Return the live instances of other versions than the required one, in any state."""
        version = self._requirement.version
        return [each for each in self.live() if version not in {None, each.record.version}]

    def _is_fulfilled(self) -> bool:
        required = self._requirement
        if required.version is not None and not self._has_round:
            return False
        has_enough = len(self.accepted()) >= required.instances
        return has_enough and not (required.all and self.others())

    def live(self) -> Sequence[LiveInstance]:
        """Return the live instances of the service that were seen, in any state."""
        return self._view.live(self._requirement.service)

    async def _ask_or_listen(
        self, asker: Asker, expected: int | None, announced: asyncio.Event
    ) -> None:
        """Ask once. Stop early if an announcement arrives."""
        asking = asyncio.ensure_future(self._ask(asker, expected))
        waiting = asyncio.ensure_future(announced.wait())
        try:
            await asyncio.wait({asking, waiting}, return_when=asyncio.FIRST_COMPLETED)
            if asking.done():
                asking.result()
        finally:
            asking.cancel()
            waiting.cancel()
            await asyncio.gather(asking, waiting, return_exceptions=True)

    async def _ask(self, asker: Asker, expected: int | None) -> None:
        target, begun = Target(self._requirement.service), self._view.clock()
        try:
            answers = await asker.ask(
                self._requirement.question, target, window=WINDOW_SECONDS, expected=expected
            )
        except Unavailable as error:
            self.error = error
            return
        self.error = None
        if expected is None:
            self._has_round = True
            self._view.add_round(answers, target, begun=begun)
            return
        for answer in answers:  # other instances may not have had the time to answer
            name = answer.record.instance
            self._view.add_round([answer], Target(target.service, name), begun=begun)

    async def _listen(self, asker: Asker, announced: asyncio.Event) -> None:
        """Record announcements. The caller may have no right to read them, or no broker yet."""
        async with aclosing(asker.announcements()) as stream:
            with suppress(BusError):
                async for announcement in stream:
                    if announcement.service == self._requirement.service:
                        self._view.announce(announcement)
                        announced.set()

    def describe(self) -> str:
        """Return the instances that were seen, for the error of a caller that stops waiting."""
        required, live, found = self._requirement, self.live(), len(self.accepted())
        if self.error is not None and not live:
            return str(self.error).rstrip(".")
        if not live:
            return f"no instance of {required.service} answered"
        seen = "; ".join(map(required.describe, live[:MAX_SHOWN]))
        more = f"; and {len(live) - MAX_SHOWN} more" if len(live) > MAX_SHOWN else ""
        needed = count_noun(required.instances, "required instance")
        others = len(self.others()) if required.all else 0
        also = f", and {count_noun(others, 'instance')} of other versions live" if others else ""
        return f"{found} of {needed} ready{also} ({seen}{more})"


MAX_SHOWN = 5
"""Maximum number of instances in the description of a wait."""
