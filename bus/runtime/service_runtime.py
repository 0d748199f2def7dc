"""The objects that all endpoints and the client of one service share."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from bus.messaging.ports.history import History
from bus.messaging.ports.inbox import Inbox
from bus.messaging.ports.meter import NO_METER, Meter
from bus.messaging.ports.reply_store import ReplyStore
from bus.messaging.ports.store import Store
from bus.messaging.ports.transport import Transport
from bus.messaging.resilience.breakers import Breakers
from bus.messaging.resilience.call_policy import DEFAULT_POLICY
from bus.messaging.resilience.chaos import Chaos
from bus.messaging.resilience.destinations import Destinations
from bus.middleware.spans import SpanSource
from bus.runtime.dependency_gate import DependencyGates
from bus.runtime.store_rows import StoreRows
from bus.security.message_security import NO_SECURITY, MessageSecurity
from bus.settings import Settings
from bus.storage.memory.inbox import MemoryInbox
from bus.storage.memory.reply_store import MemoryReplyStore

__all__ = ["ServiceRuntime"]


def _own_destinations() -> Destinations:
    return Destinations({}, DEFAULT_POLICY, timer=time.monotonic)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceRuntime:
    """The objects that all parts of one process share. They never change while the process runs."""

    service: str
    """The name of the service."""
    transport: Transport
    settings: Settings
    instance: str = "0"
    """The name of this process, unique among the processes of the service."""
    security: MessageSecurity = NO_SECURITY
    inbox: Inbox = field(default_factory=MemoryInbox)
    clock: Callable[[], float] = time.time
    """A function that returns seconds since the epoch."""
    spans: SpanSource | None = None
    """The recorder of spans. None without OpenTelemetry, or with `BUS_TRACES=off`."""
    meter: Meter = NO_METER
    destinations: Destinations = field(default_factory=_own_destinations)
    """The state of the policies for each operation that this process calls."""
    dependencies: DependencyGates = field(init=False)
    """The gates of the dependencies that the handlers of this process name."""
    chaos: Chaos = field(default_factory=lambda: Chaos("", clock=time.time))
    """The chaos experiment of this process, if one runs."""
    reply_store: ReplyStore = field(default_factory=MemoryReplyStore)
    """The replies that this process keeps for its own callers."""
    store: Store | None = None
    """The durable store of the service. None: jobs stay in their queues until they are settled."""
    store_rows: StoreRows | None = field(init=False)
    """The counted rows of the store. None without a store, or if this process measures nothing."""
    history: History | None = None
    """The last messages of this process. None if they are not remembered."""

    def __post_init__(self) -> None:
        gates = DependencyGates(self.service, self.destinations.breakers)
        object.__setattr__(self, "dependencies", gates)
        rows = None
        if self.store is not None and self.meter is not NO_METER:
            rows = StoreRows(self.store, clock=self.clock)
        object.__setattr__(self, "store_rows", rows)

    @property
    def breakers(self) -> Breakers:
        """The circuit breakers of this process, of its calls and of its dependencies."""
        return self.destinations.breakers

    @property
    def is_measured(self) -> bool:
        """True if messages are counted or remembered. If False, no message costs any time."""
        return self.meter is not NO_METER or self.history is not None
