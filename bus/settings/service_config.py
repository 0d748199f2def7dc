"""The configuration of one service that this process calls."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from numbers import Integral
from typing import Any, Final

from bus.contracts.limits import is_number
from bus.contracts.names import check_part
from bus.errors import ConfigurationError, ContractError
from bus.messaging.broker_addresses import AddressForm, UrlError, parse_urls

__all__ = ["KEYS", "ServiceConfig", "check_value"]

MAX_TIMEOUT_SECONDS = 24 * 3600
"""Maximum timeout of a request, the same as for `BUS_REQUEST_TIMEOUT`."""
MAX_RETRIES = 1000
"""Maximum number of retries. With waits of up to 1 s it lasts for about 8 minutes."""
BASE_URL = AddressForm(
    setting="base_url",
    schemes=("http", "https"),
    ports=(80, 443),
    advice="Write http://host:port/path, or https://…",
    list_advice="Write one address",
)
ONE_ADDRESS = (
    "must be one address without a user, a password, a query and a fragment. "
    f"{BASE_URL.advice}, and keep credentials in a secret of your application"
)


@dataclass(frozen=True, slots=True)
class ServiceConfig:
    """Configuration of one service that this process calls.

    A value of None is not set. Values of the environment and of the services file complete it.

    >>> Settings(services=[ServiceConfig("transcription", timeout=10, retries=3)])

    Raises:
        ConfigurationError: The name or a value is invalid. The error names the field.
    """

    name: str
    """Name of the service, the first part of the names of its contracts."""
    timeout: float | None = field(default=None, kw_only=True)
    """Seconds that a request to the service waits for its reply if the caller gives no `timeout`.

    The default is the setting `request_timeout`. The time of a publish or submit is the setting
    `publish_timeout`, because the broker confirms these messages, and not the service.
    """
    retries: int | None = field(default=None, kw_only=True)
    """Maximum number of times that a request or job is sent again after a lost connection.

    With 0 the message is sent once. By default, only the deadline limits the number.
    """
    base_url: str | None = field(default=None, kw_only=True)
    """Address of the service's HTTP interface, for the application.

    The bus itself sends nothing to this address.
    """

    def __post_init__(self) -> None:
        """Check the name and every value."""
        try:
            check_part(self.name, "service")
        except ContractError as error:
            raise ConfigurationError(f"ServiceConfig: {error}.") from None
        except TypeError:
            raise ConfigurationError(
                f"ServiceConfig: the name must be text, not a value of type "
                f"{type(self.name).__name__}. Write ServiceConfig('billing')."
            ) from None
        for key in KEYS:
            value = getattr(self, key)
            if value is not None:
                try:
                    checked = check_value(key, value)
                except ValueError as error:
                    raise ConfigurationError(
                        f"ServiceConfig({self.name!r}).{key}: {error}."
                    ) from None
                object.__setattr__(self, key, checked)


def check_value(key: str, value: object) -> Any:
    """Return the checked value of a key.

    Args:
        key: One of `KEYS`.
        value: A value from code or from TOML.

    Raises:
        ValueError: The value is invalid. The text has no full stop at its end, and no value.
    """
    return CHECKS[key](value)


def _check_timeout(value: Any) -> float:
    # A comparison with NaN is false, so NaN is out of range.
    if is_number(value) and 0 < value <= MAX_TIMEOUT_SECONDS:
        return float(value)
    raise ValueError(
        f"must be a number of seconds above 0 and up to {MAX_TIMEOUT_SECONDS}. "
        "Write a number such as 2.5"
    )


def _check_retries(value: Any) -> int:
    if is_number(value, Integral) and 0 <= value <= MAX_RETRIES:
        return int(value)
    raise ValueError(f"must be a whole number from 0 to {MAX_RETRIES}. Write a number such as 3")


def _check_base_url(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"must be text. {BASE_URL.advice}")  # noqa: TRY004 - pydantic's rule
    try:
        urls = parse_urls(value, BASE_URL)
    except UrlError as error:
        raise ValueError(str(error)) from None
    if len(urls) != 1 or urls[0].credentials is not None or urls[0].query:
        raise ValueError(ONE_ADDRESS)
    return value


CHECKS: Final[Mapping[str, Callable[[Any], Any]]] = {
    "timeout": _check_timeout,
    "retries": _check_retries,
    "base_url": _check_base_url,
}
KEYS: Final = tuple(CHECKS)
"""The values of a service, by which the environment and the file set them."""
