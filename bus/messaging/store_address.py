"""The address of a durable store, as in `BUS_STORE`. No text shows its user or its password."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Literal

from bus.messaging.broker_addresses import AddressForm, BrokerUrl, UrlError, parse_urls

__all__ = ["MEMORY", "PARAMETERS", "StoreAddress", "parse_store"]

MEMORY: Final = "memory"
"""Value of `BUS_STORE` for a service without a durable store."""
SQLITE: Final = "sqlite"
PARAMETERS: Final = ("sslmode", "sslrootcert", "sslcert", "sslkey", "target_session_attrs")
"""Parameters that a URL of PostgreSQL can have. They are those of libpq."""
ADVICE: Final = (
    "Write memory, sqlite:////path/of/file.db or postgresql://user:password@host:port/database"
)
POSTGRESQL: Final = AddressForm(
    setting="BUS_STORE",
    schemes=("postgresql", "postgres"),
    ports=(5432, 5432),
    advice="Write postgresql://user:password@host:port/database",
    list_advice="Write several hosts as postgresql://user:password@host1:port,host2:port/database",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreAddress:
    """The address of a database."""

    kind: Literal["sqlite", "postgresql"]
    path: str | None = None
    """Path of the file of SQLite. It can be relative to the working directory."""
    url: str | None = field(default=None, repr=False)
    """URL of PostgreSQL as libpq reads it, with its user and password."""
    place: str = ""
    """The address without user, password and parameters, for texts."""

    def with_password(self, password: str) -> "StoreAddress":
        """Return the address of PostgreSQL with another password."""
        if self.url is None:
            return self
        hosts = [url.with_password(password) for url in parse_urls(self.url, POSTGRESQL)]
        return replace(self, url=_join(hosts))


def parse_store(text: str) -> StoreAddress | None:
    """Return the address in `BUS_STORE`, or None for a service without a durable store.

    Raises:
        UrlError: The text is not an address. The error shows no part of it but the scheme.
    """
    if text == MEMORY:
        return None
    if not text.isprintable():
        raise UrlError(f"the address has a character that cannot be printed. {ADVICE}")
    scheme, separator, rest = text.partition("://")
    scheme, _, driver = scheme.lower().partition("+")
    if not separator or scheme not in {SQLITE, *POSTGRESQL.schemes}:
        shown = f" begins with {scheme}://, which" if separator and scheme.isalnum() else ""
        raise UrlError(f"the address{shown} is not the address of a store. {ADVICE}")
    if driver:
        raise UrlError(
            "the address must not name a driver, because the bus chooses it. "
            f"Write {scheme}:// without the + and the driver"
        )
    return _sqlite(rest) if scheme == SQLITE else _postgresql(text)


def _sqlite(rest: str) -> StoreAddress:
    if not rest.startswith("/"):
        raise UrlError(
            "the address of SQLite must begin with three slashes before a relative path, and with "
            "four before an absolute one. Write sqlite:////path/of/file.db"
        )
    path = rest[1:]
    if path in {"", ":memory:"} or path.endswith("/"):
        raise UrlError(
            "the address of SQLite has no file. Write sqlite:////path/of/file.db, or write memory "
            "for a service without a durable store"
        )
    if "?" in path or "#" in path:
        raise UrlError("the address of SQLite must have no parameters. Remove the ? or #")
    return StoreAddress(kind="sqlite", path=path, place=f"sqlite:///{path}")


def _postgresql(text: str) -> StoreAddress:
    urls = parse_urls(text, POSTGRESQL)
    database = urls[0].path[1:]
    if not database or "/" in database:
        raise UrlError(f"the address has no name of a database. {POSTGRESQL.advice}")
    unknown = {name for url in urls for name, _ in url.parameters} - {*PARAMETERS}
    if unknown:
        # The name is not shown, because it can be a part of a password.
        raise UrlError(
            "the address has a parameter that the bus does not know. Remove it from the URL. "
            f"Allowed are {', '.join(PARAMETERS[:-1])} and {PARAMETERS[-1]}"
        )
    if any(url.path != urls[0].path or url.credentials != urls[0].credentials for url in urls):
        raise UrlError(
            f"all hosts must have the same user, password and database. {POSTGRESQL.list_advice}"
        )
    hosts = ",".join(_host(url.host, url.port) for url in urls)
    place = f"postgresql://{hosts}/{database}"
    return StoreAddress(kind="postgresql", url=_join(urls), place=place)


def _host(host: str, port: int | None) -> str:
    return f"{host}:{port or POSTGRESQL.ports[0]}"


def _join(urls: Sequence[BrokerUrl]) -> str:
    """Return one URL for all hosts, as libpq writes it."""
    first = urls[0]
    hosts = ",".join(_host(url.host, url.port) for url in urls)
    credentials = "" if first.credentials is None else f"{first.credentials}@"
    query = f"?{first.query}" if first.query else ""
    return f"postgresql://{credentials}{hosts}{first.path}{query}"
