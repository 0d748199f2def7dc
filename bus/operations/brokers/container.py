"""A RabbitMQ in a container.

The library testcontainers starts the container. If this process is killed, the library
still removes the container.
"""

import asyncio
import secrets
import time
from typing import Any
from urllib.parse import quote

from bus.errors import ConfigurationError, Unavailable
from bus.operations.brokers.broker_options import BrokerOptions
from bus.operations.brokers.ports import LOOPBACK, speaks_amqp
from bus.operations.management_api import Management

try:
    from testcontainers.core import container as testcontainers
except ImportError:
    testcontainers = None  # type: ignore[assignment]  # an extra

__all__ = ["ContainerBroker"]

IMAGE = "rabbitmq:4-management"
USER = "bus"
AMQP_PORT, MANAGEMENT_PORT = 5672, 15672
LOCAL = ("localhost", LOOPBACK)
START_TIMEOUT_SECONDS = 60.0
"""Maximum seconds until the broker answers. On an idle machine the start takes 5 to 10 s."""
POLL_INTERVAL_SECONDS = 0.1
"""Seconds between two checks whether the broker answers."""
ADVICE = (
    "Fetch its image, or give the engine access to a registry. "
    "If the image of testcontainers' ryuk is not available, set TESTCONTAINERS_RYUK_DISABLED=true."
)


class ContainerBroker:
    """A RabbitMQ container with the management UI. The container engine chooses the ports."""

    def __init__(self, image: str = IMAGE, options: BrokerOptions | None = None) -> None:
        """Choose the password, and check that testcontainers is installed.

        Args:
            image: The image of the container.
            options: The ports and the password that the broker must have. If an option is set, the
                ports are only opened on 127.0.0.1, unless the engine has another loopback address
                than this process.

        Raises:
            ConfigurationError: testcontainers is not installed.
        """
        if testcontainers is None:
            raise ConfigurationError(
                "testcontainers is not installed, and a RabbitMQ in a container requires it. "
                "Run `pip install 'trunkline[containers]'`."
            )
        self._image = image
        self._options = options or BrokerOptions()
        self._password = self._options.password or secrets.token_urlsafe(12)
        self._container: Any = None
        self._host, self._ports = "", {AMQP_PORT: 0, MANAGEMENT_PORT: 0}

    @property
    def url(self) -> str:
        """`amqp://bus:<password>@<host>:<port>/`."""
        password = quote(self._password, safe="")
        return f"amqp://{USER}:{password}@{self._host}:{self._ports[AMQP_PORT]}/"

    @property
    def management_url(self) -> str:
        """The address of the management UI. The UI accepts the user and password in `url`."""
        return f"http://{self._host}:{self._ports[MANAGEMENT_PORT]}"

    @property
    def running(self) -> bool:
        """True if the broker answers."""
        return self._container is not None and speaks_amqp(self._host, self._ports[AMQP_PORT])

    def describe(self) -> str:
        """Return a description. It does not contain the password."""
        return f"{self._image} in a container on {self._host}:{self._ports[AMQP_PORT]}"

    async def start(self) -> None:
        """Start the container. Return when clients can connect and the UI answers.

        If the image is missing, the container engine downloads it.

        Raises:
            Unavailable: The container did not start, or did not answer within
                `START_TIMEOUT_SECONDS`.
        """
        if self._container is not None:
            return
        try:
            await asyncio.to_thread(self._start)
            await self._wait_ready()
        except BaseException as error:
            await self.stop()
            if isinstance(error, Unavailable) or not isinstance(error, Exception):
                raise
            # The engine's client raises errors of many types. It is safe to show the texts
            # of these errors. The texts describe images and engines, and never contain messages of
            # the bus.
            raise Unavailable(
                f"the container {self._image} did not start: {error}. {ADVICE}"
            ) from error

    async def stop(self) -> None:
        """Stop and remove the container."""
        container, self._container = self._container, None
        if container is not None:
            await asyncio.to_thread(container.stop)

    async def ctl(self, *arguments: str) -> str:
        """Return the output of `rabbitmqctl -q <arguments>`.

        Raises:
            ConfigurationError: The container is not started.
            Unavailable: The command failed. The error contains the command's output.
        """
        if self._container is None:
            raise ConfigurationError(
                f"the container {self._image} is not started. Call `start` first."
            )
        # Run the command as RabbitMQ's user, because this user has the node's Erlang cookie. The
        # official image switches to this user by itself, but some other images do not.
        account = {"user": "rabbitmq", "environment": {"HOME": "/var/lib/rabbitmq"}}
        result = await asyncio.to_thread(
            self._container.get_wrapped_container().exec_run,
            ["rabbitmqctl", "-q", *arguments],
            **account,
        )
        output: str = result.output.decode(errors="replace")
        if result.exit_code:
            raise Unavailable(f"rabbitmqctl {arguments[0]} failed: {output.strip()}")
        return output

    def _start(self) -> None:
        container = testcontainers.DockerContainer(self._image).with_exposed_ports(
            AMQP_PORT, MANAGEMENT_PORT
        )
        container.with_env("RABBITMQ_DEFAULT_USER", USER).with_env(
            "RABBITMQ_DEFAULT_PASS", self._password
        )
        if self._options:
            bindings: Any = self._bindings(container.get_docker_client())
            container.ports.update(bindings)
        self._container = container
        container.start()
        self._host = container.get_container_host_ip()
        self._ports = {port: int(container.get_exposed_port(port)) for port in self._ports}

    def _bindings(self, engine: Any) -> dict[str, tuple[Any, ...]]:
        """Return the address and the port on the engine's machine for each port of the container.

        Args:
            engine: The Docker client of testcontainers.
        """
        is_local = engine.get_connection_mode().value == "docker_host" and engine.host() in LOCAL
        # The password may be easy to guess, so another machine must not reach the broker.
        address = LOOPBACK if is_local else "0.0.0.0"  # noqa: S104 - no loopback is shared
        chosen = {
            AMQP_PORT: self._options.port,
            MANAGEMENT_PORT: self._options.management_port,
        }
        return {str(port): (address, own) if own else (address,) for port, own in chosen.items()}

    async def _wait_ready(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        while not await asyncio.to_thread(speaks_amqp, self._host, self._ports[AMQP_PORT]):
            if time.monotonic() > deadline:
                raise Unavailable(
                    f"the container {self._image} did not answer on its AMQP port "
                    f"within {START_TIMEOUT_SECONDS:g} s"
                )
            await asyncio.sleep(POLL_INTERVAL_SECONDS)
        await Management(self.management_url, self.url).call("GET", "whoami")
