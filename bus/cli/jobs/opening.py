"""The store on which the commands work. They need no broker and no running service."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from bus.cli.audit import begin_audit
from bus.cli.services.commands import check_service
from bus.errors import ConfigurationError
from bus.messaging.ports.store import Store
from bus.settings import Settings, load_settings
from bus.storage.configured_store import operator_store

__all__ = ["NO_STORE", "opened_store", "run_on_store"]

T = TypeVar("T")
NO_STORE = (
    "BUS_STORE is memory, so no store keeps jobs. Set it to the store of the service, such as "
    "sqlite:////var/lib/shop/jobs.db. Failed jobs of a service without a store are dead letters: "
    "run `bus dead list`."
)


@asynccontextmanager
async def opened_store(settings: Settings, service: str | None) -> AsyncIterator[Store]:
    """Yield the open store of the setting `store`.

    Args:
        settings: Settings of the operator.
        service: Service that owns the store. None: any service.

    Raises:
        ConfigurationError: No store is set, or its tables are those of another version.
        Unavailable: The database cannot be reached.
    """
    store = operator_store(settings, service)
    if store is None:
        raise ConfigurationError(NO_STORE)
    try:
        await store.open()
        yield store
    finally:
        await store.close()


def run_on_store(service: str | None, work: Callable[[Store], Coroutine[Any, Any, T]]) -> T:
    """Open the store of the settings, and run `work` with it. Log only audit records."""
    if service is not None:
        check_service(service)
    settings = load_settings()

    async def run() -> T:
        async with opened_store(settings, service) as store:
            return await work(store)

    begin_audit(settings)
    return asyncio.run(run())
