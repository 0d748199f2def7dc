"""A RabbitMQ in a container, by testcontainers, which also removes it should this process be killed."""

import asyncio
import secrets
import time
from typing import Any

from bus.errors import ConfigurationError, Unavailable
from bus.operations.brokers.ports import speaks_amqp
from bus.operations.management_api import Management

try:
    from testcontainers.core import container as testcontainers
except ImportError:
    testcontainers = None  # type: ignore[assignment]  # an extra

__all__ = ["ContainerBroker"]

IMAGE = "rabbitmq:4-management"
USER = "bus"
AMQP_PORT, MANAGEMENT_PORT = 5672, 15672
START_TIMEOUT_SECONDS = (
    60.0  # seconds from the container's start until it answers; 5 to 10 when idle
)
POLL_INTERVAL_SECONDS = 0.1  # seconds between two looks
ADVICE = (
    "Fetch its image, or let the engine reach a registry; where it is testcontainers' own ryuk that cannot be had, "
    "set TESTCONTAINERS_RYUK_DISABLED=true"
)


class ContainerBroker:
    """One container with the management UI; its ports are the engine's choice, known once it has started."""

    def __init__(self, image: str = IMAGE) -> None:
        if testcontainers is None:
            raise ConfigurationError(
                "a RabbitMQ in a container needs testcontainers: pip install 'trunkline[containers]'"
            )
        self._image = image
        self._password = secrets.token_urlsafe(12)
        self._container: Any = None
        self._host, self._ports = "", {AMQP_PORT: 0, MANAGEMENT_PORT: 0}

    @property
    def url(self) -> str:
        """`amqp://bus:<password>@<host>:<port>/`."""
        return f"amqp://{USER}:{self._password}@{self._host}:{self._ports[AMQP_PORT]}/"

    @property
    def management_url(self) -> str:
        """The management UI's address, for the user and password of `url`."""
        return f"http://{self._host}:{self._ports[MANAGEMENT_PORT]}"

    @property
    def running(self) -> bool:
        """Whether it answers."""
        return self._container is not None and speaks_amqp(self._host, self._ports[AMQP_PORT])

    def describe(self) -> str:
        """What this is, without the password."""
        return f"{self._image} in a container on {self._host}:{self._ports[AMQP_PORT]}"

    async def start(self) -> None:
        """Return once clients can connect and the UI answers; the image is fetched where it is not there."""
        if self._container is not None:
            return
        try:
            await asyncio.to_thread(self._start)
            await self._ready()
        except BaseException as error:
            await self.stop()
            if isinstance(error, Unavailable) or not isinstance(error, Exception):
                raise
            # The engine's client has errors of many kinds; what they say is about images and engines, never about messages.
            raise Unavailable(
                f"the container {self._image} did not start: {error}. {ADVICE}"
            ) from error

    async def stop(self) -> None:
        """End and remove the container."""
        container, self._container = self._container, None
        if container is not None:
            await asyncio.to_thread(container.stop)

    async def ctl(self, *arguments: str) -> str:
        """What `rabbitmqctl -q <arguments>` prints; `Unavailable` with its complaint where it fails."""
        if self._container is None:
            raise ConfigurationError(f"the container {self._image} was not started")
        # As its user, whose cookie is the node's; the official image changes the user itself, others may not.
        who = {"user": "rabbitmq", "environment": {"HOME": "/var/lib/rabbitmq"}}
        done = await asyncio.to_thread(
            self._container.get_wrapped_container().exec_run,
            ["rabbitmqctl", "-q", *arguments],
            **who,
        )
        output: str = done.output.decode(errors="replace")
        if done.exit_code:
            raise Unavailable(f"rabbitmqctl {arguments[0]}: {output.strip()}")
        return output

    def _start(self) -> None:
        container = testcontainers.DockerContainer(self._image).with_exposed_ports(
            AMQP_PORT, MANAGEMENT_PORT
        )
        container.with_env("RABBITMQ_DEFAULT_USER", USER).with_env(
            "RABBITMQ_DEFAULT_PASS", self._password
        )
        self._container = container
        container.start()
        self._host = container.get_container_host_ip()
        self._ports = {port: int(container.get_exposed_port(port)) for port in self._ports}

    async def _ready(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        while not await asyncio.to_thread(speaks_amqp, self._host, self._ports[AMQP_PORT]):
            if time.monotonic() > deadline:
                raise Unavailable(
                    f"the container {self._image} did not answer on its AMQP port within {START_TIMEOUT_SECONDS:g} s"
                )
            await asyncio.sleep(POLL_INTERVAL_SECONDS)
        await Management(self.management_url, self.url).call("GET", "whoami")
