"""The memory transport: an in-process model of RabbitMQ, for tests and demos without a broker."""

from bus.transports.memory.broker import MemoryBroker
from bus.transports.memory.transport import MemoryTransport
from bus.transports.memory.virtual_time import VirtualLoop, wall_clock

__all__ = ["MemoryBroker", "MemoryTransport", "VirtualLoop", "wall_clock"]
