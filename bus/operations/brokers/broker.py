"""What a broker that this program started, or was told of, looks like to the ones who use it."""

from typing import Protocol

__all__ = ["Broker"]


class Broker(Protocol):
    """A RabbitMQ with a lifetime: a private node, a container, or one that somebody else runs."""

    @property
    def url(self) -> str:
        """`amqp://user:password@host:port/vhost`; known once `start` has returned."""
        ...

    @property
    def management_url(self) -> str | None:
        """`http://host:port` of the management UI and its API, with the user and password of `url`; None: unknown."""
        ...

    @property
    def running(self) -> bool:
        """Whether it was started and has not ended, as far as can be told without asking it."""
        ...

    async def start(self) -> None:
        """Return once clients can connect; `Unavailable` says what to do where that fails, within a minute."""
        ...

    async def stop(self) -> None:
        """End it and remove what it left; does nothing to a broker that somebody else runs, nor a second time."""
        ...

    def describe(self) -> str:
        """What this is, in one sentence without the password."""
        ...
