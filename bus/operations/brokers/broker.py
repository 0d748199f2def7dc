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
        """True if the broker was started and, as far as this process can detect, still runs."""
        ...

    async def start(self) -> None:
        """Start the broker, and return when clients can connect.

        Raises:
            Unavailable: The broker did not start within a minute. The error contains advice.
        """
        ...

    async def stop(self) -> None:
        """Stop the broker and remove its files.

        The method does nothing for an external broker. A second call has no effect.
        """
        ...

    def describe(self) -> str:
        """Return a description in one sentence, without the password."""
        ...
