"""The transport for RabbitMQ, built on aio-pika."""

from bus.transports.rabbitmq.transport import RabbitMQTransport

__all__ = ["RabbitMQTransport"]
