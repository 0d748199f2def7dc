"""The run of `bus watch`: a tap, its bindings, and the count of missed messages."""

import asyncio
from collections.abc import Callable, Collection
from dataclasses import dataclass

from bus.contracts.contract import Kind
from bus.errors import (
    BusError,
    ConfigurationError,
    FailedPrecondition,
    Unauthenticated,
    Unavailable,
)
from bus.messaging.labels import one_line
from bus.messaging.plurals import count_noun
from bus.messaging.topology.names import EVENTS
from bus.operations.tap_bindings import GUARDED, Key, served_keys
from bus.operations.topology.broker_state import queue_bindings
from bus.settings import Settings
from bus.transports.rabbitmq.tap import Tap, TappedMessage, open_tap

__all__ = ["Watch", "WatchOptions"]

CHECK_INTERVAL_SECONDS = 1.0
"""Seconds between two checks of the bindings and of the number of dropped messages."""
MAX_FAILED_CHECKS = 3
"""Number of failed checks in a row after which the tap leaves the requests."""
RECONNECT_SECONDS = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchOptions:
    """The messages to watch."""

    pattern: str = "#"
    kinds: tuple[Kind, ...] = ("request", "event")
    max_body_bytes: int = 0
    """Maximum bytes of a payload that is kept. 0 if no payload is needed."""


@dataclass(slots=True)
class Watch:
    """A watch of messages. It connects again after a lost connection."""

    settings: Settings
    options: WatchOptions
    on_message: Callable[[TappedMessage], None]
    say: Callable[[str], None]
    """Function that shows a sentence to the user."""
    missed: int = 0
    """Number of messages that the broker dropped, because the tap was full."""
    has_gap: bool = False
    """True if the connection was lost, so that an unknown number of messages was missed."""
    _bound: frozenset[Key] = frozenset()
    _failed_checks: int = 0

    async def run(self, stop: asyncio.Event) -> None:
        """Watch until `stop` is set.

        Raises:
            PermissionDenied: The broker's user may not tap messages.
            FailedPrecondition: The exchanges do not exist.
            Unavailable: The broker does not answer at the start. Or only requests are watched,
                and the management API cannot list their queues.
        """
        has_started = is_lost = False
        while not stop.is_set():
            try:
                async with open_tap(
                    self.settings, self.on_message, max_body_bytes=self.options.max_body_bytes
                ) as tap:
                    await self._begin(tap, is_first=not has_started)
                    has_started, is_lost = True, False
                    await self._follow(tap, stop)
            except Unavailable as error:
                if not has_started:
                    raise
                if not is_lost:
                    self.say(
                        f"the connection was lost ({one_line(str(error))}); connecting again. "
                        "Messages are missed until then"
                    )
                self.has_gap = is_lost = True
                await wait(stop, RECONNECT_SECONDS)

    async def _begin(self, tap: Tap, *, is_first: bool) -> None:
        """Bind the tap, and show what it receives."""
        self._bound, self._failed_checks = frozenset(), 0
        if "event" in self.options.kinds:
            await bind_events(tap, self.options.pattern)
        if any(kind in GUARDED for kind in self.options.kinds):
            await self._begin_guarded(tap)
        if is_first:
            self.say(describe_start(self.options, self._bound))

    async def _begin_guarded(self, tap: Tap) -> None:
        try:
            await self._refresh(tap)
        except (Unavailable, Unauthenticated, ConfigurationError) as error:
            if "event" not in self.options.kinds:
                raise Unavailable(
                    f"requests cannot be watched without the management API ({error}). "
                    "Set BUS_MANAGEMENT_URL=http://host:port."
                ) from None
            self.say(f"requests are not watched: {one_line(str(error))}")
            self._failed_checks = MAX_FAILED_CHECKS

    async def _follow(self, tap: Tap, stop: asyncio.Event) -> None:
        """Check the bindings and count the dropped messages, until `stop` is set."""
        while not await wait(stop, CHECK_INTERVAL_SECONDS):
            tap.check()
            await self._count(tap)
            if any(kind in GUARDED for kind in self.options.kinds):
                await self._check(tap)
        await self._count(tap)

    async def _count(self, tap: Tap) -> None:
        dropped = await tap.count_dropped()
        if dropped:
            self.missed += dropped
            self.say(f"the tap was full: {count_noun(dropped, 'message')} missed")

    async def _check(self, tap: Tap) -> None:
        """Follow the queues of requests. After repeated failures, leave them."""
        try:
            await self._refresh(tap)
        except BusError as error:
            tap.check()
            self._failed_checks += 1
            if self._failed_checks == MAX_FAILED_CHECKS and self._bound:
                await tap.unbind(self._bound)
                self._bound = frozenset()
                self.say(
                    "requests are not watched any more, because their queues cannot be "
                    f"checked: {one_line(str(error))}"
                )
        else:
            if self._failed_checks >= MAX_FAILED_CHECKS:
                self.say("requests are watched from now on")
            self._failed_checks = 0

    async def _refresh(self, tap: Tap) -> None:
        """Bind the tap to the keys of queues that exist now, and to no other key."""
        bindings = await queue_bindings(self.settings)
        served = served_keys(bindings, self.options.kinds, self.options.pattern)
        gone, new = self._bound - served, served - self._bound
        if gone:
            await tap.unbind(gone)
            self._bound -= gone
        if new:
            await tap.bind(new)
            self._bound |= new


async def bind_events(tap: Tap, pattern: str) -> None:
    """Bind the tap to the exchange of events."""
    try:
        await tap.bind([(EVENTS, pattern)])
    except FailedPrecondition:
        raise FailedPrecondition(
            f"exchange {EVENTS} does not exist. Start a service, which declares it, or run "
            "`bus topology apply`."
        ) from None


async def wait(stop: asyncio.Event, seconds: float) -> bool:
    """Wait for `stop`, and return True if it is set in time."""
    try:
        async with asyncio.timeout(seconds):
            await stop.wait()
    except TimeoutError:
        return False
    return True


def describe_start(options: WatchOptions, bound: Collection[Key]) -> str:
    """Return the line that shows what the tap receives."""
    parts = []
    if "event" in options.kinds:
        parts.append(f"all events that match {options.pattern!r}")
    if "request" in options.kinds:
        parts.append(f"requests of {count_noun(len(bound), 'type')}")
    return f"watching {', '.join(parts)}; Ctrl-C ends"
