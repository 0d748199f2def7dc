"""FastStream applications, as far as the bus has to know them."""

import logging

from faststream import FastStream
from faststream.asgi import AsgiFastStream
from faststream.rabbit import RabbitBroker

from bus.errors import ConfigurationError

__all__ = ["AnyApplication", "FastStream", "RabbitBroker", "broker_of", "new_application"]

AnyApplication = FastStream | AsgiFastStream


def broker_of(app: AnyApplication) -> RabbitBroker:
    """The application's RabbitMQ broker; `ConfigurationError` where it has none."""
    for broker in app.brokers:
        if isinstance(broker, RabbitBroker):
            return broker
    raise ConfigurationError(
        "the FastStream application has no RabbitBroker; give it one: FastStream(RabbitBroker(url))"
    )


def new_application(broker: RabbitBroker) -> FastStream:
    """An application of this broker, whose own lines are written as ours are."""
    return FastStream(broker, logger=logging.getLogger("bus.faststream"))
