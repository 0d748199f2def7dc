"""Settings, from the environment, validated once. Nothing else reads the environment."""

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal
from urllib.parse import SplitResult, parse_qs, quote, urlencode, urlsplit, urlunsplit

from pydantic import Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from bus.errors import ConfigurationError
from bus.security.secret_files import read_password

__all__ = ["Settings", "load_settings"]


class Settings(BaseSettings):
    """What a service can set; each variable is the field's name in capitals with the prefix `BUS_`."""

    # allow_inf_nan: no wait is for ever, not even by setting.
    model_config = SettingsConfigDict(
        env_prefix="BUS_",
        frozen=True,
        extra="ignore",
        hide_input_in_errors=True,
        allow_inf_nan=False,
    )

    url: SecretStr = Field(default=SecretStr("amqp://guest:guest@localhost:5672/"))
    """The broker, `amqp://` or `amqps://user:password@host:port/vhost`."""
    password_file: Path | None = None
    """A file with the password, or OAuth 2 token, in place of the one in `url`; read at each connect, and watched."""
    management_url: SecretStr | None = None
    """Its management API, `http://host:port` or `https://…`, with user and password where they are others than those of `url`."""
    ca_file: Path | None = None
    """The authorities that vouch for the broker, PEM; without it those of the operating system. For `amqps` and `https`."""
    client_certificate: Path | None = None
    """This service's own certificate, PEM, with those in between: for a broker that asks for one."""
    client_key: Path | None = Field(default=None, validate_default=True)
    """Its private key, PEM, without a passphrase, where it is not in the same file."""
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
    auth: Literal["on", "dev", "off"] = "on"
    """`on`: everything is signed and checked, by keys. `dev`: by one secret that all services share. `off`: not at all."""
    key: SecretStr | None = None
    """This service's private key: a path, or the key itself. With `auth` at `dev` the shared secret."""
    jwks: str | None = Field(default=None, min_length=1)
    """Everybody's public keys, a JSON Web Key Set: a path, or an https URL."""
    grants: Path | None = None
    """Who may call, publish and consume what: `grants.toml`."""
    encryption_keys: SecretStr | None = None
    """The keys that encrypt payloads, a JSON Web Key Set: a path, or the set itself. The first encrypts, every one decrypts."""
    encrypt: Literal["contracts", "everything"] = "contracts"
    """Whose payloads are encrypted: of contracts that say so (`encrypted=True`), or of all."""
    operator_key: SecretStr | None = None
    """The private key of who gives expired dead letters more time, or sees payloads; a service has none."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["auto", "json", "console"] = "auto"
    """`auto`: readable on a terminal, JSON elsewhere."""

    @field_validator("url")
    @classmethod
    def _address(cls, url: SecretStr) -> SecretStr:
        parts = urlsplit(url.get_secret_value())
        if (
            parts.scheme not in {"amqp", "amqps"} or not parts.hostname or parts.port == 0
        ):  # .port raises ValueError for what is none
            raise ValueError("no address")
        if "no_verify_ssl" in parse_qs(parts.query):
            raise ValueError("unverified")
        return url

    @field_validator("ca_file")
    @classmethod
    def _authorities(cls, path: Path | None) -> Path | None:
        if path is not None:
            with _readable():
                ssl.create_default_context(cafile=path)
        return path

    @field_validator("password_file")
    @classmethod
    def _password(cls, path: Path | None) -> Path | None:
        if path is not None:
            try:
                read_password(path)
            except ConfigurationError:
                raise ValueError("no password") from None
        return path

    @field_validator("client_key")
    @classmethod
    def _certified(cls, key: Path | None, info: ValidationInfo) -> Path | None:
        certificate = info.data.get("client_certificate")
        if certificate is not None:
            with _readable():
                # The password is only asked for where the key has one: OpenSSL would ask on the terminal.
                ssl.create_default_context().load_cert_chain(certificate, key, password="")
        elif key is not None:
            raise ValueError("no certificate")
        return key

    @property
    def address(self) -> str:
        """`url` with the certificates, as aiormq takes them. Without a password a certificate says who we are (EXTERNAL).

        The password is what `password_file` has now, where that is set; `ConfigurationError` where it has none.
        """
        parts = self._with_password(urlsplit(self.url.get_secret_value()))
        files = {
            "cafile": self.ca_file,
            "certfile": self.client_certificate,
            "keyfile": self.client_key,
        }
        added = {name: str(path) for name, path in files.items() if path is not None}
        if parts.scheme != "amqps" or not added:
            return urlunsplit(parts)
        if self.client_certificate is not None and not parts.password:
            added["auth"] = "external"
        return urlunsplit(
            parts._replace(query="&".join(filter(None, (parts.query, urlencode(added)))))
        )

    def _with_password(self, parts: SplitResult) -> SplitResult:
        if self.password_file is None:
            return parts
        credentials, _, host = parts.netloc.rpartition("@")
        password = quote(read_password(self.password_file).get_secret_value(), safe="")
        return parts._replace(netloc=f"{credentials.partition(':')[0]}:{password}@{host}")

    @field_validator("management_url")
    @classmethod
    def _management_address(cls, url: SecretStr | None) -> SecretStr | None:
        if (
            url is None or not url.get_secret_value()
        ):  # Compose sets a variable that is left out to nothing
            return None
        parts = urlsplit(url.get_secret_value())
        if (
            parts.scheme not in {"http", "https"} or not parts.hostname or parts.port == 0
        ):  # as above
            raise ValueError("no address")
        return url


@contextmanager
def _readable() -> Iterator[None]:
    """What cannot be read, or is nothing that OpenSSL knows, is a wrong value."""
    try:
        yield
    except OSError as error:
        raise ValueError("unreadable") from error


ADDRESSES = {
    "url": "write amqp://user:password@host:port/vhost, or amqps://…; the broker's certificate is always verified, and BUS_CA_FILE names "
    "an authority of your own",
    "password_file": "name a file that can be read, that not everybody may write, and that has the password, or token, on one line",
    "ca_file": "name a file that can be read, with certificates as PEM",
    "client_key": "BUS_CLIENT_CERTIFICATE names a certificate as PEM, and BUS_CLIENT_KEY its private key, without a passphrase, where that "
    "is not in the same file; both can be read",
    "management_url": "write http://host:port, or https://…, with user:password@ before the host where they are others than in BUS_URL",
}
"""What to write where a value is wrong. Never what was written: it may hold a password."""


def load_settings(**overrides: object) -> Settings:
    """The settings of this process; `ConfigurationError` names the variables at fault, never their values."""
    try:
        return Settings(**overrides)  # type: ignore[arg-type]  # pydantic validates what the environment or a caller gave
    except ValidationError as error:
        found = (
            ("_".join(map(str, each["loc"])), each["type"], each["msg"]) for each in error.errors()
        )
        faults = "; ".join(
            f"BUS_{name.upper()}: {ADDRESSES.get(name, rule) if kind == 'value_error' else rule}"
            for name, kind, rule in found
        )
        raise ConfigurationError(f"settings: {faults}") from None
