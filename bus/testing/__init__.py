"""Testing: connected buses in one process, on a broker in memory that simulates RabbitMQ.

>>> async with MemoryBuses() as buses:
...     desk, client = await buses.bus("desk"), await buses.bus("client")
...     await buses.serve(desk, router)
...     reply = await client.request(Ask(...), timeout=1)
...     buses.broker.drop_all()  # Test how your service reacts.

A `VirtualLoop` skips waits, such as an hour in a retry tier. Use it with `clock=wall_clock`.

The pytest plugin `bus.testing.plugin` provides fixtures for the same objects.

A name is loaded at its first use (PEP 562). Therefore the plugin does not load the bus into a test
run that does not use it.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bus.contracts.sensitive import shown_values
    from bus.storage.memory.store import MemoryStore
    from bus.testing.buses import MemoryBuses
    from bus.testing.dependencies import override_dependency, replaced
    from bus.testing.handling import HandlerCall
    from bus.testing.messages import DeadMessage, FoundMessages, SentMessage
    from bus.testing.rabbitmq import RabbitMQ, isolated, running_broker, virtual_host
    from bus.testing.settled import Unsettled
    from bus.testing.sync_buses import SyncMemoryBuses
    from bus.transports.memory import MemoryBroker, MemoryTransport, VirtualLoop, wall_clock

__all__ = [
    "DeadMessage",
    "FoundMessages",
    "HandlerCall",
    "MemoryBroker",
    "MemoryBuses",
    "MemoryStore",
    "MemoryTransport",
    "RabbitMQ",
    "SentMessage",
    "SyncMemoryBuses",
    "Unsettled",
    "VirtualLoop",
    "isolated",
    "override_dependency",
    "replaced",
    "running_broker",
    "shown_values",
    "virtual_host",
    "wall_clock",
]

_MODULES = {
    "DeadMessage": "bus.testing.messages",
    "FoundMessages": "bus.testing.messages",
    "HandlerCall": "bus.testing.handling",
    "MemoryBroker": "bus.transports.memory",
    "MemoryBuses": "bus.testing.buses",
    "MemoryStore": "bus.storage.memory.store",
    "MemoryTransport": "bus.transports.memory",
    "RabbitMQ": "bus.testing.rabbitmq",
    "SentMessage": "bus.testing.messages",
    "SyncMemoryBuses": "bus.testing.sync_buses",
    "Unsettled": "bus.testing.settled",
    "VirtualLoop": "bus.transports.memory",
    "isolated": "bus.testing.rabbitmq",
    "override_dependency": "bus.testing.dependencies",
    "replaced": "bus.testing.dependencies",
    "running_broker": "bus.testing.rabbitmq",
    "shown_values": "bus.contracts.sensitive",
    "virtual_host": "bus.testing.rabbitmq",
    "wall_clock": "bus.transports.memory",
}


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module 'bus.testing' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_MODULES[name]), name)
    return value
