"""A RabbitMQ transport that uses the connection and subscribers of a FastStream broker."""

from bus.errors import ConfigurationError

try:
    from bus.transports.faststream.application import (
        AnyApplication,
        FastStream,
        RabbitBroker,
        broker_of,
        new_application,
    )
    from bus.transports.faststream.transport import FastStreamTransport, broker_of_its_own
except ModuleNotFoundError as error:
    if error.name is None or not error.name.startswith("faststream"):
        raise
    raise ConfigurationError(
        "FastStream is not installed. Run `pip install 'trunkline[faststream]'`."
    ) from error

__all__ = [
    "AnyApplication",
    "FastStream",
    "FastStreamTransport",
    "RabbitBroker",
    "broker_of",
    "broker_of_its_own",
    "new_application",
]
