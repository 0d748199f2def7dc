"""The chaos experiment of one process: it decides which message gets which fault.

The experiment injects faults where messages are handled. So a caller sees the same as from a
service that is ill, and its policies count the same.
"""

import asyncio
import logging
import random
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Protocol

from bus.errors import BusError, error_for
from bus.messaging.chaos_info import ChaosInfo
from bus.messaging.instruments import CHAOS_FAULTS
from bus.messaging.labels import one_line
from bus.messaging.ports.meter import NO_METER, Meter
from bus.messaging.resilience.chaos_plan import (
    DEFAULT_CHAOS_SECONDS,
    MAX_CHAOS_SECONDS,
    ChaosPlan,
    Fault,
    FaultKind,
    operation_of,
)
from bus.messaging.timers import utc_date_and_time

__all__ = ["Chaos", "Experiment", "Timer"]

log = logging.getLogger("bus.chaos")

MAX_SEED = 2**31


class Timer(Protocol):
    """A call that was scheduled."""

    def cancel(self) -> None:
        """Prevent the call."""
        ...


@dataclass(slots=True, kw_only=True)
class Experiment:
    """A running experiment."""

    plan: ChaosPlan
    by: str
    """Operator who started it, or `the settings`."""
    reason: str
    since: float
    """Begin, in seconds since the epoch."""
    until: float
    """End, in seconds since the epoch."""
    seed: int
    timer: Timer | None = None
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    """Set at the end of the experiment."""
    faults: dict[str, tuple[Fault, ...]] = field(default_factory=dict)
    """The faults by the type of the message."""
    counts: Counter[str] = field(default_factory=Counter)
    """Number of injected faults by kind."""


class Chaos:
    """The chaos experiment of one process, or none. The bus owns this object."""

    def __init__(
        self,
        service: str,
        *,
        clock: Callable[[], float],
        meter: Meter = NO_METER,
        call_later: Callable[[float, Callable[[], None]], Timer] | None = None,
    ) -> None:
        """Create an object without an experiment.

        Args:
            service: Name of the service, for the log.
            clock: Function that returns seconds since the epoch.
            meter: Meter that counts the injected faults.
            call_later: Function that calls another one after some seconds, as an event loop does.
                Without it, only `stop` ends an experiment.
        """
        self._service, self._clock, self._meter = service, clock, meter
        self._call_later = call_later
        self._random = random.Random()  # noqa: S311 - faults need no secret
        self.experiment: Experiment | None = None
        """The running experiment. It is None for nearly all messages, and then costs nothing."""

    def start(
        self, plan: ChaosPlan, *, by: str, reason: str, until: float | None = None
    ) -> Experiment:
        """Start an experiment, which replaces the running one. It ends by itself.

        Args:
            plan: The faults.
            by: Operator who starts it, or `the settings`.
            reason: Reason of the operator.
            until: End, in seconds since the epoch. None: the end of the plan.
        """
        self.stop(f"replaced by {by}")
        now = self._clock()
        seconds = plan.seconds or DEFAULT_CHAOS_SECONDS if until is None else until - now
        seconds = max(0.0, min(seconds, MAX_CHAOS_SECONDS))
        seed = random.randrange(MAX_SEED) if plan.seed is None else plan.seed  # noqa: S311 - as above
        self._random.seed(seed)
        experiment = self.experiment = Experiment(
            plan=plan, by=by, reason=reason, since=now, until=now + seconds, seed=seed
        )
        if self._call_later is not None:
            experiment.timer = self._call_later(seconds, lambda: self._expire(experiment))
        log.warning(
            "%s: chaos begins, by %s (%s), until %s, with seed=%d: %s",
            self._service,
            one_line(by),
            one_line(reason),
            utc_date_and_time(experiment.until),
            seed,
            plan,
            extra={
                "service": self._service,
                "operator": by,
                "reason": reason,
                "until": int(experiment.until * 1000),
                "plan": str(plan),
                "seed": seed,
            },
        )
        return experiment

    def _expire(self, experiment: Experiment) -> None:
        if self.experiment is experiment:
            self.stop("its time is over")

    def stop(self, why: str) -> bool:
        """End the experiment. Return False if none runs.

        Args:
            why: Cause of the end, for the log.
        """
        experiment, self.experiment = self.experiment, None
        if experiment is None:
            return False
        experiment.ended.set()
        if experiment.timer is not None:
            experiment.timer.cancel()
        counts = ", ".join(f"{kind} {count}" for kind, count in sorted(experiment.counts.items()))
        log.warning(
            "%s: chaos ends, because %s. Injected faults: %s",
            self._service,
            one_line(why),
            counts or "none",
            extra={"service": self._service, "why": why, "faults": dict(experiment.counts)},
        )
        return True

    def info(self) -> ChaosInfo | None:
        """Return the running experiment for reports, or None."""
        experiment = self.experiment
        if experiment is None:
            return None
        return ChaosInfo(
            rules=tuple(map(str, experiment.plan.rules)),
            since=int(experiment.since * 1000),
            until=int(experiment.until * 1000),
            ordered_by=one_line(experiment.by),
            reason=experiment.reason,
            seed=experiment.seed,
            faults=dict(experiment.counts),
        )

    # --- Decisions for one message ---

    def latency(self, type_: str) -> float:
        """Return the seconds to wait before a message is handled. 0 for no wait.

        If several latencies apply, the message waits for the longest one.
        """
        hits = self._hits(type_, "latency")
        return max((self._random.uniform(each.low, each.high) for each in hits), default=0.0)

    async def delay(self, type_: str) -> None:
        """Wait before a message is handled. The wait ends with the experiment."""
        experiment, seconds = self.experiment, self.latency(type_)
        if experiment is None or not seconds:
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await experiment.ended.wait()

    def error(self, type_: str) -> BusError | None:
        """Return the error that the handler of a message raises, or None."""
        faults = self._hits(type_, "error")
        if not faults:
            return None
        return error_for(faults[0].code, "a chaos experiment injected this error")

    def drops_reply(self, type_: str) -> bool:
        """Return True if the reply to a request is not sent."""
        return bool(self._hits(type_, "drop-reply"))

    def duplicates(self, type_: str) -> bool:
        """Return True if a message is handled twice."""
        return bool(self._hits(type_, "duplicate"))

    def _hits(self, type_: str, kind: FaultKind) -> list[Fault]:
        """Return the faults of one kind for this message, and count them."""
        experiment = self.experiment
        if experiment is None:
            return []
        faults = experiment.faults.get(type_)
        if faults is None:
            faults = experiment.faults[type_] = experiment.plan.faults_of(type_)
        hits = [each for each in faults if each.kind == kind and self._random.random() < each.share]
        if hits:
            experiment.counts[kind] += 1
            self._meter.count(CHAOS_FAULTS, (operation_of(type_), kind))
        return hits
