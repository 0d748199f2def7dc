"""Functions that build the parts of one process from its settings."""

from collections.abc import Callable, Collection

from bus.messaging.handler import Middleware
from bus.messaging.ports.inbox import Inbox
from bus.messaging.ports.meter import NO_METER, Meter
from bus.messaging.ports.store import Store
from bus.messaging.ports.transport import Transport
from bus.messaging.resilience.chaos import Chaos
from bus.messaging.resilience.destinations import Destinations
from bus.messaging.service_info import InstanceState
from bus.messaging.timers import LoopTimer, call_later
from bus.middleware.stacks import server_stack
from bus.runtime.breaker_orders import add_breaker_orders
from bus.runtime.breaker_reports import reported_breakers
from bus.runtime.chaos_orders import add_chaos_orders
from bus.runtime.life_cycle import new_instance
from bus.runtime.measuring import measuring_of
from bus.runtime.order_executor import OrderExecutor
from bus.runtime.service_runtime import ServiceRuntime
from bus.runtime.traces import span_source
from bus.security.message_security import MessageSecurity
from bus.settings import Settings
from bus.storage.measured_store import measured_store
from bus.storage.memory.reply_store import MemoryReplyStore

__all__ = ["build_runtime", "default_server_stack", "destinations_of", "order_executor"]


def build_runtime(  # noqa: PLR0913 - the parts of a process, each a keyword
    service: str,
    settings: Settings,
    transport: Transport,
    *,
    security: MessageSecurity,
    inbox: Inbox,
    store: Store | None = None,
    clock: Callable[[], float],
) -> ServiceRuntime:
    """Return the shared objects of a process, with a new instance id and without any state.

    Args:
        service: Name of the service.
        settings: Settings of the service.
        transport: Transport of the process.
        security: Security of the messages.
        inbox: Store of handled messages.
        store: Durable store of the service, if it has one.
        clock: Function that returns seconds since the epoch.
    """
    instance = new_instance()
    meter, history = measuring_of(settings, clock)
    return ServiceRuntime(
        service=service,
        transport=transport,
        settings=settings,
        instance=instance,
        security=security,
        inbox=inbox,
        store=store if store is None or meter is NO_METER else measured_store(store, meter),
        clock=clock,
        spans=span_source(settings, instance),
        meter=meter,
        destinations=destinations_of(settings, meter, clock),
        chaos=Chaos(service, clock=clock, meter=meter, call_later=call_later),
        history=history,
        reply_store=MemoryReplyStore(
            max_entries=settings.cache_entries, max_bytes=settings.cache_bytes
        ),
    )


def order_executor(
    runtime: ServiceRuntime,
    state: Callable[[], InstanceState],
    served_types: Callable[[], Collection[str]],
) -> OrderExecutor:
    """Return the executor that obeys every order of this version of the bus.

    Args:
        runtime: Shared objects of the process.
        state: Function that returns the state of the process.
        served_types: Function that returns the types that the process handles now.
    """
    executor = OrderExecutor(state, clock=runtime.clock, leeway=runtime.settings.clock_leeway)
    add_breaker_orders(executor, runtime.service, runtime.destinations)
    add_chaos_orders(executor, runtime.chaos, served_types)
    return executor


def destinations_of(settings: Settings, meter: Meter, clock: Callable[[], float]) -> Destinations:
    """Return the destinations of a bus. They have the policies in the settings."""
    timer, registry = LoopTimer(), settings.registry
    return Destinations(
        registry.policies(),
        registry.default_policy(),
        timer=timer,
        clock=clock,
        meter=meter,
        breakers=reported_breakers(timer, clock, meter),
    )


def default_server_stack(settings: Settings, clock: Callable[[], float]) -> list[Middleware]:
    """Return the server stack of a bus for which the user has chosen no other stack."""
    return server_stack(
        clock=clock,
        leeway=settings.clock_leeway,
        longest=settings.request_timeout,
        log_messages=settings.log_messages,
    )
