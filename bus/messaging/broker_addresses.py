"""Broker addresses: URLs with one or several hosts, as in `BUS_URL` and `BUS_MANAGEMENT_URL`.

A password that is not percent-encoded can end the host's part of a URL early. The rest of the
password is then read as a host, a port, a virtual host or a parameter. Therefore this module reads
URLs more strictly than RFC 3986, and all texts about a broker take its address from here.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from ipaddress import ip_address
from urllib.parse import parse_qsl, quote, unquote

from bus.errors import ConfigurationError

__all__ = [
    "AMQP",
    "HTTP",
    "AddressForm",
    "BrokerUrl",
    "UrlError",
    "describe_brokers",
    "parse_urls",
    "require_urls",
]

MAX_PORT = 65535
ENCODE = (
    "has a character that must be percent-encoded in the user, the password or the virtual host. "
    "Write @ as %40, / as %2F, ? as %3F, # as %23 and % as %25"
)
CONTROLS = (
    "has a line break or another character that cannot be printed. Remove it, or write it "
    "percent-encoded, such as %0A"
)
ENCODED = ("credentials", "path", "query")
"""Parts of a URL that can be percent-encoded."""
SCHEME = re.compile(r"[a-z][a-z0-9+.-]*")
STRAY_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
PARTS = re.compile(
    r"(?P<scheme>[a-z]+)://"
    r"(?:(?P<credentials>[^@/?#]*)@)?"
    r"(?P<hosts>[^@/?#]*)"
    r"(?P<path>/[^@?#]*)?"
    r"(?:\?(?P<query>[^@#]*))?",
    re.IGNORECASE,
)
HOST = re.compile(
    r"(?P<host>[\w.-]+|\[[0-9a-f:.]+(?:%[\w.-]+)?\])(?::(?P<port>\d{1,5}))?", re.IGNORECASE
)


class UrlError(ValueError):
    """The error for a URL that cannot be used. Its text shows no part of the URL but its scheme."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AddressForm:
    """The kind of URL that a setting accepts."""

    setting: str
    """The environment variable of the setting."""
    schemes: tuple[str, str]
    """The scheme without TLS, and the scheme with TLS."""
    ports: tuple[int, int]
    """The default port of each scheme."""
    advice: str
    """Text that shows how to write a URL of this kind."""
    list_advice: str
    """Text that shows how to write several hosts."""


