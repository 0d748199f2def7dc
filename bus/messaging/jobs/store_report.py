"""The condition of a store, for its administrators. No value has data of a message."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from bus.messaging.jobs.states import JobState

__all__ = ["ReencryptReport", "StoreIdentity", "StoreReport", "UpgradeReport"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreIdentity:
    """The identity of a store."""

    place: str
    """Address of the database, without user, password and parameters."""
    id: str | None = None
    """Random id. None if the database has no tables of the bus."""
    service: str = ""
    """Owner. Empty if no service has opened the store yet."""
    revision: str | None = None
    """Revision of the tables. None if the database has no tables of the bus."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UpgradeReport:
    """The result of an upgrade, or of its dry run."""

    before: StoreIdentity
    after: StoreIdentity
    is_created: bool = False
    """True if the upgrade has created the file of SQLite."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreReport:
    """The condition of a store."""

    identity: StoreIdentity
    needed_revision: str
    """Revision of the tables that this version of the bus uses."""
    bytes: int | None = None
    """Size of the database on the disk. None if it is not known."""
    jobs: Mapping[JobState, int] = field(default_factory=dict)
    """Number of jobs in each state that occurs."""
    oldest_waiting: float | None = None
    """Seconds for which the oldest job that is due has waited for a worker."""
    instances: int = 0
    """Number of instances that gave a sign of life within the last minute."""
    problems: tuple[str, ...] = ()
    """Problems, each with the command that corrects it. A service starts only without any."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReencryptReport:
    """The result of a new encryption of the stored messages, or of its dry run."""

    key: str
    """Id of the key that encrypts."""
    messages: Mapping[str, int]
    """Number of messages by the id of the key that they need, before the encryption."""
    changed: int = 0
    """Number of messages that were encrypted with the new key."""
    unreadable: int = 0
    """Number of messages that no key in `BUS_ENCRYPTION_KEYS` can decrypt."""
