"""Which payloads a bus encrypts, and by which keys: from the settings."""

from importlib import import_module
from pathlib import Path

from bus.errors import ConfigurationError
from bus.security.encryption import UNUSED, Cipher
from bus.security.keyring import private_file
from bus.settings import Settings

__all__ = ["cipher_of"]

VARIABLE = "BUS_ENCRYPTION_KEYS"


def cipher_of(settings: Settings) -> Cipher:
    """By the settings. `ConfigurationError` where keys are none, are open to others, or are missing for `BUS_ENCRYPT=everything`."""
    everything = settings.encrypt == "everything"
    if settings.encryption_keys is None:
        if everything:
            raise ConfigurationError(f"BUS_ENCRYPT=everything takes keys; `bus keys ring` makes them, and {VARIABLE} says where they are")
        return UNUSED
    setting = settings.encryption_keys.get_secret_value()
    text = setting if setting.lstrip().startswith("{") else private_file(Path(setting), VARIABLE)
    try:
        jwe = import_module("bus.security.jwe")  # loaded where it is used alone: its library takes as long as half of the bus
    except ModuleNotFoundError:
        raise ConfigurationError(f"{VARIABLE}: encryption needs joserfc; pip install 'trunkline[encryption]'") from None
    return Cipher(jwe.read_ring(text), everything=everything)
