"""The interface of all kinds of brokers: brokers that this program starts, and external brokers."""

from typing import Protocol

__all__ = ["Broker"]


class Broker(Protocol):
    """A RabbitMQ broker: a node on this machine, a container, or an external broker."""

    @property
    def url(self) -> str:
        """`amqp://user:password@host:port/vhost`. The URL is valid after `start`."""
        ...

    @property
    def management_url(self) -> str | None:
        """`http://host:port` of the management UI and API, or None if the address is not known.

        The UI and API accept the user and password in `url`.
        """
        ...

    @property
    def running(self) -> bool:
        """True if the broker was started, and this process has not detected its end."""
        ...

    async def start(self) -> None:
        """Start the broker. Return when clients can connect.

        Raises:
            Unavailable: The broker did not start within a minute. The error contains advice.
        """
        ...

    async def stop(self) -> None:
        """Stop the broker and remove its files.

        If the broker is external, do nothing. A second call of `stop` has no effect.
        """
        ...

    def describe(self) -> str:
        """Return a description in one sentence. It does not contain the password."""
        ...
