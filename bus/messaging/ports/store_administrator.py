"""The port of the administration of a store, which the command line uses."""

from typing import Any, Protocol

from bus.messaging.jobs.pruning import PruneReport, Retention
from bus.messaging.jobs.store_report import ReencryptReport, StoreReport, UpgradeReport

__all__ = ["StoreAdministrator"]


class StoreAdministrator(Protocol):
    """A store, as its administrators use it. Close it after use.

    Each method raises `ConfigurationError` if the store cannot be used until an operator has acted,
    and `Unavailable` if the database cannot be reached.
    """

    async def close(self) -> None:
        """Close all connections."""
        ...

    async def upgrade(self, *, is_dry: bool = False) -> UpgradeReport:
        """Create the tables, or change them to this version of the bus.

        Args:
            is_dry: True only returns what an upgrade would do.
        """
        ...

    async def check(self) -> StoreReport:
        """Return the condition of the store. A problem is a part of it, and not an error."""
        ...

    async def prune(self, retention: Retention, *, is_dry: bool = False) -> PruneReport:
        """Remove the data of messages that were handled long ago.

        Args:
            retention: Seconds for which the data is kept.
            is_dry: True only returns the numbers.
        """
        ...

    async def reencrypt(self, cipher: Any, *, is_dry: bool = False) -> ReencryptReport:
        """Encrypt the stored messages with the newest key.

        Args:
            cipher: `PayloadCipher` with the old keys and the new one.
            is_dry: True only counts the messages by the key that they need.
        """
        ...
