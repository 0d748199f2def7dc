"""The memory transport. It is an in-process model of RabbitMQ. Tests and demos need no broker."""

from bus.transports.memory.broker import MemoryBroker
from bus.transports.memory.transport import MemoryTransport
from bus.transports.memory.virtual_time import VirtualLoop, wall_clock

__all__ = ["MemoryBroker", "MemoryTransport", "VirtualLoop", "wall_clock"]
