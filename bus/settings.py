"""Settings, from the environment, validated once. Nothing else reads the environment."""

from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from bus.errors import ConfigurationError

__all__ = ["Settings", "load_settings"]


class Settings(BaseSettings):
    """What a service can set; each variable is the field's name in capitals with the prefix `BUS_`."""

    # allow_inf_nan: no wait is for ever, not even by setting.
    model_config = SettingsConfigDict(env_prefix="BUS_", frozen=True, extra="ignore", hide_input_in_errors=True, allow_inf_nan=False)

    url: SecretStr = Field(default=SecretStr("amqp://guest:guest@localhost:5672/"))
    """The broker, `amqp://` or `amqps://user:password@host:port/vhost`."""
    management_url: SecretStr | None = None
    """Its management API, `http://host:port` or `https://…`, with user and password where they are others than those of `url`."""
    topology: Literal["declare", "verify"] = "declare"
    """`verify`: a service looks at its start whether all is there, and makes nothing but its own reply queue."""
    heartbeat: int = Field(default=10, ge=1, le=300)
    """Seconds. RabbitMQ advises 5 to 20: a half-open connection is noticed within twice of it."""
    connect_timeout: float = Field(default=4, gt=0)
    """Seconds for one attempt to connect; at the start also for the first connection as a whole."""
    start_timeout: float = Field(default=30, gt=0)
    """Seconds in which, once connected, every consumer has to be ready; then the start fails."""
    request_timeout: float = Field(default=10, gt=0)
    """Seconds that a request may take where the caller says nothing."""
    publish_timeout: float = Field(default=10, gt=0)
    """Seconds that a publish or submit may take until the broker's confirm where the caller says nothing."""
    message_ttl: float = Field(default=7 * 24 * 3600, gt=0)
    """Seconds that an event or job stays worth handling (`expires`); 7 days, as long as a weekend with a holiday on both sides."""
    stop_grace: float = Field(default=30, ge=0)
    """Seconds that running handlers get to finish when the service stops."""
    consumer_timeout: float = Field(default=1800, gt=0)
    """Seconds after which the broker takes an unacked message from its worker: what RabbitMQ's own `consumer_timeout` is there, in ms."""
    delivery_limit: int = Field(default=10, ge=3, le=100)
    """Deliveries of one message that may end with their process, or its connection, before it is done; then it is dead-lettered."""
    clock_leeway: float = Field(default=30, ge=0)
    """Seconds by which two machines' clocks may differ before that matters."""
    service_version: str | None = None
    """The version of your service; noted on the dead letters of its workers."""
    request_queue: Literal["classic", "quorum"] = "classic"
    """Quorum where the broker is a cluster: a classic queue is lost to callers while its node is down."""
    fastlane: bool = True
    """Whether hot frames bypass aio-pika on its own connection. Off: by aio-pika alone, many times slower; the way out."""
    publish_window: int = Field(default=1000, ge=1)
    """Publishes that may wait for their confirm at a time; more wait for a place."""
    health_port: int | None = Field(default=None, ge=1, le=65535)
    """Where `bus run` answers `/livez` and `/readyz`; None: nowhere."""
    health_host: str = Field(default="127.0.0.1", min_length=1)
    """The address that `health_port` is opened on. In a container 0.0.0.0, where the orchestrator asks from outside."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["auto", "json", "console"] = "auto"
    """`auto`: readable on a terminal, JSON elsewhere."""

    @field_validator("url")
    @classmethod
    def _address(cls, url: SecretStr) -> SecretStr:
        parts = urlsplit(url.get_secret_value())
        if parts.scheme not in {"amqp", "amqps"} or not parts.hostname or parts.port == 0:  # .port raises ValueError for what is none
            raise ValueError("no address")
        return url

    @field_validator("management_url")
    @classmethod
    def _management_address(cls, url: SecretStr | None) -> SecretStr | None:
        if url is None or not url.get_secret_value():  # Compose sets a variable that is left out to nothing
            return None
        parts = urlsplit(url.get_secret_value())
        if parts.scheme not in {"http", "https"} or not parts.hostname or parts.port == 0:  # as above
            raise ValueError("no address")
        return url


ADDRESSES = {
    "url": "write amqp://user:password@host:port/vhost, or amqps://…",
    "management_url": "write http://host:port, or https://…, with user:password@ before the host where they are others than in BUS_URL",
}
"""What to write where an address is none. Never what was written: it may hold a password."""


def load_settings(**overrides: object) -> Settings:
    """The settings of this process; `ConfigurationError` names the variables at fault, never their values."""
    try:
        return Settings(**overrides)  # type: ignore[arg-type]  # pydantic validates what the environment or a caller gave
    except ValidationError as error:
        found = (("_".join(map(str, each["loc"])), each["type"], each["msg"]) for each in error.errors())
        faults = "; ".join(
            f"BUS_{name.upper()}: {ADDRESSES.get(name, rule) if kind == 'value_error' else rule}" for name, kind, rule in found
        )
        raise ConfigurationError(f"settings: {faults}") from None
