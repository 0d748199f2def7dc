"""The durable store that the settings name."""

from collections.abc import Callable
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from typing import cast

from bus.errors import ConfigurationError
from bus.messaging.ports.store import Store
from bus.messaging.ports.store_administrator import StoreAdministrator
from bus.messaging.store_address import StoreAddress
from bus.settings import Settings
from bus.settings.store_settings import SERVICE

__all__ = ["check_packages", "configured_store", "operator_store", "store_administration"]

PACKAGES = {
    "sqlite": ("store", ("sqlalchemy", "greenlet", "alembic", "aiosqlite")),
    "postgresql": ("postgres", ("sqlalchemy", "greenlet", "alembic", "asyncpg")),
}
"""For each kind of database, the extra and the modules that the extra installs."""


def configured_store(
    settings: Settings, service: str, *, clock: Callable[[], float] | None = None
) -> Store | None:
    """Return the store in the setting `store`, which is not open yet.

    Args:
        settings: Settings of the service.
        service: Service that owns the store.
        clock: Function that returns seconds since the epoch. None: the clock of the database.

    Returns:
        The store. None for `memory`. Only a store imports SQLAlchemy.

    Raises:
        ConfigurationError: A package is missing, or the password cannot be read.
    """
    address = settings.store_address_of(service)
    if address is None:
        return None
    check_packages(address)
    # Without a store, no process spends the time and memory of this import.
    module = import_module("bus.storage.sqlalchemy.store")
    return cast("Store", module.SqlStore(settings, service, clock=clock))


def store_administration(settings: Settings, service: str | None) -> StoreAdministrator:
    """Return the administration of the store in the setting `store`.

    Args:
        settings: Settings of the administrator.
        service: Service that must own the store. None: any service.

    Raises:
        ConfigurationError: The setting is `memory`, or has the name of the service and `service` is
            None. Or a package is missing, or the password cannot be read.
    """
    _check_service(settings, service)
    name = service or ""
    address = settings.store_address_of(name)
    if address is None:
        raise ConfigurationError(
            "BUS_STORE is memory, so the service has no durable store. Set it to "
            "sqlite:////path/of/file.db or postgresql://user:password@host:port/database."
        )
    check_packages(address)
    module = import_module("bus.storage.sqlalchemy.administration")
    source = partial(settings.store_address_of, name)
    return cast("StoreAdministrator", module.StoreAdministration(source, name))


def operator_store(settings: Settings, service: str | None) -> Store | None:
    """Return the store in the setting `store` for a command of an operator.

    Args:
        settings: Settings of the operator.
        service: Service that owns the store. None: any service.

    Returns:
        The store, which is not open yet. None for `memory`.

    Raises:
        ConfigurationError: The setting names a store for each service, and `service` is None. Or as
            `configured_store`.
    """
    _check_service(settings, service)
    address = settings.store_address_of(service or "")
    if address is None:
        return None
    check_packages(address)
    module = import_module("bus.storage.sqlalchemy.store")
    return cast("Store", module.SqlStore(settings, service or "", is_operator=True))


def _check_service(settings: Settings, service: str | None) -> None:
    if service is None and SERVICE in settings.store.get_secret_value():
        raise ConfigurationError(
            f"BUS_STORE contains {SERVICE}, so each service has a store of its own. Pass --service."
        )


def check_packages(address: StoreAddress) -> None:
    """Check that the packages for a database are installed.

    Raises:
        ConfigurationError: A package is missing. The error has the command that installs it.
    """
    extra, modules = PACKAGES[address.kind]
    missing = [name for name in modules if find_spec(name) is None]
    if missing:
        raise ConfigurationError(
            f"BUS_STORE: {address.place} needs {', '.join(missing)}, which is not installed. "
            f'Run `pip install "trunkline[{extra}]"`.'
        )
