"""The settings of the durable store, and of the jobs in it."""

from pathlib import Path

from pydantic import Field, SecretStr, field_validator
from pydantic_core import PydanticCustomError
from pydantic_settings import SettingsConfigDict

from bus.errors import ConfigurationError
from bus.messaging.broker_addresses import UrlError
from bus.messaging.store_address import MEMORY, StoreAddress, parse_store
from bus.security.secret_files import read_password
from bus.settings.call_settings import CallSettings

__all__ = ["SERVICE", "StoreSettings"]

SERVICE = "{service}"
"""Part of the setting `store` that is replaced with the name of the service."""
HOUR_SECONDS = 3600
DAY_SECONDS = 24 * HOUR_SECONDS


class StoreSettings(CallSettings):
    """The fields of `Settings` about the durable store."""

    model_config = SettingsConfigDict(env_prefix="BUS_")

    store: SecretStr = SecretStr(MEMORY)
    """Durable store of the service: `memory`, or the URL of a database.

    With `memory`, jobs are not stored. `sqlite:////path/of/file.db` is a file that processes of one
    machine share. `postgresql://user:password@host:port/database` is a database for all machines.
    Each service has a store of its own: `{service}` in a URL is replaced with its name.
    """
    store_password_file: Path | None = None
    """File with the password of the database. Its content replaces the password in `store`.

    The bus reads the file at each connect.
    """
    job_lease: float = Field(default=30, ge=1, le=HOUR_SECONDS)
    """Seconds after which another worker takes over a job that its worker does not renew."""
    cancel_grace: float = Field(default=10, ge=0, le=DAY_SECONDS)
    """Seconds that the handler of a cancelled job has to end by itself."""
    retain_succeeded: float = Field(default=DAY_SECONDS, ge=0, le=366 * DAY_SECONDS)
    """Seconds that the store keeps payload and result of a succeeded or cancelled job."""
    retain_failed: float = Field(default=14 * DAY_SECONDS, ge=0, le=366 * DAY_SECONDS)
    """Seconds that the store keeps payload and result of a failed job."""
    inbox_retention: float | None = Field(default=None, ge=0, le=366 * DAY_SECONDS)
    """Seconds that the store remembers a message that a transactional handler has handled.

    A copy that arrives later is handled again. None: as long as a copy can be alive, which is
    `message_ttl` and three extensions of 31 days by operators.
    """

    @field_validator("store")
    @classmethod
    def _check_store(cls, store: SecretStr) -> SecretStr:
        try:
            parse_store(_insert_service(store.get_secret_value(), "service"))
        except UrlError as error:
            raise PydanticCustomError("store_url", "{problem}", {"problem": str(error)}) from None
        return store

    @field_validator("store_password_file")
    @classmethod
    def _check_store_password_file(cls, path: Path | None) -> Path | None:
        if path is not None:
            try:
                read_password(path, "BUS_STORE_PASSWORD_FILE")
            except ConfigurationError:
                raise ValueError("the password cannot be read. Check the file.") from None
        return path

    @property
    def has_store(self) -> bool:
        """True if the service has a durable store."""
        return self.store.get_secret_value() != MEMORY

    def store_address_of(self, service: str) -> StoreAddress | None:
        """Return the address of a service's store, with the current password.

        Returns:
            The address. None without a durable store.

        Raises:
            ConfigurationError: The password cannot be read from `store_password_file`.
        """
        address = parse_store(_insert_service(self.store.get_secret_value(), service))
        if address is None or self.store_password_file is None:
            return address
        password = read_password(self.store_password_file, "BUS_STORE_PASSWORD_FILE")
        return address.with_password(password.get_secret_value())


def _insert_service(store: str, service: str) -> str:
    return store.replace(SERVICE, service)
