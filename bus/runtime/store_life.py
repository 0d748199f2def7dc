"""The durable store while a bus is open: its start, its comparison and its end."""

import asyncio

from bus.errors import BusError, ConfigurationError
from bus.messaging.control import Ping, Target
from bus.messaging.ports.store import Store
from bus.runtime.discovery.asker import Asker
from bus.runtime.jobs.pruning_loop import PruningLoop
from bus.settings import Settings

__all__ = ["StoreLife"]

ASK_SECONDS = 0.5
"""Seconds to wait for the answers of the other instances, once, when the bus serves a router."""


class StoreLife:
    """The store of a bus, if it has one."""

    def __init__(self, store: Store | None, settings: Settings, service: str) -> None:
        """Create the life of a store that is not open yet."""
        self._store, self._service = store, service
        self._pruning = None if store is None else PruningLoop(store, settings, service)
        self._opening = asyncio.Lock()
        self._is_open = False

    async def open(self) -> None:
        """Open the store, and begin to prune it; see `Store.open` for the errors.

        Only a bus that serves uses its store. A client of another service can have the same
        environment, and must not open the store of that service. A second call has no effect.
        """
        async with self._opening:
            if self._store is None or self._pruning is None or self._is_open:
                return
            await self._store.open()
            self._is_open = True
            self._pruning.start()

    async def close(self) -> None:
        """Close the store."""
        if self._store is not None and self._pruning is not None:
            await self._pruning.close()
            await self._store.close()

    async def compare(self, asker: Asker) -> None:
        """Check that no live instance of the service has another store.

        An instance without a store does not count, because it can be an older version of the
        service. Without discovery, nothing is compared.

        Raises:
            ConfigurationError: Another instance has a store with another id.
        """
        if self._store is None:
            return
        try:
            answers = await asker.ask(Ping(), Target(self._service), window=ASK_SECONDS)
        except BusError:
            return
        for answer in answers:
            other = answer.record.store
            if other not in {None, self._store.id}:
                raise ConfigurationError(
                    f"the instance {answer.record.instance} of {self._service} uses another store "
                    f"({other}) than this process ({self._store.id}). All instances of a service "
                    "share one store: set the same BUS_STORE, and compare with `bus store check`."
                )
