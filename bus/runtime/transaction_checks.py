"""Checks that a service with transactional handlers has a database."""

from bus.errors import ConfigurationError
from bus.messaging.ports.store import Store
from bus.runtime.endpoint import Endpoint
from bus.runtime.router import Router
from bus.runtime.service_runtime import ServiceRuntime

__all__ = ["check_transactions", "transactional_store"]

REMEDY = (
    "Set BUS_STORE to the URL of a database, such as sqlite:////var/lib/shop/store.db or "
    "postgresql://user@host/shop, and run `bus store upgrade`."
)


def check_transactions(router: Router, runtime: ServiceRuntime) -> None:
    """Check that the store of the service has transactions, if a handler requires them.

    Raises:
        ConfigurationError: The service has no store, or the store is not a database.
    """
    for endpoint in router.endpoints.values():
        if endpoint.is_transactional:
            transactional_store(runtime, endpoint)


def transactional_store(runtime: ServiceRuntime, endpoint: Endpoint) -> Store:
    """Return the store of the service, for a transactional handler.

    Raises:
        ConfigurationError: The service has no store, or the store is not a database.
    """
    store, type_ = runtime.store, endpoint.contract.type
    if store is None:
        raise ConfigurationError(
            f"{type_}: its handler is transactional, but the service {runtime.service!r} has no "
            f"store. {REMEDY}"
        )
    if not store.has_transactions:
        raise ConfigurationError(
            f"{type_}: its handler is transactional, but the store of {runtime.service!r} is in "
            f"memory, which has no transactions. {REMEDY}"
        )
    return store
