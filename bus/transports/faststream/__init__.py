"""RabbitMQ, over a FastStream broker's connection and subscribers."""

from bus.transports.faststream.transport import FastStreamTransport, broker_of_its_own

__all__ = ["FastStreamTransport", "broker_of_its_own"]
