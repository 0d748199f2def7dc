"""A concurrency limit that adapts to the latency of a handler, by the gradient of the latency.

The algorithm is Gradient2 of Netflix's concurrency-limits (2018), with a probe. It compares the
latency of the last second with a long-term latency. If the last second is much slower, messages
wait for each other, and the limit falls. Otherwise the limit grows by the square root of itself.

A long-term average alone follows a lasting overload, and the limit grows without end. So the limit
is halved for one window now and then, as in BBR (Cardwell et al., 2016). If the latency falls with
the limit, messages waited for each other. If it stays, the handler itself takes this long. At the
limit, only this probe raises the long-term latency.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import sqrt

from bus.contracts.limits import check_count
from bus.errors import ContractError

__all__ = ["MAX_CONCURRENCY", "AdaptiveLimit", "GradientLimit"]

MAX_CONCURRENCY = 65535
"""The maximum concurrency of a handler. It is the prefetch of a consumer, an unsigned short."""
DEFAULT_START = 16

WINDOW_SECONDS = 1.0
"""Minimum length of a window. Its mean latency is one measurement."""
MIN_SAMPLES = 10
"""Minimum number of messages in a window."""
TOLERANCE = 1.5
"""Factor by which the latency may exceed the long-term latency before the limit falls."""
SMOOTHING = 0.2
"""Share of the new estimate in the next limit."""
LONG_TERM_WINDOWS = 600
WARM_UP_WINDOWS = 10
"""Number of the first windows, of which the long-term latency is the plain mean."""
LOWEST_GRADIENT = 0.5
RECOVERY = 0.95
"""Factor for a long-term latency that is more than twice the latency of the last window."""

STRAINED_GRADIENT = 0.67
MAX_STRAINED_WINDOWS = 5
"""Number of windows with a lower gradient in a row after which a probe is due."""
FIRST_PROBE_WINDOWS, MAX_PROBE_WINDOWS = 10, 60
"""Number of windows at the limit before the next probe. It doubles if a probe changes nothing.

A probe of which the limit is kept has changed something: a long queue needs several of them."""
FAILED_PROBE_SECONDS = 5.0
"""Seconds after the first window of a probe at which the probe ends if all messages fail early."""
OWN_LATENCY_SHARE = 0.8
"""Share of the latency before a probe from which the latency is the handler's own."""
QUEUED_LATENCY_SHARE = 0.6
"""Share of the latency before a probe up to which the limit of the probe is kept. Half of the
messages then take about half of the time, so the throughput is the same."""

