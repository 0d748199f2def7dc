"""The name of the broker in error texts: its variable, or its default address."""

from bus.settings import Settings

__all__ = ["BROKER_IN_BUS_URL", "name_broker"]

BROKER_IN_BUS_URL = "the broker in BUS_URL"


def name_broker(settings: Settings) -> str:
    """Return the name of the broker that the settings select.

    Without `BUS_URL` the name has the default address. The variable alone would not tell which
    broker is meant.
    """
    if "url" in settings.model_fields_set:
        return BROKER_IN_BUS_URL
    return "the broker at localhost:5672 (the default, because BUS_URL is not set)"
