"""A RabbitMQ for tests: one broker for many tests, and a virtual host for each test."""

import asyncio
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from bus.errors import ConfigurationError
from bus.messaging.broker_addresses import require_urls
from bus.messaging.variable_values import environment_value
from bus.operations.brokers.broker import Broker
from bus.operations.brokers.select import broker_for, select_broker
from bus.operations.management_api import Management
from bus.testing.shell import shell_settings

__all__ = ["RabbitMQ", "isolated", "running_broker", "virtual_host", "with_vhost"]

NAMES = {"BUS_TEST_URL": "BUS_URL", "BUS_TEST_MANAGEMENT_URL": "BUS_MANAGEMENT_URL"}
"""The variables that name a running RabbitMQ for tests, and the names in a service."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RabbitMQ:
    """A virtual host of a running RabbitMQ that belongs to one test."""

    url: str = field(repr=False)
    """`amqp://user:password@host:port/vhost`, for the setting `url`."""
    management_url: str = field(repr=False)
    """`http://host:port` of the management API. It accepts the user and password in `url`."""


def isolated(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables for a broker of tests.

    All other variables of the bus are removed. `BUS_TEST_URL` takes the place of `BUS_URL`, because
    a test must not create a virtual host on the broker that a developer's shell names.
    """
    settings = shell_settings(environment)
    kept = {name: value for name, value in environment.items() if name not in settings}
    named = {own: environment_value(kept, name) for name, own in NAMES.items()}
    return {**kept, **{own: value for own, value in named.items() if value is not None}}


@contextmanager
def running_broker(environment: Mapping[str, str]) -> Iterator[Broker]:
    """Start the broker that `bus broker` would start, and stop it at the end of the block.

    Args:
        environment: The environment variables. `BUS_TEST_BROKER` selects the kind of broker.

    Raises:
        ConfigurationError: This machine has no RabbitMQ and no Docker engine. The error has advice.
        Unavailable: The broker did not start.
    """
    broker = broker_for(select_broker(environment))
    asyncio.run(broker.start())
    try:
        yield broker
    finally:
        asyncio.run(broker.stop())


@contextmanager
def virtual_host(broker: Broker) -> Iterator[RabbitMQ]:
    """Create an empty virtual host, yield its address, and remove it at the end of the block.

    Raises:
        ConfigurationError: The address of the broker's management API is not known.
        Unavailable: The management API does not answer.
    """
    if broker.management_url is None:
        raise ConfigurationError(
            "the broker has no management API, which creates the virtual host of a test. "
            "Set BUS_TEST_MANAGEMENT_URL=http://host:15672."
        )
    management = Management(broker.management_url, broker.url)
    name = f"test-{secrets.token_hex(6)}"
    asyncio.run(management.add_vhost(name))
    try:
        yield RabbitMQ(url=with_vhost(broker.url, name), management_url=broker.management_url)
    finally:
        asyncio.run(management.delete_vhost(name))


def with_vhost(url: str, name: str) -> str:
    """Return the URL of another virtual host on the same broker."""
    return ";".join(each.with_virtual_host(name).text for each in require_urls(url))
