"""Orders on the control channel: an operator changes what live instances do, for a limited time.

An order is a question that changes something. It needs the key of an operator and a right of its
own, and carries a reason and an end. Each instance obeys an order at most once.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, Final, Literal

from pydantic import Field
from typing_extensions import override

from bus.messaging.control import Question
from bus.messaging.resilience.chaos_grammar import MAX_PLAN_LENGTH
from bus.messaging.resilience.chaos_plan import MAX_CHAOS_SECONDS
from bus.messaging.service_info import Count, InstanceState, Milliseconds, Name

__all__ = [
    "MAX_ORDER_SECONDS",
    "MAX_REASON_LENGTH",
    "ORDERS",
    "Applied",
    "IsolateBreaker",
    "Order",
    "OrderResult",
    "PauseConsumers",
    "Reason",
    "ResetBreaker",
    "ResumeConsumers",
    "StartChaos",
    "StopChaos",
    "Why",
    "reason_to_ignore",
]

MAX_ORDER_SECONDS: Final = 24 * 3600.0
"""Maximum seconds from now until the end of an order."""
MAX_REASON_LENGTH: Final = 200
"""Maximum number of characters of the reason for an order."""

Reason = Annotated[
    str, Field(min_length=1, max_length=MAX_REASON_LENGTH, pattern=r"^\P{Cc}*[^\p{Cc}\s]\P{Cc}*$")
]
"""Reason of the operator. It has no control characters, and not only white space."""
Why = Literal[
    "ended",
    "too-long",
    "not-found",
    "no-effect",
    "not-understood",
    "not-pausable",
    "no-store",
]
"""Reason why an instance has ignored an order.

`ended`: the end is over. `too-long`: the end is too far ahead. `not-found`: the instance does not
have the object. `no-effect`: the faults do not affect messages of these kinds. `not-understood`:
this version of the bus does not know a value of the order. `not-pausable`: the consumer handles
requests. `no-store`: the order has no end, and the service has no store to keep it.
"""


class OrderResult(InstanceState):
    """The answer to an order. It reports the changes of the instance, and has no text."""

    outcome: Name
    """`applied` or `ignored`. A later version of the bus can have more values."""
    why: Name | None = None
    """Reason why the instance has ignored the order, one of `Why`. None if it has obeyed."""
    changed: Count = 0
    """Number of objects that the order has changed, such as breakers."""
    unused: tuple[Count, ...] = ()
    """Numbers of the faults that have no effect in this instance, from 0 in the order of the plan.
    Earlier versions of the bus omit them."""
    stored: bool | None = None
    """True if the store of the service keeps the order, so later instances obey it, too. None if
    the service has no store, or if the order is not one that is kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """The effect of an order that an instance has obeyed."""

    changed: int
    """Number of objects that the order has changed."""
    unused: tuple[int, ...] = ()
    """Numbers of the parts without an effect."""
    stored: bool | None = None
    """True if the store keeps the order. None if it is not kept."""


class Order(Question[OrderResult]):
    """An order to live instances. A subclass has the parameters of the order as fields."""

    right: ClassVar[Literal["read", "order", "chaos"]] = "order"
    answer = OrderResult
    max_seconds: ClassVar[float] = MAX_ORDER_SECONDS
    """Maximum seconds from now until the end of the order."""
    is_lasting: ClassVar[bool] = True
    """True if the effect lasts until the end of the order. False if it happens at once."""

    reason: Reason
    """Reason for the order. Instances log and show it."""
    until: Milliseconds
    """End of the order, in milliseconds since the epoch. The effect ends by itself."""
    operator: Name | None = None
    """Name of the operator if no key proves a name, as with `BUS_AUTH=off`. Otherwise ignored."""

    @property
    def subject(self) -> str:
        """The object that the order changes, for log lines."""
        return self.name

    @property
    def ends_at(self) -> float | None:
        """The end of the effect, in seconds since the epoch. None if it has no end of its own."""
        return self.until / 1000 if self.is_lasting else None


class BreakerOrder(Order):
    """An order for the circuit breakers with one name."""

    breaker: Name
    """Name of the breaker: the type of an operation, or the name of a dependency."""
    kind: Literal["call", "dependency"] | None = None
    """Kind of the breaker. None: both kinds."""


class IsolateBreaker(BreakerOrder):
    """ISOLATE: keep a circuit breaker open until the end of the order."""

    name = "bus.control.isolate-breaker.v1"

    @property
    @override
    def subject(self) -> str:
        """The breaker that the order isolates."""
        return f"isolate the breaker {self.breaker}"


class ResetBreaker(BreakerOrder):
    """RESET: close a circuit breaker. An order that arrives after its end does nothing."""

    name = "bus.control.reset-breaker.v1"
    is_lasting = False

    @property
    @override
    def subject(self) -> str:
        """The breaker that the order resets."""
        return f"reset the breaker {self.breaker}"


class StartChaos(Order):
    """CHAOS: inject faults into handled messages until the end of the order."""

    name = "bus.control.start-chaos.v1"
    right = "chaos"
    max_seconds = MAX_CHAOS_SECONDS

    plan: str = Field(min_length=1, max_length=MAX_PLAN_LENGTH)
    """Faults in the grammar of `bus.messaging.resilience.chaos_grammar`."""

    @property
    @override
    def subject(self) -> str:
        """The faults that the order injects."""
        return f"start chaos ({self.plan})"


class StopChaos(Order):
    """CHAOS: end the running experiment."""

    name = "bus.control.stop-chaos.v1"
    right = "chaos"
    is_lasting = False

    @property
    @override
    def subject(self) -> str:
        """The end of the experiment."""
        return "stop chaos"


class ConsumerOrder(Order):
    """An order for the consumers of events and jobs."""

    target: Name | None = None
    """Type of a message, or name of a work queue. None: all events and jobs of the service."""

    @property
    def consumers(self) -> str:
        """The consumers that the order is for, as text."""
        return self.target or "all consumers of events and jobs"


class PauseConsumers(ConsumerOrder):
    """PAUSE: start no further events and jobs until the end of the order.

    Running messages finish. The others wait in their queue, or in the store.
    """

    name = "bus.control.pause-consumers.v1"

    until_resumed: bool = False
    """True if only an operator ends the pause. The service needs a store. If the store does not
    accept the pause, it ends at `until`."""

    @property
    @override
    def subject(self) -> str:
        """The consumers that the order pauses."""
        return f"pause {self.consumers}"

    @property
    @override
    def ends_at(self) -> float | None:
        """The end of the pause. None if only an operator ends it."""
        return None if self.until_resumed else self.until / 1000


class ResumeConsumers(ConsumerOrder):
    """RESUME: end the pauses that operators have requested."""

    name = "bus.control.resume-consumers.v1"
    is_lasting = False

    @property
    @override
    def subject(self) -> str:
        """The consumers that the order resumes."""
        return f"resume {self.consumers}"


ORDERS: Final[Mapping[str, type[Order]]] = {
    order.name: order
    for order in (
        *(IsolateBreaker, ResetBreaker),
        *(StartChaos, StopChaos),
        *(PauseConsumers, ResumeConsumers),
    )
}
"""Every order that this version of the bus can obey, by its type on the wire."""


def reason_to_ignore(order: Order, now: float, leeway: float) -> Why | None:
    """Return why the end of an order is not valid, or None.

    Args:
        order: The order.
        now: Seconds since the epoch.
        leeway: Seconds by which the clocks of two machines may differ.
    """
    ends = order.until / 1000
    if ends <= now:
        return "ended"
    return "too-long" if ends > now + order.max_seconds + leeway else None
