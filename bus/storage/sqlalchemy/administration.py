"""The commands of administrators on a store. They need no running service and no broker."""

from collections.abc import Callable

from sqlalchemy.ext.asyncio import AsyncConnection

from bus.errors import BusError, ConfigurationError
from bus.messaging.jobs.pruning import PruneReport, Retention
from bus.messaging.jobs.store_report import (
    ReencryptReport,
    StoreIdentity,
    StoreReport,
    UpgradeReport,
)
from bus.messaging.store_address import StoreAddress
from bus.security.encryption import PayloadCipher
from bus.storage.sqlalchemy.condition import Numbers, read_numbers
from bus.storage.sqlalchemy.database import Database
from bus.storage.sqlalchemy.engine import open_engine
from bus.storage.sqlalchemy.identity import Identity
from bus.storage.sqlalchemy.inbox import SqlInbox
from bus.storage.sqlalchemy.job_store import SqlJobStore
from bus.storage.sqlalchemy.migrations import HEAD
from bus.storage.sqlalchemy.opening import (
    check_identity,
    check_writable,
    find_identity,
    reported_errors,
)
from bus.storage.sqlalchemy.present import present_time
from bus.storage.sqlalchemy.pruning import Pruning
from bus.storage.sqlalchemy.reencryption import reencrypt
from bus.storage.sqlalchemy.sqlite_file import check_sqlite_file, create_sqlite_file, has_file
from bus.storage.sqlalchemy.upgrade import upgrade

__all__ = ["StoreAdministration"]


class StoreAdministration:
    """A store, as its administrators use it. Close it after use."""

    def __init__(self, source: Callable[[], StoreAddress], service: str = "") -> None:
        """Create the object. It connects at its first use.

        Args:
            source: Function that returns the address, with the current password.
            service: Service that must own the store. Empty: any service.
        """
        self._address, self._service = source(), service
        # A migration or a large batch can take longer than a statement of a worker.
        self._database = Database(
            open_engine(source, name="bus store", statement_timeout=None), self._address.place
        )

    @property
    def place(self) -> str:
        """Address of the database, without user and password."""
        return self._address.place

    async def close(self) -> None:
        """Close all connections."""
        await self._database.close()

    async def upgrade(self, *, is_dry: bool = False) -> UpgradeReport:
        """Create the file and the tables, or change the tables to this version of the bus.

        Args:
            is_dry: True only returns what an upgrade would do.

        Raises:
            ConfigurationError: The file cannot be used, or the store belongs to another service.
            Unavailable: The database cannot be reached.
        """
        is_missing = False
        if self._address.path is not None:
            is_missing = not is_dry and create_sqlite_file(self._address)
            if is_dry and not has_file(self._address):
                empty = StoreIdentity(place=self.place)
                return UpgradeReport(before=empty, after=self._future(empty), is_created=True)
            check_sqlite_file(self._address)
        before = await find_identity(self._database)
        self._check_owner(before)
        if is_dry:
            found = self._identity(before)
            return UpgradeReport(before=found, after=self._future(found))
        async with reported_errors(self.place):
            done = await upgrade(self._database, self._service)
        return UpgradeReport(
            before=self._identity(done.before),
            after=self._identity(done.after),
            is_created=is_missing,
        )

    async def check(self) -> StoreReport:
        """Return the condition of the store. A problem is a part of it, and not an error."""
        identity = Identity()
        problems: list[str] = []
        try:
            if self._address.path is not None:
                check_sqlite_file(self._address)
            identity = await find_identity(self._database)
            check_identity(identity, self._service or identity.service, self.place)
        except BusError as error:
            problems.append(str(error))
        found = self._identity(identity)
        if problems:
            return StoreReport(identity=found, needed_revision=HEAD, problems=tuple(problems))
        try:
            await check_writable(self._database)
        except BusError as error:
            problems.append(str(error))
        numbers = Numbers()
        try:
            numbers = await self._database.read(lambda each: read_numbers(each, self._address))
        except BusError as error:  # a missing right or a lock, if the text is there already
            if not problems:
                problems.append(str(error))
        return StoreReport(
            identity=found,
            needed_revision=HEAD,
            bytes=numbers.bytes,
            jobs=numbers.jobs,
            oldest_waiting=numbers.oldest_waiting,
            instances=numbers.instances,
            problems=tuple(problems),
        )

    async def prune(self, retention: Retention, *, is_dry: bool = False) -> PruneReport:
        """Remove the data of messages that were handled long ago.

        Args:
            retention: Seconds for which the data is kept.
            is_dry: True only returns the numbers.

        Raises:
            ConfigurationError: The store cannot be used until an operator has acted.
            Unavailable: The database cannot be reached.
        """
        await self._check_usable()
        pruning = Pruning(self._database, SqlJobStore(self._database), SqlInbox(self._database))
        now = await self._database.read(_present)
        work = pruning.count if is_dry else pruning.prune
        return await work(retention, now=now)

    async def reencrypt(self, cipher: PayloadCipher, *, is_dry: bool = False) -> ReencryptReport:
        """Encrypt the stored messages with the first key of a cipher.

        Args:
            cipher: Cipher with the old keys and the new one.
            is_dry: True only counts the messages by the key that they need.

        Raises:
            ConfigurationError: The cipher has no keys, or the store cannot be used.
            Unavailable: The database cannot be reached.
        """
        await self._check_usable()
        return await reencrypt(self._database, cipher, is_dry=is_dry)

    async def _check_usable(self) -> None:
        if self._address.path is not None:
            check_sqlite_file(self._address)
        identity = await find_identity(self._database)
        check_identity(identity, self._service or identity.service, self.place)

    def _check_owner(self, identity: Identity) -> None:
        if self._service and identity.service not in {"", self._service}:
            raise ConfigurationError(
                f"the store {self.place} belongs to the service {identity.service!r}, not to "
                f"{self._service!r}. Set BUS_STORE to another database."
            )

    def _identity(self, found: Identity) -> StoreIdentity:
        return StoreIdentity(
            place=self.place, id=found.id, service=found.service, revision=found.revision
        )

    def _future(self, found: StoreIdentity) -> StoreIdentity:
        """Return the identity after an upgrade. A new store has a random id, which is not known."""
        newest = max(found.revision or "", HEAD)
        return StoreIdentity(
            place=self.place,
            id=found.id,
            service=found.service or self._service,
            revision=newest,
        )


async def _present(connection: AsyncConnection) -> float:
    return await present_time(connection, None)
