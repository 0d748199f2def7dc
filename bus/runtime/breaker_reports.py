"""The reports of the circuit breakers: log lines, metrics, and the entries in STATS."""

import logging
from collections.abc import Callable
from typing import Final

from bus.messaging.breaker_info import BreakerInfo, BreakerState
from bus.messaging.instruments import BREAKER_CHANGES, BREAKER_STATE
from bus.messaging.ports.meter import Meter
from bus.messaging.resilience.breakers import Breakers
from bus.messaging.timers import format_seconds

__all__ = ["STATE_VALUES", "disturbed_breakers", "reported_breakers"]

log = logging.getLogger("bus.breakers")

STATE_VALUES: Final[dict[BreakerState, int]] = {
    "closed": 0,
    "half-open": 1,
    "open": 2,
    "isolated": 3,
}
"""Value of the gauge `breaker.state` for each state."""


def reported_breakers(
    timer: Callable[[], float], clock: Callable[[], float], meter: Meter
) -> Breakers:
    """Return the breakers of a process, which report their state and its changes.

    Args:
        timer: Function that returns monotonic seconds. Any thread can call it.
        clock: Function that returns seconds since the epoch.
        meter: Meter of the process.
    """

    def on_change(info: BreakerInfo) -> None:
        meter.count(BREAKER_CHANGES, (info.name, info.kind, info.state))
        if info.kind == "call" and info.ordered_by is None:
            _log_change(info)

    return ReportedBreakers(meter, timer=timer, clock=clock, on_change=on_change)


class ReportedBreakers(Breakers):
    """Breakers with a gauge of their states, which is set when the meter is read."""

    def __init__(
        self,
        meter: Meter,
        *,
        timer: Callable[[], float],
        clock: Callable[[], float],
        on_change: Callable[[BreakerInfo], None],
    ) -> None:
        """Create an object without breakers. `Breakers` describes the other arguments."""
        super().__init__(timer=timer, clock=clock, on_change=on_change)
        self._meter = meter
        meter.report_before_read(self)

    def report(self) -> None:
        """Set the gauges."""
        for breaker in self:
            value = STATE_VALUES[breaker.state]
            self._meter.set(BREAKER_STATE, (breaker.name, breaker.kind), value)


def disturbed_breakers(breakers: Breakers) -> tuple[BreakerInfo, ...]:
    """Return the breakers that are not closed, sorted by name."""
    infos = [breaker.info() for breaker in breakers if breaker.state != "closed"]
    return tuple(sorted(infos, key=lambda info: (info.name, info.kind)))


def _log_change(info: BreakerInfo) -> None:
    """Write one line if a breaker opens or closes. An order has a line of its own."""
    facts = {"type": info.name, "why": info.cause}
    if info.state == "open":
        log.warning(
            "%s: the circuit breaker is open, after %s. Requests fail at once for %s, and then one "
            "request is sent as a probe",
            info.name,
            info.cause,
            format_seconds(info.wait or 0),
            extra=facts,
        )
    elif info.state == "closed":
        log.info(
            "%s: the circuit breaker is closed again, after %s", info.name, info.cause, extra=facts
        )
