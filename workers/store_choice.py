"""The choice between a durable store and memory, which both workers make by `BUS_STORE`."""

from pydantic import ValidationError

from bus import ConfigurationError
from bus.settings.store_settings import StoreSettings

__all__ = ["has_store"]


def has_store() -> bool:
    """Return True if `BUS_STORE` names a database.

    A wrong value counts as none, because the bus reports all wrong settings at its start.
    """
    try:
        return StoreSettings().has_store
    except (ConfigurationError, ValidationError):
        return False
