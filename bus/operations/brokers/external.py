"""A broker that this program does not manage."""

from dataclasses import dataclass, field
from urllib.parse import urlsplit

__all__ = ["ExternalBroker"]


@dataclass(frozen=True)
class ExternalBroker:
    """The RabbitMQ at a URL. This program neither starts nor stops this RabbitMQ."""

    url: str = field(repr=False)
    management_url: str | None = None
    running: bool = True

    async def start(self) -> None:
        """Do nothing, because the broker is already running."""

    async def stop(self) -> None:
        """Do nothing. The broker continues to run."""

    def describe(self) -> str:
        """Return a description. It does not contain the password."""
        address = urlsplit(self.url)
        return f"the RabbitMQ that BUS_URL names, on {address.hostname}:{address.port or 5672}"
