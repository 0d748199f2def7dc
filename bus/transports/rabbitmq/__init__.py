"""RabbitMQ, over aio-pika."""

from bus.transports.rabbitmq.transport import RabbitMQTransport

__all__ = ["RabbitMQTransport"]
