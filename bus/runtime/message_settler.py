"""The interface by which a receiver settles its messages."""

from typing import Protocol

from bus.runtime.inbound_message import HandlingResult, InboundMessage

__all__ = ["MessageSettler"]


class MessageSettler(Protocol):
    """Settles the messages of one endpoint: at the broker, or in the store of durable jobs."""

    async def settle(self, message: InboundMessage, result: HandlingResult) -> bool:
        """Settle a message. Return False if it must be requeued."""
        ...

    async def abandon(
        self, message: InboundMessage, result: HandlingResult, cause: BaseException
    ) -> bool:
        """Settle a message after a failed `settle`. Return False if it must be requeued."""
        ...

    async def wait_before_retry(self, attempt: int) -> bool:
        """Wait before another try. Return False at once if the service is stopping."""
        ...

    def stop_retrying(self) -> None:
        """Stop retrying, because the service is stopping."""
        ...

    async def close(self) -> None:
        """Stop the work that continues after a settlement."""
        ...
