"""The durable store of a service in SQLite or PostgreSQL."""

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from importlib import import_module
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from bus.errors import ConfigurationError
from bus.messaging.jobs.pauses import Pause
from bus.messaging.jobs.pruning import PruneReport, Retention
from bus.messaging.jobs.records import Attempt
from bus.messaging.ports.inbox import FactKey
from bus.messaging.ports.store import InstanceBeat, Transaction
from bus.messaging.store_address import StoreAddress
from bus.settings import Settings
from bus.storage.sqlalchemy.database import Database
from bus.storage.sqlalchemy.engine import STATEMENT_SECONDS, open_engine
from bus.storage.sqlalchemy.inbox import SqlInbox
from bus.storage.sqlalchemy.instances import forget, read_beats, write_beat
from bus.storage.sqlalchemy.job_store import SqlJobStore
from bus.storage.sqlalchemy.notifications import NO_NOTIFICATIONS, NotifyingDatabase
from bus.storage.sqlalchemy.opening import check_store, claim_store
from bus.storage.sqlalchemy.pauses import add_pause, read_pauses, remove_pause
from bus.storage.sqlalchemy.present import present_time
from bus.storage.sqlalchemy.pruning import Pruning
from bus.storage.sqlalchemy.sqlite_file import check_sqlite_file
from bus.storage.sqlalchemy.transactions import Transactions

__all__ = ["SqlStore"]

OPERATOR = "operator"
"""Name of the connections of an operator's command."""
Clock = Callable[[], float]


class SqlStore:
    """Durable store of one service in a database. It implements `Store`."""

    def __init__(
        self,
        settings: Settings,
        service: str,
        *,
        clock: Clock | None = None,
        is_operator: bool = False,
    ) -> None:
        """Create the store. It connects when it is opened.

        Args:
            settings: Settings with the address of the database.
            service: Service that owns the store. An operator can leave it empty.
            clock: Function that returns seconds since the epoch. None: the clock of PostgreSQL,
                which all instances share, or of this machine for SQLite.
            is_operator: True for a command of an operator, which never becomes the owner.

        Raises:
            ConfigurationError: The password of the database cannot be read.
        """
        self._settings, self._service, self._clock = settings, service, clock
        self._is_operator = is_operator
        self._address = self._read_address()
        self.database = Database(
            open_engine(self._read_address, name=f"bus {service or OPERATOR}"), self._address.place
        )
        notifications = (
            NO_NOTIFICATIONS
            if self.database.is_sqlite
            else NotifyingDatabase(self._connect_for_notifications)
        )
        self._jobs = SqlJobStore(self.database, clock=clock, notifications=notifications)
        self._inbox = SqlInbox(self.database, clock=clock)
        self.pruning = Pruning(self.database, self._jobs, self._inbox)
        # The concurrency of the handlers is the bound of their connections. A handler has its own
        # timeout, so its statements have no other one.
        self._handlers = open_engine(
            self._read_address,
            name=f"bus {service or OPERATOR} handlers",
            statement_timeout=None,
            max_overflow=-1,
        )
        self._transactions = Transactions(
            self.database, self._handlers, jobs=self._jobs, clock=clock
        )
        self._id = ""

    @property
    def id(self) -> str:
        """Random id of the database. Empty before the store was opened."""
        return self._id

    @property
    def place(self) -> str:
        """Address of the database, without user and password."""
        return self._address.place

    @property
    def has_transactions(self) -> bool:
        """True: handlers can write to the database."""
        return True

    @property
    def jobs(self) -> SqlJobStore:
        """The durable jobs."""
        return self._jobs

    @property
    def inbox(self) -> SqlInbox:
        """The handled messages, which all processes of the service know."""
        return self._inbox

    async def open(self) -> None:
        """Connect, check the tables, and become the owner of a store without one.

        Raises:
            ConfigurationError: The store is behind, ahead, locked, read-only, or belongs to another
                service. The text has the command to run.
            Unavailable: The database cannot be reached.
        """
        self.database.reset()
        self._handlers.sync_engine.dispose(close=False)
        self._transactions.reset()
        self._jobs.reset()
        if self._address.kind == "sqlite":
            check_sqlite_file(self._address)
        use = check_store if self._is_operator else claim_store
        identity = await use(self.database, self._service)
        self._id = identity.id or ""

    async def close(self) -> None:
        """Close all connections. A second call has no effect."""
        await self._transactions.close()
        await self._jobs.close()
        await self.database.close()

    def transaction(
        self, key: FactKey | Attempt, *, lease: float
    ) -> AbstractAsyncContextManager[Transaction | None]:
        """Claim a message for a handler, and yield its transaction; see `Store.transaction`."""
        return self._transactions.begin(key, lease=lease)

    async def prune(self, retention: Retention, *, every: float = 0) -> PruneReport | None:
        """Remove the data of messages that were handled long ago; see `Store.prune`."""
        now = await self.now()
        if every and not await self.pruning.claim(now=now, seconds=every):
            return None
        return await self.pruning.prune(retention, now=now)

    async def beat(self, instance: str, *, recorded_until: float) -> Sequence[InstanceBeat]:
        """Write a sign of life of an instance, and return those of all instances."""

        async def work(connection: AsyncConnection) -> Sequence[InstanceBeat]:
            now = await present_time(connection, self._now())
            await write_beat(connection, instance, now=now, recorded_until=recorded_until)
            return await read_beats(connection)

        return await self.database.write(work)

    async def forget_instance(self, instance: str) -> None:
        """Remove an instance that has stopped."""
        await self.database.write(lambda each: forget(each, instance), is_single=True)

    async def pauses(self) -> Sequence[Pause]:
        """Return the pauses that have not ended."""

        async def work(connection: AsyncConnection) -> Sequence[Pause]:
            return await read_pauses(connection, now=await present_time(connection, self._now()))

        return await self.database.read(work)

    async def pause(self, pause: Pause) -> None:
        """Store a pause. It replaces an earlier pause of the same queue."""
        await self.database.write(lambda each: add_pause(each, pause), is_single=True)

    async def resume(self, queue: str) -> bool:
        """Remove the pause of a queue. Return False if there is none."""
        return await self.database.write(lambda each: remove_pause(each, queue), is_single=True)

    async def now(self) -> float:
        """Return the time of the store, in seconds since the epoch."""
        return await self.database.read(lambda each: present_time(each, self._now()))

    def _now(self) -> float | None:
        """Return the present time, or None for the clock of the database."""
        return None if self._clock is None else self._clock()

    def _read_address(self) -> StoreAddress:
        """Return the address with the current password."""
        address = self._settings.store_address_of(self._service)
        if address is None:
            raise ConfigurationError("BUS_STORE is not set. Set it to the URL of a database.")
        return address

    async def _connect_for_notifications(self) -> Any:
        # Only PostgreSQL has notifications, and only its driver is imported then.
        module = import_module("bus.storage.sqlalchemy.postgresql_engine")
        return await module.connect_directly(
            self._read_address(), f"bus {self._service} notifications", STATEMENT_SECONDS
        )