AMQP = AddressForm(
    setting="BUS_URL",
    schemes=("amqp", "amqps"),
    ports=(5672, 5671),
    advice="Write amqp://user:password@host:port/vhost, or amqps://…",
    list_advice=(
        "Write several hosts as amqp://user:password@host1:port,host2:port/vhost, or write ; "
        "between whole URLs"
    ),
)
HTTP = AddressForm(
    setting="BUS_MANAGEMENT_URL",
    schemes=("http", "https"),
    ports=(15672, 443),
    advice=(
        "Write http://host:port, or https://…. Write user:password@ before the host if they differ "
        "from those in BUS_URL"
    ),
    list_advice=(
        "Write several hosts as http://host1:port,host2:port, or write ; between whole URLs"
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerUrl:
    """The URL of one host."""

    scheme: str
    credentials: str | None = field(default=None, repr=False)
    """`user:password`, percent-encoded. None if the URL has no `@`."""
    host: str
    """The host. An IPv6 address is in brackets."""
    port: int | None = None
    path: str = field(default="", repr=False)
    """The path, percent-encoded, with its first `/`."""
    query: str = field(default="", repr=False)

    @property
    def text(self) -> str:
        """The URL, with its user and password."""
        credentials = "" if self.credentials is None else f"{self.credentials}@"
        port = "" if self.port is None else f":{self.port}"
        query = f"?{self.query}" if self.query else ""
        return f"{self.scheme}://{credentials}{self.host}{port}{self.path}{query}"

    @property
    def place(self) -> str:
        """`host:port`, for texts. The port is the scheme's default port if the URL has none."""
        form = AMQP if self.scheme in AMQP.schemes else HTTP
        return f"{self.host}:{self.port or form.ports[form.schemes.index(self.scheme)]}"

    @property
    def user(self) -> str | None:
        """The user, or None."""
        return unquote((self.credentials or "").partition(":")[0]) or None

    @property
    def password(self) -> str | None:
        """The password, or None."""
        return unquote((self.credentials or "").partition(":")[2]) or None

    @property
    def virtual_host(self) -> str:
        """The virtual host. Without a path, it is `/`."""
        return unquote(self.path[1:]) or "/"

    @property
    def parameters(self) -> list[tuple[str, str]]:
        """The names and values in the query. A parameter without a value has an empty value."""
        return parse_qsl(self.query, keep_blank_values=True)

    def with_password(self, password: str) -> "BrokerUrl":
        """Return the URL with another password."""
        user = (self.credentials or "").partition(":")[0]
        return replace(self, credentials=f"{user}:{quote(password, safe='')}")

    def with_virtual_host(self, name: str) -> "BrokerUrl":
        """Return the URL with another virtual host."""
        return replace(self, path=f"/{quote(name, safe='')}")


def parse_urls(text: str, form: AddressForm = AMQP) -> tuple[BrokerUrl, ...]:
    """Return one URL for each host in a setting, in the order of the text.

    The text has one or several URLs. `;` or `,` separates two URLs, but only directly before the
    scheme of the next URL, because both characters are allowed in a password. A URL can name
    several hosts: `amqp://user:password@host1:5672,host2:5672/vhost`. All of them have the same
    user, password, path and query.

    Args:
        text: The value of the setting.
        form: The kind of URL.

    Raises:
        UrlError: A URL is invalid, or could be read in two ways. Or two URLs differ in the scheme,
            in the virtual host, or in the presence of a user or a password.
    """
    schemes = "|".join(form.schemes)
    parts = re.split(rf"[;,]\s*(?=(?:{schemes})://)", text, flags=re.IGNORECASE)
    if len(parts) > 1:
        parts = [part.strip() for part in parts]
    found: list[BrokerUrl] = []
    for part in parts:
        matched = _match(part, form, _subject(len(found), is_list=len(parts) > 1))
        hosts = matched["hosts"].split(",")
        for host in hosts:
            subject = _subject(len(found), is_list=len(parts) > 1 or len(hosts) > 1)
            if len(hosts) > 1 and not host.strip():
                raise UrlError(f"{subject} is empty. Remove the , that has no host")
            found.append(_url_of(matched, host.strip(), form, subject))
    for number, url in enumerate(found):
        _check_similar(found[0], url, form, _subject(number, is_list=True))
    return tuple(found)


def require_urls(text: str, form: AddressForm = AMQP) -> tuple[BrokerUrl, ...]:
    """Return one URL for each host, as `parse_urls` does.

    Raises:
        ConfigurationError: The text is invalid. The error names the setting.
    """
    try:
        return parse_urls(text, form)
    except UrlError as error:
        raise ConfigurationError(f"{form.setting}: {error}.") from None


def describe_brokers(urls: Sequence[BrokerUrl]) -> str:
    """Return the hosts and ports, and the virtual host if it is not `/`, for texts."""
    name = urls[0].virtual_host
    return ", ".join(url.place for url in urls) + (f" (virtual host {name})" if name != "/" else "")


def _subject(number: int, *, is_list: bool) -> str:
    """Return the subject of an error text. `number` counts the addresses from 0."""
    if not is_list:
        return "the address"
    position = number + 1
    ending = {1: "st", 2: "nd", 3: "rd"}.get(position % 10, "th")
    return f"the {position}{'th' if position in range(11, 14) else ending} address"


def _match(text: str, form: AddressForm, subject: str) -> re.Match[str]:
    """Return the parts of one URL.

    Raises:
        UrlError: The text is not a URL of this kind, or it could be read in two ways.
    """
    _check_separators(text, form, subject)
    scheme = text.partition("://")[0].lower() if "://" in text else ""
    if scheme not in form.schemes:
        if not SCHEME.fullmatch(scheme):
            raise UrlError(f"{subject} is not valid. {form.advice}")
        raise UrlError(
            f"{subject} must begin with {form.schemes[0]}:// or {form.schemes[1]}://, but begins "
            f"with {scheme}://. {form.advice}"
        )
    parts = PARTS.fullmatch(text)
    # A text that does not match has a `#`, or an `@` that does not end the user and password. Each
    # can be a part of a password.
    if CONTROL.search(text):
        raise UrlError(f"{subject} {CONTROLS}")
    if parts is None or any(STRAY_PERCENT.search(parts[name] or "") for name in ENCODED):
        raise UrlError(f"{subject} {ENCODE}")
    if ";" in parts["hosts"]:
        raise UrlError(f"{subject} has a ; that no URL follows. {form.list_advice}")
    if re.search("[;,]", parts["path"] or ""):
        raise UrlError(
            f"{subject} has a , or ; after the / that follows the host. {form.list_advice}. In a "
            "name, write , as %2C and ; as %3B"
        )
    if form is HTTP and parts["query"] is not None:
        raise UrlError(f"{subject} must have no parameters. Remove the ? and the text after it")
    return parts


def _check_separators(text: str, form: AddressForm, subject: str) -> None:
    """Check one URL for separators that a list has at a wrong place.

    Raises:
        UrlError: The text has a separator without a URL, or a URL without a separator.
    """
    if not text.strip(";, "):
        raise UrlError(f"{subject} is empty. {form.advice}")
    if text.rstrip().endswith((";", ",")):
        raise UrlError(f"{subject} has a ; or , at its end. Remove it. {form.list_advice}")
    if re.search(rf"[\s|]({'|'.join(form.schemes)})://", text, re.IGNORECASE):
        raise UrlError(f"{subject} has no ; before the next URL. {form.list_advice}")


def _url_of(parts: re.Match[str], text: str, form: AddressForm, subject: str) -> BrokerUrl:
    """Return the URL of one host. `text` is the host with its port.

    Raises:
        UrlError: The host or the port is invalid.
    """
    host = HOST.fullmatch(text)
    port = int(host["port"]) if host and host["port"] else None
    if (
        host is None
        or not _has_an_address(host["host"])
        or not (port is None or 1 <= port <= MAX_PORT)
    ):
        raise UrlError(f"{subject} is not valid. {form.advice}")
    credentials = parts["credentials"]
    return BrokerUrl(
        scheme=parts["scheme"].lower(),
        credentials=None if credentials is None else _encode(credentials, ":"),
        host=host["host"],
        port=port,
        path=_encode(parts["path"] or "", ":/"),
        query=_encode(parts["query"] or "", ":/?"),
    )


def _has_an_address(host: str) -> bool:
    """Return True if the host is an IP address, or a name that can be looked up."""
    try:
        if host.startswith("["):
            ip_address(host[1:-1])
        # An empty label, such as in `a..b`, or a long one raises UnicodeError.
        return bool(host.encode("idna"))
    except ValueError:
        return False


def _encode(text: str, separators: str) -> str:
    """Percent-encode what RFC 3986 does not allow, such as spaces and letters with accents."""
    return quote(text, safe=f"%!$&'()*+,;=-._~{separators}")


def _check_similar(first: BrokerUrl, url: BrokerUrl, form: AddressForm, subject: str) -> None:
    """Check that one list can have both a URL and the first URL.

    Raises:
        UrlError: The two URLs differ in a part that must be equal.
    """
    if url.scheme != first.scheme:
        # If a host with TLS fails, no password must be sent to the next host as plain text.
        raise UrlError(
            f"{subject} must begin with {first.scheme}://, as the 1st address does. Write the same "
            "scheme in each address"
        )
    if _has_credentials(url) != _has_credentials(first):
        raise UrlError(
            f"{subject} must have a user and a password if the 1st address has them. Write them "
            "before each host, or before none"
        )
    if form is AMQP and url.virtual_host != first.virtual_host:
        raise UrlError(
            f"{subject} must have the virtual host of the 1st address, because all hosts must have "
            "the same queues. Write the same virtual host in each address"
        )


def _has_credentials(url: BrokerUrl) -> tuple[bool, bool]:
    return url.user is not None, url.password is not None
