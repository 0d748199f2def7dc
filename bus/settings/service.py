"""The settings of a service."""

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, Literal, Self
from urllib.parse import urlencode

from pydantic import (
    ByteSize,
    Field,
    SecretStr,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError
from pydantic_settings import SettingsConfigDict

from bus.contracts.limits import MAX_SECONDS
from bus.errors import ConfigurationError
from bus.messaging.body_limit import (
    DEFAULT_MAX_BODY_BYTES,
    HIGHEST_MAX_BODY_BYTES,
    LOWEST_MAX_BODY_BYTES,
)
from bus.messaging.broker_addresses import HTTP, BrokerUrl, parse_urls
from bus.messaging.resilience.chaos_grammar import ChaosSyntaxError, parse_chaos
from bus.messaging.resilience.chaos_plan import ChaosPlan
from bus.messaging.variable_values import strip_value
from bus.security.secret_files import check_trusted_file, read_password
from bus.settings.broker_urls import (
    MAX_HEARTBEAT,
    MIN_HEARTBEAT,
    check_broker_urls,
    check_urls,
    heartbeat_in,
)
from bus.settings.store_settings import StoreSettings

__all__ = ["Settings"]

DAY_SECONDS = 24 * 3600


class Settings(StoreSettings):
    """Settings of a service, read from the environment.

    The environment variable of a field is the field's name in capitals with the prefix `BUS_`:
    `heartbeat` is read from `BUS_HEARTBEAT`. A value that is passed to the constructor replaces the
    variable. Times are in seconds.

    A wrong value raises pydantic's `ValidationError`. A `Bus` that is created without `settings`
    reads the environment itself, and raises `ConfigurationError` for a wrong value.
    """

    model_config = SettingsConfigDict(env_prefix="BUS_")
    _verbatim: ClassVar[frozenset[str]] = frozenset({"key"})

    url: SecretStr = Field(default=SecretStr("amqp://guest:guest@localhost:5672/"))
    """URL of the broker, `amqp://` or `amqps://user:password@host:port/vhost`.

    For a cluster, list several URLs or several hosts. Each attempt to connect takes the next host.
    """
    password_file: Path | None = None
    """File with a password or an OAuth 2 token. Its content replaces the password in `url`.

    The bus reads the file at each connect, and watches it while connections are open.
    """
    management_url: SecretStr | None = None
    """URL of the broker's management API, `http://host:port` or `https://…`.

    It can list several URLs or hosts, as `url` can. The first one that answers is used.
    Add a user and password only if they differ from those in `url`.
    """
    ca_file: Path | None = None
    """PEM file with the certificate authorities to trust for the broker's certificate.

    It is used with `amqps` and `https`. The default is the operating system's authorities.
    """
    client_certificate: Path | None = None
    """PEM file with this service's certificate and the intermediate certificates.

    Set it if the broker requests a client certificate.
    """
    client_key: Path | None = Field(default=None, validate_default=True)
    """PEM file with the private key of `client_certificate`, without a passphrase.

    Leave it out if the certificate's file contains the key too.
    """
    topology: Literal["declare", "verify"] = "declare"
    """Mode of the topology. `declare` creates exchanges and queues. `verify` only checks them.

    With `verify` a service declares only its own reply queue.
    """
    heartbeat: int = Field(default=10, ge=MIN_HEARTBEAT, le=MAX_HEARTBEAT)
    """Seconds between heartbeats, 1 to 300. RabbitMQ recommends 5 to 20.

    It can also be a parameter of `url`: `?heartbeat=5`. If both are set, they must be equal.
    A half-open connection is detected within twice this time.
    """
    connect_timeout: float = Field(default=4, gt=0, le=3600)
    """Maximum seconds of one attempt to connect.

    When the bus starts, all attempts together last at most this time for each host in `url`.
    """
    start_timeout: float = Field(default=30, gt=0, le=DAY_SECONDS)
    """Seconds to wait until every consumer is ready. After this time the start fails."""
    publish_timeout: float = Field(default=10, gt=0, le=DAY_SECONDS)
    """Maximum seconds to wait for a confirm if the caller gives no `timeout`."""
    message_ttl: float = Field(default=7 * DAY_SECONDS, gt=0, le=366 * DAY_SECONDS)
    """Seconds after which an event or job expires (`expires`).

    The default is 7 days, which covers a weekend between two public holidays.
    """
    stop_grace: float = Field(default=30, ge=0, le=DAY_SECONDS)
    """Maximum seconds that a stopping service waits until its running handlers end."""
    consumer_timeout: float = Field(default=1800, gt=0, le=MAX_SECONDS)
    """Seconds after which the broker takes an unacked message back from its consumer.

    Set it to the broker's `consumer_timeout`, which RabbitMQ states in milliseconds. If the broker
    has none, set a large number, up to 100 years.
    """
    delivery_limit: int = Field(default=10, ge=3, le=100)
    """Number of lost deliveries after which a message is dead-lettered, 3 to 100.

    A delivery is lost if the process ends, or loses its connection, before it settles the message.
    """
    clock_leeway: float = Field(default=30, ge=0, le=300)
    """Seconds by which the clocks of two machines may differ, 0 to 300.

    A larger leeway would accept a token long after its end.
    """
    service_version: str | None = None
    """Version of your service, which its workers record in dead letters."""
    request_queue: Literal["classic", "quorum"] = "classic"
    """Type of the request queues: `classic`, or `quorum` if the broker is a cluster.

    Callers cannot reach a classic queue while its node is down.
    """
    fastlane: bool = True
    """True if the bus handles the most frequent AMQP frames itself, on aio-pika's connection.

    With False, all frames pass through aio-pika, which is many times slower. Set False only as a
    fallback.
    """
    publish_window: int = Field(default=1000, ge=1, le=1_000_000)
    """Maximum number of publishes that wait for a confirm. Further publishes are delayed."""
    max_message: int = DEFAULT_MAX_BODY_BYTES
    """Maximum bytes of a message's body as sent, 4096 to 536870912. `32MiB` is also accepted.

    The bus refuses to send a larger message, and does not read a larger message that arrives.
    """
    discovery: Literal["on", "off"] = "on"
    """Mode of discovery.

    With `on`, this process answers questions about its state, its contracts, its measurements and
    its last messages, if the broker and the grants allow that. With `off`, it answers none, and
    measures nothing unless `health_port` is set.
    """
    load_shedding: Literal["on", "off"] = "on"
    """Mode of load shedding.

    With `on`, an overloaded handler refuses requests that cannot be answered in time, and those
    with the lowest criticality. With `off`, each request waits until its deadline.
    """
    remembered_messages: int = Field(default=10_000, ge=0, le=100_000)
    """Number of messages whose ids, types and times this process remembers, 0 to 100000.

    Each takes about half a kilobyte of memory. With 0, `bus trace` finds nothing here.
    """
    health_port: int | None = Field(default=None, ge=1, le=65535)
    """Port on which `bus run` answers `/livez` and `/readyz`. None opens no port."""
    health_host: str = Field(default="127.0.0.1", min_length=1)
    """Address on which `health_port` is opened.

    Use 0.0.0.0 in a container if the orchestrator probes from outside.
    """
    auth: Literal["on", "dev", "off"] = "on"
    """Mode of authentication.

    With `on`, every message is signed and checked with keys. With `dev`, one secret that all
    services share replaces the keys. With `off`, no message is signed or checked.
    """
    key: SecretStr | None = None
    """Private key of this service. The value is a path or the key itself.

    The path of a directory means the file `<service>.key` in it, so that one process can run
    several services.

    With `auth="dev"` the value is the secret that all services share.
    """
    jwks: str | None = Field(default=None, min_length=1)
    """Path or https URL of the JSON Web Key Set with the public keys of services and operators."""
    grants: Path | None = None
    """File `grants.toml`, which lists what each service may call, publish and consume."""
    encryption_keys: SecretStr | None = None
    """JSON Web Key Set that encrypts payloads. The value is a path or the set itself.

    The bus encrypts with the first key of the set, and decrypts with any key of the set.
    """
    encrypt: Literal["contracts", "everything"] = "contracts"
    """Payloads to encrypt.

    With `contracts`, only contracts with `encrypted=True` are encrypted. With `everything`, all
    payloads are encrypted.
    """
    operator_key: SecretStr | None = None
    """Private key of an operator, who extends expired dead letters or reveals payloads.

    Do not set it in the environment of a service.
    """
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Lowest level that is logged. `debug` logs a line for each message."""
    log_messages: Literal["debug", "info"] = "debug"
    """Level of the line that is logged for each handled message."""
    log_format: Literal["auto", "json", "console", "none"] = "auto"
    """Format of the log. `auto` writes readable text to a terminal, and JSON elsewhere.

    With `none`, the bus leaves the logging of the application unchanged.
    """

    traces: Literal["on", "off"] = "on"
    """Mode of the spans of OpenTelemetry.

    With `on`, the bus records a span for each message after the application has set a tracer
    provider. With `off` it records none, and still passes the trace context on.
    """

    debug: bool = False
    """True if log lines about failures show texts and tracebacks of exceptions.

    Use it only for development, because these texts can contain confidential data. It is not
    allowed with `auth="on"`. The texts are only in the log of this process, never in a reply, a
    dead letter or a metric.
    """

    chaos: str | None = None
    """Faults that this process injects into the messages that it handles, for tests.

    An example is `billing.quote: latency=200ms@10%, error=unavailable@5%; for=10m`. The faults
    begin when the bus serves its router, and end by themselves. Without `for`, they end after 10
    minutes. It is not allowed with `auth="on"`. There, an operator starts an experiment by `bus
    chaos start`.
    """

    @field_validator("chaos")
    @classmethod
    def _check_chaos(cls, chaos: str | None, info: ValidationInfo) -> str | None:
        if chaos is None:
            return None
        if info.data.get("auth") == "on":
            raise PydanticCustomError(
                "chaos_with_auth",
                "must not be set with BUS_AUTH=on. Remove BUS_CHAOS, and let an operator with the "
                "right control.chaos start the experiment by `bus chaos start`",
            )
        try:
            parse_chaos(chaos)
        except ChaosSyntaxError as error:
            raise PydanticCustomError("chaos_plan", "{problem}", {"problem": str(error)}) from None
        return chaos

    @property
    def chaos_plan(self) -> ChaosPlan | None:
        """The plan in `chaos`, or None."""
        return None if self.chaos is None else parse_chaos(self.chaos)

    @field_validator("key")
    @classmethod
    def _check_key(cls, key: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        """Remove the space around a path or a key, and refuse a shared secret with such space.

        An earlier version takes the space for a part of the secret. If this version removed it,
        services of both versions would have different secrets.
        """
        if key is None:
            return None
        text = strip_value(key.get_secret_value())
        if text != key.get_secret_value() and info.data.get("auth") == "dev":
            raise PydanticCustomError(
                "padded_secret",
                "the secret must not begin or end with white space. Write it without spaces and "
                "line ends around it, for all services at the same time",
            )
        return SecretStr(text)

    @field_validator("max_message", mode="before")
    @classmethod
    def _read_size(cls, value: object) -> int:
        size = None if isinstance(value, bool) else _parse_bytes(value)
        if size is None or not LOWEST_MAX_BODY_BYTES <= size <= HIGHEST_MAX_BODY_BYTES:
            raise ValueError("the number of bytes is not valid. Write a number, or 32MiB.")
        return size

    @field_validator("debug")
    @classmethod
    def _check_debug(cls, debug: bool, info: ValidationInfo) -> bool:  # noqa: FBT001 - pydantic's
        if debug and info.data.get("auth") == "on":
            raise PydanticCustomError(
                "debug_with_auth",
                "must not be set with BUS_AUTH=on, because the texts of exceptions can contain "
                "confidential data. Remove BUS_DEBUG, or set BUS_AUTH=dev or BUS_AUTH=off on a "
                "development machine",
            )
        return debug

    @field_validator("url")
    @classmethod
    def _check_url(cls, url: SecretStr) -> SecretStr:
        check_broker_urls(url.get_secret_value())
        return url

    @field_validator("ca_file")
    @classmethod
    def _check_ca_file(cls, path: Path | None) -> Path | None:
        if path is not None:
            with _report_unreadable():
                check_trusted_file(path, "the file")
                ssl.create_default_context(cafile=path)
        return path

    @field_validator("password_file")
    @classmethod
    def _check_password_file(cls, path: Path | None) -> Path | None:
        if path is not None:
            try:
                read_password(path)
            except ConfigurationError:
                raise ValueError("the password cannot be read. Check the file.") from None
        return path

    @field_validator("client_key")
    @classmethod
    def _check_client_key(cls, key: Path | None, info: ValidationInfo) -> Path | None:
        certificate = info.data.get("client_certificate")
        if certificate is not None:
            with _report_unreadable():
                # OpenSSL would wait for the writer of a named pipe.
                for path in filter(None, (certificate, key)):
                    check_trusted_file(path, "the file")
                # Without `password`, OpenSSL would ask for the key's passphrase on the terminal.
                ssl.create_default_context().load_cert_chain(certificate, key, password="")
        elif key is not None:
            raise ValueError("client_key is set without client_certificate. Set both.")
        return key

    @model_validator(mode="after")
    def _take_heartbeat_of_url(self) -> Self:
        heartbeat = heartbeat_in(self.url.get_secret_value())
        if heartbeat in {None, self.heartbeat}:
            return self
        if "heartbeat" in self.model_fields_set:
            raise PydanticCustomError(
                "url_heartbeat",
                "differs from the heartbeat in BUS_URL. Remove one of the two",
            )
        # Pydantic lets no attribute of frozen settings be assigned, also not here.
        object.__setattr__(self, "heartbeat", heartbeat)
        return self

    @property
    def addresses(self) -> tuple[str, ...]:
        """URL of each host of the broker with the certificate files, as aiormq expects them.

        If a URL has no password, the certificate authenticates the service (SASL EXTERNAL). If
        `password_file` is set, each password is the current content of that file.

        Raises:
            ConfigurationError: The password cannot be read from `password_file`.
        """
        urls = parse_urls(self.url.get_secret_value())
        if self.password_file is not None:
            password = read_password(self.password_file).get_secret_value()
            urls = tuple(url.with_password(password) for url in urls)
        return tuple(self._with_files(url).text for url in urls)

    @property
    def address(self) -> str:
        """`addresses` as one text, separated by `;`. With one host it is the URL of this host.

        Raises:
            ConfigurationError: The password cannot be read from `password_file`.
        """
        return ";".join(self.addresses)

    def _with_files(self, url: BrokerUrl) -> BrokerUrl:
        """Add the certificate files to the URL's parameters."""
        files = {
            "cafile": self.ca_file,
            "certfile": self.client_certificate,
            "keyfile": self.client_key,
        }
        query = {name: str(path) for name, path in files.items() if path is not None}
        if url.scheme != "amqps" or not query:
            return url
        if self.client_certificate is not None and url.password is None:
            query["auth"] = "external"
        return replace(url, query="&".join(filter(None, (url.query, urlencode(query)))))

    @field_validator("management_url")
    @classmethod
    def _check_management_url(cls, url: SecretStr | None) -> SecretStr | None:
        # A program may pass on the value of a variable that is empty.
        if url is None or not url.get_secret_value():
            return None
        check_urls(url.get_secret_value(), HTTP)
        return url


@contextmanager
def _report_unreadable() -> Iterator[None]:
    """Convert the error of an unusable file to `ValueError`, which pydantic reports."""
    try:
        yield
    except (OSError, ConfigurationError) as error:
        raise ValueError("the file cannot be read as PEM. Check the file.") from error


def _parse_bytes(value: object) -> int | None:
    """Return the bytes of a number or of a text such as `32MiB`. Return None for other values."""
    try:
        return TypeAdapter(ByteSize).validate_python(value)
    except ValidationError:
        return None
