"""Which broker to use where nobody says: the one order for `bus demo`, `bus broker`, `bus doctor` and the tests."""

import importlib
import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from bus.errors import ConfigurationError
from bus.operations.brokers.broker import Broker
from bus.operations.brokers.docker import engine_answers
from bus.operations.brokers.external import ExternalBroker
from bus.operations.brokers.installation import Installation, find_installation
from bus.operations.brokers.private_node import PrivateNode

__all__ = ["INSTALL", "BrokerChoice", "Probes", "broker_for", "select_broker"]

INSTALL = (
    "no RabbitMQ can be had on this machine: apt-get install rabbitmq-server (Debian, Ubuntu), brew install rabbitmq (macOS), "
    "start a Docker engine, or set BUS_URL=amqp://user:password@host/vhost"
)


@dataclass(frozen=True, kw_only=True)
class BrokerChoice:
    """What was chosen, and why in one sentence."""

    kind: Literal["named", "node", "container", "memory"]
    why: str
    url: str | None = field(default=None, repr=False)
    management_url: str | None = field(default=None, repr=False)
    installation: Installation | None = None
    image: str | None = None
    """A container's; None: the usual one."""


@dataclass(frozen=True, kw_only=True)
class Probes:
    """How the machine is asked what it has; tests ask nobody."""

    installation: Callable[[Mapping[str, str]], Installation | None] = find_installation
    engine: Callable[[Mapping[str, str]], bool] = engine_answers
    module: Callable[[str], object | None] = importlib.util.find_spec


def select_broker(
    environment: Mapping[str, str], *, memory: bool = False, probes: Probes | None = None
) -> BrokerChoice:
    """The first that can be had: `BUS_URL`, this machine's RabbitMQ, a container; with `memory`, the model broker.

    `BUS_TEST_BROKER` chooses among those that are started here, and `BUS_TEST_IMAGE` the container's image.
    `ConfigurationError` says what to install where there is none, or not the one that was chosen.
    """
    ask = probes or Probes()
    if named := environment.get("BUS_URL"):
        return _named(named, environment.get("BUS_MANAGEMENT_URL"), memory=memory)
    if wanted := environment.get("BUS_TEST_BROKER"):
        return _wanted(wanted, environment, ask)
    if installation := ask.installation(environment):
        why = f"BUS_URL is not set, and this machine has a RabbitMQ ({installation.server})"
        return BrokerChoice(kind="node", why=why, installation=installation)
    if ask.engine(environment):
        return _container(
            environment,
            ask,
            why="this machine has no RabbitMQ, and a Docker engine answers",
            memory=memory,
        )
    if memory:
        return BrokerChoice(kind="memory", why=f"in memory, because {INSTALL}")
    raise ConfigurationError(INSTALL)


def _named(url: str, management_url: str | None, *, memory: bool) -> BrokerChoice:
    if url.startswith(("amqp://", "amqps://")):
        return BrokerChoice(
            kind="named", why="BUS_URL names it", url=url, management_url=management_url
        )
    if memory and url.startswith("memory:"):
        return BrokerChoice(kind="memory", why="BUS_URL asks for the broker in memory")
    if url.startswith("memory:"):
        raise ConfigurationError(
            "BUS_URL=memory: is a broker inside one process; unset it, or name a RabbitMQ"
        )
    raise ConfigurationError(
        "BUS_URL names no broker: give amqp://user:password@host:port/vhost, or unset it"
    )


def _wanted(wanted: str, environment: Mapping[str, str], ask: Probes) -> BrokerChoice:
    """What was chosen by name, and no other."""
    why = f"BUS_TEST_BROKER={wanted} asks for it"
    if wanted == "testcontainers":
        if not ask.engine(environment):
            raise ConfigurationError(
                "BUS_TEST_BROKER=testcontainers, and no Docker engine answers: start one, or unset it"
            )
        return _container(environment, ask, why=why, memory=False)
    if wanted == "node":
        if installation := ask.installation(environment):
            return BrokerChoice(kind="node", why=why, installation=installation)
        raise ConfigurationError(
            "BUS_TEST_BROKER=node, and this machine has no rabbitmq-server: install it, or unset it"
        )
    raise ConfigurationError(
        f"BUS_TEST_BROKER={wanted} names no kind of broker: set it to node or testcontainers, or unset it"
    )


def _container(
    environment: Mapping[str, str], ask: Probes, *, why: str, memory: bool
) -> BrokerChoice:
    if ask.module("testcontainers"):
        return BrokerChoice(
            kind="container", why=why, image=environment.get("BUS_TEST_IMAGE") or None
        )
    lacking = "a Docker engine answers, and testcontainers is not installed: pip install 'trunkline[containers]'"
    if memory:
        return BrokerChoice(kind="memory", why=f"in memory, because {lacking}")
    raise ConfigurationError(lacking)


def broker_for(choice: BrokerChoice) -> Broker:
    """The broker that was chosen, not started; `ConfigurationError` for the one in memory, which is a transport."""
    if choice.url:
        return ExternalBroker(choice.url, choice.management_url)
    if choice.installation:
        return PrivateNode(choice.installation)
    if choice.kind == "container":
        # By name, since it loads the Docker client, which takes longer than everything else here together.
        container = importlib.import_module("bus.operations.brokers.container")
        broker: Broker = container.ContainerBroker(choice.image or container.IMAGE)
        return broker
    raise ConfigurationError("the broker in memory needs no start: connect to BUS_URL=memory:")