HEADROOM = 1.5
"""Highest limit before the prefetch follows, as a multiple of the prefetch.

The latency above the prefetch is not known, because this number of messages has never run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AdaptiveLimit:
    """A number of messages that a handler runs at a time, which adapts to the handler's latency.

    While the latency stays the same, the limit grows up to `max`. If the latency grows because the
    handler runs too many messages at a time, the limit falls.

    >>> @router.request(GetInvoice, concurrency=AdaptiveLimit(max=64))
    ... async def get_invoice(request: GetInvoice) -> Invoice:
    ...     return Invoice(number=request.number)
    """

    min: int = 1
    """Lowest limit, at least 1."""
    max: int
    """Highest limit, at most 65535."""
    start: int | None = None
    """First limit, from `min` to `max`. The default is 16, or the nearest number in this range."""

    def __post_init__(self) -> None:
        """Check the numbers. Raise `ContractError` if one is invalid."""
        subject, error = "AdaptiveLimit", ContractError
        check_count(self.min, "min", subject, most=MAX_CONCURRENCY, error=error)
        check_count(self.max, "max", subject, most=MAX_CONCURRENCY, error=error)
        if self.min > self.max:
            raise ContractError(
                f"AdaptiveLimit: min ({self.min}) must not be above max ({self.max}). "
                f"Write a lower min."
            )
        if self.start is None:
            return
        check_count(self.start, "start", subject, most=MAX_CONCURRENCY, error=error)
        if not self.min <= self.start <= self.max:
            raise ContractError(
                f"AdaptiveLimit: start must be from {self.min} (min) to {self.max} (max), not "
                f"{self.start}. Leave start out, or write a number in this range."
            )

    @property
    def first(self) -> int:
        """The first limit."""
        if self.start is not None:
            return self.start
        return max(self.min, min(DEFAULT_START, self.max))


class _Window:
    """The messages that ended in one window."""

    __slots__ = ("count", "drops", "ends", "failed", "peak", "total")

    def __init__(self, ends: float) -> None:
        self.ends = ends
        self.count = self.drops = self.peak = 0
        self.failed = 0  # in a row
        self.total = 0.0

    @property
    def drop_share(self) -> float:
        return self.drops / (self.count + self.drops)

    @property
    def mean(self) -> float | None:
        return self.total / self.count if self.count else None


class GradientLimit:
    """The present limit of one handler in one process. Each message that ends can change it."""

    def __init__(
        self, bounds: AdaptiveLimit, *, timer: Callable[[], float], prefetch: int | None = None
    ) -> None:
        """Create a limit that begins at `bounds.first`.

        Args:
            bounds: The lowest, the highest and the first limit.
            timer: Function that returns monotonic seconds.
            prefetch: Maximum number of messages that the broker lets run. None: it limits none,
                because a message is acked before it runs.
        """
        self._bounds, self._timer = bounds, timer
        self._prefetch = prefetch
        self._estimate = float(bounds.first)
        self._window = _Window(ends=0.0)
        self._long = 0.0
        """Long-term latency in seconds."""
        self._windows = 0
        self._last: float | None = None
        """Mean latency of the last window."""
        self._strained = 0
        """Number of windows in a row with a low gradient."""
        self._since_probe, self._probe_windows = 0, FIRST_PROBE_WINDOWS
        self._probe: int | None = None
        """Limit during a probe. None if no probe runs."""
        self._probe_began: float | None = None
        """Time from which at most `_probe` messages have run. None: more of them still run."""

    @property
    def limit(self) -> int:
        """The number of messages that may run at a time now. It is at most the prefetch.

        Without this bound, the slots of an overloaded handler would never be full.
        """
        return self._full if self._probe is None else min(self._probe, self._full)

    @property
    def settled(self) -> int:
        """The limit without a probe and the prefetch. It is the next prefetch."""
        return int(self._estimate)

    @property
    def _full(self) -> int:
        """The number of messages that may run at a time without a probe."""
        return self.settled if self._prefetch is None else min(self.settled, self._prefetch)

    def follow(self, prefetch: int) -> None:
        """Note that the prefetch of the consumer has changed.

        Args:
            prefetch: The new prefetch, at least 1.
        """
        if self._prefetch is not None:
            self._prefetch = prefetch

    def succeeded(self, seconds: float, in_flight: int) -> None:
        """Count a message that was handled without an error.

        Args:
            seconds: Duration of the handler.
            in_flight: Number of messages that ran when the message ended, with this message.
        """
        now, window = self._timer(), self._window
        window.failed = 0
        if self._probe is not None and not self._is_of_probe(now - seconds, now, in_flight):
            return
        window.count += 1
        window.total += seconds
        window.peak = max(window.peak, in_flight)
        self._close_window(now)

    def dropped(self, in_flight: int) -> None:
        """Count a message that timed out, or that another service refused as overloaded.

        Args:
            in_flight: Number of messages that ran when the message ended, with this message.
        """
        self._window.drops += 1
        self._window.failed = 0
        self._window.peak = max(self._window.peak, in_flight)
        self._close_window(self._timer())

    def failed(self) -> None:
        """Count a message that failed early. The duration is not used, but a probe can end."""
        now, window = self._timer(), self._window
        window.failed += 1
        is_over = window.failed >= MIN_SAMPLES and now >= window.ends + FAILED_PROBE_SECONDS
        if self._probe is not None and is_over:
            self._probe = self._probe_began = None
            self._window = _Window(now + WINDOW_SECONDS)

    def _is_of_probe(self, started: float, now: float, in_flight: int) -> bool:
        """Return True if at most `_probe` messages ran while a message was handled."""
        if self._probe_began is None:
            if self._probe is not None and in_flight <= self._probe:
                self._probe_began = now
                self._window = _Window(now + WINDOW_SECONDS)
            return False
        return started >= self._probe_began

    def _close_window(self, now: float) -> None:
        window = self._window
        if now < window.ends or window.count + window.drops < MIN_SAMPLES:
            return
        self._window = _Window(now + WINDOW_SECONDS)
        if self._probe is None:
            self._adapt(window)
        else:
            self._end_probe(window)

    def _adapt(self, window: _Window) -> None:
        """Set the next limit after a window, and begin a probe if it is due."""
        self._last = window.mean
        was_at_limit = window.peak >= self._full
        gradient = self._gradient_of(window.mean, can_rise=not was_at_limit)
        gradient *= 1 - window.drop_share
        if window.peak < self._estimate / 2 and not window.drops:
            return  # so few messages do not show if the limit is right
        self._set_estimate(gradient, has_drops=window.drops > 0)
        self._strained = self._strained + 1 if gradient < STRAINED_GRADIENT else 0
        self._since_probe += was_at_limit
        is_due = self._since_probe >= self._probe_windows or self._strained >= MAX_STRAINED_WINDOWS
        if is_due and window.mean is not None:
            self._since_probe = self._strained = 0
            if self._full > self._bounds.min:
                self._probe = max(self._bounds.min, self._full // 2)

    def _gradient_of(self, mean: float | None, *, can_rise: bool) -> float:
        """Add a latency to the long-term latency, and return their quotient, at most 1."""
        if mean is None:
            return 1.0
        self._windows += 1
        share = 2 / (LONG_TERM_WINDOWS + 1)
        if self._windows <= WARM_UP_WINDOWS:
            share = 1 / self._windows
        if can_rise or mean < self._long or self._windows <= WARM_UP_WINDOWS:
            self._long += share * (mean - self._long)
        if self._long > 2 * mean:
            self._long *= RECOVERY
        return min(1.0, TOLERANCE * self._long / mean) if mean > 0 else 1.0

    def _set_estimate(self, gradient: float, *, has_drops: bool) -> None:
        now, bounds = self._estimate, self._bounds
        # A window with a drop does not raise the limit.
        target = now * max(LOWEST_GRADIENT, gradient) + (0 if has_drops else sqrt(now))
        most = float(bounds.max)
        if self._prefetch is not None:
            most = min(most, max(self._prefetch + 1, HEADROOM * self._prefetch))
        self._estimate = min(most, max(bounds.min, now + SMOOTHING * (target - now)))

    def _end_probe(self, window: _Window) -> None:
        """Compare the latency of a probe with the latency before, and return to the full limit."""
        probe, self._probe = self._probe, None
        self._probe_began = None
        if window.drops:
            self._set_estimate(1 - window.drop_share, has_drops=True)
        low, before = window.mean, self._last
        if not low or not before or probe is None:
            return
        is_kept = low <= QUEUED_LATENCY_SHARE * before
        if is_kept:
            self._estimate = float(probe)
        known = self._long
        is_own = low >= OWN_LATENCY_SHARE * before
        self._long = low if is_own else min(known, low)
        has_changed = is_kept or not known / TOLERANCE <= self._long <= known * TOLERANCE
        self._probe_windows = (
            FIRST_PROBE_WINDOWS if has_changed else min(MAX_PROBE_WINDOWS, 2 * self._probe_windows)
        )
