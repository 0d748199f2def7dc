"""The gate of a dependency: it holds events and jobs in this process while the dependency is down.

All handlers of one process that name the dependency share the gate. ADR 0040 has the reasons.
"""

import asyncio
import logging
from collections import deque
from itertools import count

from bus.errors import ContractError, error_name
from bus.messaging.resilience.breakers import Breakers
from bus.messaging.resilience.circuit_breaker import Permit
from bus.messaging.resilience.dependency import Dependency
from bus.messaging.resilience.dependency_admission import DependencyAdmission
from bus.messaging.timers import format_seconds, loop_time
from bus.runtime.held_messages import HeldMessage, HoldEnd

__all__ = ["DependencyGate", "DependencyGates"]

log = logging.getLogger("bus.dependency")

CHECK_SECONDS = 1.0
"""Maximum seconds between two checks while messages are held. An operator's order can end the
isolation of a breaker at any time."""


MAX_CAUSE_LENGTH = 100
"""Maximum number of characters in the name of an error's class."""
MAX_SENDERS = 1_000
"""Maximum number of senders that wait for their next turn. Any client can invent names."""


class DependencyGate:
    """Holds messages, and admits them in the order of their arrival.

    While the dependency is down, the senders take turns: the next probe is the oldest held message
    of a sender that had no probe yet. So a sender with messages that always fail does not keep the
    messages of all others.
    """

    def __init__(self, service: str, admission: DependencyAdmission) -> None:
        self._service = service
        self._admission = admission
        self._held: deque[tuple[HeldMessage, float]] = deque()
        """The held messages, with the seconds that their handlers may take."""
        self._probed: set[str] = set()
        """The senders that had a probe in this round, since the breaker opened."""
        self._timer: asyncio.TimerHandle | None = None
        self._opened_at: float | None = None
        """Time at which the breaker opened. None while it is closed."""
        self._probes = self._returned = 0
        """Messages that were admitted, and messages that returned, since the breaker opened."""
        self.arrivals = count()
        """Numbers of the messages in the order of their arrival."""

    @property
    def dependency(self) -> Dependency:
        """The dependency, as it was declared."""
        return self._admission.dependency

    @property
    def is_open(self) -> bool:
        """True if the gate holds messages, and admits only probes."""
        return self._admission.is_open

    @property
    def is_paused(self) -> bool:
        """True if messages wait, or would wait now. A message can try if no probe is due later."""
        return self.retry_after > 0 or (self.is_open and bool(self._held))

    @property
    def retry_after(self) -> float:
        """Seconds until the next probe. 0 if a message can start now."""
        return self._admission.retry_after

    @property
    def cause(self) -> str:
        """The reason why the breaker is open, for an error message."""
        return self._admission.breaker.cause or "open"

    # --- Admission ---

    def enter(self, sender: str, seconds: float) -> Permit | None:
        """Return a permit for an event or job. Return None if the message must be held.

        A message that arrives later overtakes a held one only as a probe.

        Args:
            sender: Service that the message names as its sender.
            seconds: Maximum seconds that the message may take.
        """
        return None if self._held else self._reserve(sender, seconds)

    def enter_at_once(self, sender: str, seconds: float) -> Permit | None:
        """Return a permit for a request, which cannot wait. Return None if it must be refused."""
        if self._held and sender in self._probed and self.is_open:
            self._release()  # the turn is another sender's, if a probe is due
        return self._note(self._admission.admit(seconds, is_limited=False), sender)

    def begin(self, permit: Permit) -> bool:
        """Begin a message with the permit of `enter` or `hold`.

        Returns:
            False if the permit is void, and the message must be held again.
        """
        # A void permit admits no other message: the caller holds this one first.
        return self._admission.begin(permit)

    def withdraw(self, permit: Permit) -> None:
        """Take the permit of `enter` or `hold` from a message that does not begin."""
        self._admission.withdraw(permit)
        self._after_result()

    def hold(self, message: HeldMessage, seconds: float) -> None:
        """Hold a message until it receives a permit, or until its hold ends.

        The held messages stay in the order of their arrival. A message can be held again, after
        messages that arrived later.
        """
        held = self._held
        place = len(held)
        while place and held[place - 1][0].arrival > message.arrival:
            place -= 1
        held.insert(place, (message, seconds))
        self._note_change()  # an operator's order can have opened the breaker
        self._release()

    def _reserve(self, sender: str, seconds: float) -> Permit | None:
        return self._note(self._admission.reserve(seconds), sender)

    def _note(self, permit: Permit | None, sender: str) -> Permit | None:
        """Count a permit that is a probe, and return the permit."""
        if permit is not None and self._opened_at is not None:
            if permit.is_probe:
                self._probes += 1
                self._take_turn(sender)
            self._note_change()
        return permit

    def _take_turn(self, sender: str) -> None:
        if len(self._probed) >= MAX_SENDERS:
            self._probed.clear()
        self._probed.add(sender)

    def _release(self) -> None:
        """Admit the oldest held messages. A probe is the oldest one of the next sender."""
        held = self._held
        while held:
            if not held[0][0].is_waiting:
                held.popleft()
                continue
            if self.retry_after > 0:
                break
            message, seconds = self._next_probe() if self.is_open else held[0]
            permit = self._reserve(message.sender, seconds)
            if permit is None:
                break
            message.end(permit)
        self._schedule()

    def _next_probe(self) -> tuple[HeldMessage, float]:
        """Return the oldest held message of a sender without a probe in this round."""
        for each in self._held:
            if each[0].is_waiting and each[0].sender not in self._probed:
                return each
        self._probed.clear()
        return self._held[0]

    def _schedule(self) -> None:
        """Check the held messages at the time of the next probe, and at least every second."""
        if not self._held:
            return
        loop = asyncio.get_running_loop()
        at = loop.time() + min(self.retry_after or CHECK_SECONDS, CHECK_SECONDS)
        if self._timer is not None:
            if self._timer.when() <= at:
                return
            self._timer.cancel()
        self._timer = loop.call_at(at, self._check)

    def _check(self) -> None:
        """Return the messages that were held for too long, and admit the oldest other ones."""
        self._timer, now = None, loop_time()
        self._release()
        for message, _ in self._held:
            if message.until <= now:
                message.end(HoldEnd.RETURN)
        self._held = deque(each for each in self._held if each[0].is_waiting)

    # --- Results ---

    def succeed(self, permit: Permit) -> None:
        """Count a message after its handler has succeeded."""
        self._admission.succeed(permit)
        self._after_result()

    def fail(self, permit: Permit, error: BaseException) -> None:
        """Count a message that failed because of the dependency."""
        self._admission.fail(permit, error_name(error)[:MAX_CAUSE_LENGTH])
        self._after_result()

    def ignore(self, permit: Permit) -> None:
        """Count nothing: the message failed for another reason, or its handler did not run."""
        self._admission.ignore(permit)
        self._after_result()

    def count_return(self) -> None:
        """Count a message that returns by a retry tier, for the log."""
        self._returned += 1

    def _after_result(self) -> None:
        self._note_change()
        if self._held:
            self._release()

    # --- Log ---

    def _note_change(self) -> None:
        """Write a log line if the breaker has opened or closed since the last call."""
        is_open = self.is_open
        if is_open and self._opened_at is None:
            self._opened_at = loop_time()
            self._probes = self._returned = 0
            self._probed.clear()
            self._log_open()
        elif not is_open and self._opened_at is not None:
            seconds, self._opened_at = loop_time() - self._opened_at, None
            self._log_closed(seconds)

    def _log_open(self) -> None:
        dependency, cause = self.dependency, self.cause
        facts = {
            "service": self._service,
            "dependency": dependency.name,
            "cause": cause,
            "probe_interval": dependency.probe_interval,
        }
        log.warning(
            "%s: the dependency %s is down: %s; its events and jobs wait, and one message tries "
            "every %s",
            self._service,
            dependency.name,
            cause,
            format_seconds(dependency.probe_interval),
            extra=facts,
        )

    def _log_closed(self, seconds: float) -> None:
        name, held = self.dependency.name, sum(message.is_waiting for message, _ in self._held)
        facts = {
            "service": self._service,
            "dependency": name,
            "seconds": seconds,
            "probes": self._probes,
            "held": held,
            "returned": self._returned,
        }
        log.info(
            "%s: the dependency %s is back after %s (probes: %d, held messages: %d, messages that "
            "returned by a retry tier: %d)",
            self._service,
            name,
            format_seconds(seconds),
            self._probes,
            held,
            self._returned,
            extra=facts,
        )


class DependencyGates:
    """The gates of one process, by the name of the dependency. The bus owns this object."""

    def __init__(self, service: str, breakers: Breakers) -> None:
        """Create an object without gates. `breakers` are all breakers of the process."""
        self._service, self._breakers = service, breakers
        self._gates: dict[str, DependencyGate] = {}

    def of(self, dependency: Dependency) -> DependencyGate:
        """Return the gate of a dependency. Create it at the first call.

        Raises:
            ContractError: Another handler of this process names the dependency with other values.
        """
        gate = self._gates.get(dependency.name)
        if gate is None:
            breaker = self._breakers.of("dependency", dependency.name, dependency.policy)
            admission = DependencyAdmission(dependency, breaker)
            gate = self._gates[dependency.name] = DependencyGate(self._service, admission)
        if gate.dependency != dependency:
            raise ContractError(
                f"dependency {dependency.name!r}: two routers of this process give it different "
                "values. Write one Dependency, and pass it to the handlers of both routers."
            )
        return gate
