"""A broker that this program does not manage."""

from dataclasses import dataclass, field

from bus.messaging.broker_addresses import require_urls

__all__ = ["ExternalBroker"]


@dataclass(frozen=True)
class ExternalBroker:
    """The RabbitMQ at a URL. This program neither starts nor stops this RabbitMQ."""

    url: str = field(repr=False)
    management_url: str | None = field(default=None, repr=False)
    running: bool = True

    async def start(self) -> None:
        """Do nothing, because the broker is already running."""

    async def stop(self) -> None:
        """Do nothing. The broker continues to run."""

    def describe(self) -> str:
        """Return a description. It does not contain the password.

        Raises:
            ConfigurationError: The URL is invalid.
        """
        places = ", ".join(url.place for url in require_urls(self.url))
        return f"the RabbitMQ that BUS_URL names, on {places}"
