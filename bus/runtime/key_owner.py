"""The services to which the private key in the settings belongs."""

from bus.errors import ConfigurationError
from bus.security.jwks_source import key_directory, private_key_source, public_key_source
from bus.security.key_directory import KeyDirectory
from bus.security.key_set import read_key_set
from bus.security.keyring import Keyring
from bus.settings import Settings

__all__ = ["find_key_owners"]


async def find_key_owners(settings: Settings) -> list[str]:
    """Return the sorted names of the services that `BUS_KEY` names.

    The public key set shows the owner of a key. A directory names the services that have a key file
    in it. The operators that the key set lists are left out.

    Args:
        settings: The settings of the process.

    Returns:
        One service for a key. The list is empty if no key names a service: `BUS_AUTH` is not `on`,
        or `BUS_KEY` or `BUS_JWKS` is not set.

    Raises:
        ConfigurationError: The keys cannot be read, or the key does not belong to a service.
        FailedPrecondition: The key is not valid now.
    """
    key = settings.key.get_secret_value() if settings.key else ""
    if settings.auth != "on" or not key or settings.jwks is None:
        return []
    directory = key_directory(key)
    if directory is not None:
        return await _services_in(directory, settings.jwks)
    ring = Keyring(None, public_key_source(settings.jwks), private_key_source(key))
    await ring.start()
    owner = ring.signing_key().key.owner
    return [] if owner is None else [owner]


async def _services_in(directory: KeyDirectory, jwks: str) -> list[str]:
    try:
        key_set = read_key_set(await public_key_source(jwks)())
    except OSError as error:
        raise ConfigurationError(
            f"BUS_JWKS: the key set cannot be read ({type(error).__name__}). Check the URL."
        ) from None
    operators = {
        key.owner for keys in key_set.keys.values() for key in keys if key.role == "operator"
    }
    return [owner for owner in directory.owners() if owner not in operators]
