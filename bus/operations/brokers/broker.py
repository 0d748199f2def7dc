"""The interface of a broker, which this program starts or a URL names."""

from typing import Protocol

__all__ = ["Broker"]


class Broker(Protocol):
    """A RabbitMQ with a lifetime: a private node, a container, or an external broker."""

    @property
    def url(self) -> str:
        """`amqp://user:password@host:port/vhost`, which is valid after `start`."""
        ...

    @property
    def management_url(self) -> str | None:
        """`http://host:port` of the management UI and API, or None if it is not known.

        The user and password are those of `url`.
        """
        ...

    @property
    def running(self) -> bool:
        """True if the broker was started and has not ended, as far as this process can detect."""
        ...

    async def start(self) -> None:
        """Start the broker, and return when clients can connect.

        Raises:
            Unavailable: The broker did not start within a minute. The error contains advice.
        """
        ...

    async def stop(self) -> None:
        """Stop the broker and remove its files.

        The method does nothing for an external broker, and nothing on a second call.
        """
        ...

    def describe(self) -> str:
        """Return a description in one sentence, without the password."""
        ...
