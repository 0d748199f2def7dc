"""The choice of a broker. `bus demo`, `bus broker`, `bus doctor` and the tests use it."""

import importlib
import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from bus.errors import ConfigurationError
from bus.messaging.broker_addresses import AMQP, HTTP, require_urls
from bus.messaging.variable_values import environment_value
from bus.operations.brokers.broker import Broker
from bus.operations.brokers.broker_options import BrokerOptions
from bus.operations.brokers.docker import engine_answers
from bus.operations.brokers.external import ExternalBroker
from bus.operations.brokers.installation import Installation, find_installation
from bus.operations.brokers.kept_node import KeptNode
from bus.operations.brokers.private_node import PrivateNode

__all__ = ["INSTALL", "BrokerChoice", "Probes", "broker_for", "select_broker"]

INSTALL = (
    "this machine has no RabbitMQ and no Docker engine. "
    "Run `apt-get install rabbitmq-server` (Debian, Ubuntu) or `brew install rabbitmq` (macOS), "
    "start a Docker engine, or set BUS_URL=amqp://user:password@host/vhost."
)
KEEPS_NOTHING = (
    "a RabbitMQ in a container cannot keep its data in a directory. Install rabbitmq-server on "
    "this machine, or run RabbitMQ with Docker Compose and a volume for /var/lib/rabbitmq."
)


@dataclass(frozen=True, kw_only=True)
class BrokerChoice:
    """The chosen kind of broker. `why` is the reason for the choice, in one sentence."""

    kind: Literal["named", "node", "container", "memory"]
    why: str
    url: str | None = field(default=None, repr=False)
    management_url: str | None = field(default=None, repr=False)
    installation: Installation | None = None
    image: str | None = None
    """Image of the container. None: the default image."""


@dataclass(frozen=True, kw_only=True)
class Probes:
    """The functions that detect the brokers of this machine. Tests replace these functions."""

    installation: Callable[[Mapping[str, str]], Installation | None] = find_installation
    engine: Callable[[Mapping[str, str]], bool] = engine_answers
    module: Callable[[str], object | None] = importlib.util.find_spec


def select_broker(
    environment: Mapping[str, str],
    *,
    memory: bool = False,
    own: bool = False,
    probes: Probes | None = None,
) -> BrokerChoice:
    """Return the first available broker.

    The order is: the broker in `BUS_URL`, the RabbitMQ that is installed on this machine, a
    container. If `BUS_URL` is not set, `BUS_TEST_BROKER` can require one kind of broker.
    `BUS_TEST_IMAGE` is the container's image.

    Args:
        environment: The environment variables.
        own: If True, ignore `BUS_URL`, because the caller starts a broker of its own.
        memory: If True and no other broker is available, choose the broker in memory.
        probes: The functions that detect brokers. None: the functions for this machine.

    Raises:
        ConfigurationError: No broker is available, or the required kind is not available. The error
            contains advice.
    """
    machine = probes or Probes()
    url = environment_value(environment, "BUS_URL")
    if url and not own:
        return _choose_url(url, environment_value(environment, "BUS_MANAGEMENT_URL"), memory=memory)
    if kind := environment_value(environment, "BUS_TEST_BROKER"):
        return _choose_kind(kind, environment, machine)
    if installation := machine.installation(environment):
        reason = "its options require a new broker" if own else "BUS_URL is not set"
        why = f"{reason}, and this machine has a RabbitMQ ({installation.server})"
        return BrokerChoice(kind="node", why=why, installation=installation)
    if machine.engine(environment):
        return _choose_container(
            environment,
            machine,
            why="this machine has no RabbitMQ, and a Docker engine answers",
            memory=memory,
        )
    if memory:
        return BrokerChoice(kind="memory", why=f"in memory, because {INSTALL}")
    raise ConfigurationError(INSTALL)


def _choose_url(url: str, management_url: str | None, *, memory: bool) -> BrokerChoice:
    if url.lower().startswith(tuple(f"{scheme}://" for scheme in AMQP.schemes)):
        # No command prints a URL that it cannot read: a password could be anywhere in it.
        require_urls(url)
        if management_url:
            require_urls(management_url, HTTP)
        return BrokerChoice(
            kind="named", why="BUS_URL names it", url=url, management_url=management_url
        )
    if memory and url.startswith("memory:"):
        return BrokerChoice(kind="memory", why="BUS_URL selects the broker in memory")
    if url.startswith("memory:"):
        raise ConfigurationError(
            "BUS_URL=memory: is a broker inside one process, and no other process can use it. "
            "Set BUS_URL to the URL of a RabbitMQ, or unset it."
        )
    raise ConfigurationError(
        "BUS_URL must begin with amqp:// or amqps://. "
        "Set it to amqp://user:password@host:port/vhost, or unset it."
    )


def _choose_kind(kind: str, environment: Mapping[str, str], machine: Probes) -> BrokerChoice:
    """Choose the kind that `BUS_TEST_BROKER` names. If it is not available, raise an error."""
    why = f"BUS_TEST_BROKER={kind} selects it"
    if kind == "testcontainers":
        if not machine.engine(environment):
            raise ConfigurationError(
                "BUS_TEST_BROKER is testcontainers, but no Docker engine answers. "
                "Start a Docker engine, or unset BUS_TEST_BROKER."
            )
        return _choose_container(environment, machine, why=why, memory=False)
    if kind == "node":
        if installation := machine.installation(environment):
            return BrokerChoice(kind="node", why=why, installation=installation)
        raise ConfigurationError(
            "BUS_TEST_BROKER is node, but this machine has no rabbitmq-server. "
            "Install rabbitmq-server, or unset BUS_TEST_BROKER."
        )
    raise ConfigurationError(
        f"BUS_TEST_BROKER must be node or testcontainers, not {kind}. Correct or unset it."
    )


def _choose_container(
    environment: Mapping[str, str], machine: Probes, *, why: str, memory: bool
) -> BrokerChoice:
    if machine.module("testcontainers"):
        return BrokerChoice(
            kind="container", why=why, image=environment_value(environment, "BUS_TEST_IMAGE")
        )
    problem = (
        "a Docker engine answers, but testcontainers is not installed. "
        "Run `pip install 'trunkline[containers]'`."
    )
    if memory:
        return BrokerChoice(kind="memory", why=f"in memory, because {problem}")
    raise ConfigurationError(problem)


def broker_for(choice: BrokerChoice, options: BrokerOptions | None = None) -> Broker:
    """Return the chosen broker. The caller must start the broker.

    Args:
        choice: The kind of broker.
        options: Options of a broker that this program starts. By default, ports and password are
            random, and the data is removed at the end.

    Raises:
        ConfigurationError: The choice is the broker in memory, which is a transport and cannot be
            started. Or the options are not possible for this kind of broker.
        Unavailable: Another broker uses the directory of the options.
    """
    options = options or BrokerOptions()
    if choice.url:
        return ExternalBroker(choice.url, choice.management_url)
    if choice.installation:
        if options.keep is not None:
            return KeptNode(choice.installation, options.keep, options)
        return PrivateNode(choice.installation, options=options)
    if choice.kind == "container":
        if options.keep is not None:
            raise ConfigurationError(KEEPS_NOTHING)
        # The import is deferred, because this import loads the Docker client. It takes longer than
        # all other imports of this module together.
        container = importlib.import_module("bus.operations.brokers.container")
        broker: Broker = container.ContainerBroker(choice.image or container.IMAGE, options)
        return broker
    raise ConfigurationError(
        "the broker in memory cannot be started. Set BUS_URL=memory: to connect to it."
    )
