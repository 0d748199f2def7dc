"""A broker that somebody else runs."""

from dataclasses import dataclass, field
from urllib.parse import urlsplit

__all__ = ["ExternalBroker"]


@dataclass(frozen=True)
class ExternalBroker:
    """The RabbitMQ behind a URL; starting and stopping it is somebody else's business."""

    url: str = field(repr=False)
    management_url: str | None = None
    running: bool = True

    async def start(self) -> None:
        """Do nothing: it runs."""

    async def stop(self) -> None:
        """Do nothing: it goes on running."""

    def describe(self) -> str:
        """What this is, without the password."""
        address = urlsplit(self.url)
        return f"the RabbitMQ that BUS_URL names, on {address.hostname}:{address.port or 5672}"
