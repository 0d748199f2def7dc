"""Access to the RabbitMQ broker of a FastStream application."""

import logging

from faststream import FastStream
from faststream.asgi import AsgiFastStream
from faststream.rabbit import RabbitBroker

from bus.errors import ConfigurationError

__all__ = ["AnyApplication", "FastStream", "RabbitBroker", "broker_of", "new_application"]

AnyApplication = FastStream | AsgiFastStream


def broker_of(app: AnyApplication) -> RabbitBroker:
    """Return the application's RabbitMQ broker.

    Raises:
        ConfigurationError: The application has no RabbitMQ broker.
    """
    for broker in app.brokers:
        if isinstance(broker, RabbitBroker):
            return broker
    raise ConfigurationError(
        "the FastStream application has no RabbitBroker. Pass it one: FastStream(RabbitBroker(url))"
    )


def new_application(broker: RabbitBroker) -> FastStream:
    """Return a FastStream application that runs `broker`. Its logger is `bus.faststream`."""
    return FastStream(broker, logger=logging.getLogger("bus.faststream"))
