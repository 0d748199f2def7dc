"""The configuration of one service that this process calls."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from bus.contracts.names import check_part
from bus.errors import ConfigurationError, ContractError
from bus.messaging.broker_addresses import AddressForm, parse_urls
from bus.settings.service_defaults import CallValues, check_values
from bus.settings.value_rules import POLICY_RULES, TIMEOUT_RULE, ValueRule

__all__ = ["KEYS", "RULES", "ServiceConfig"]

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


@dataclass(frozen=True, slots=True, repr=False)
class ServiceConfig(CallValues):
    """Configuration of one service that this process calls.

    A value of None is not set. Values of the environment, of the services file and of
    `service_defaults` complete it.

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
        check_values(self, RULES, f"ServiceConfig({self.name!r})")


def _read_base_url(value: Any) -> str | None:
    if not isinstance(value, str):
        return None
    urls = parse_urls(value, BASE_URL)
    if len(urls) != 1 or urls[0].credentials is not None or urls[0].query:
        raise ValueError(ONE_ADDRESS)
    return value


RULES: Final[Mapping[str, ValueRule]] = {
    "timeout": TIMEOUT_RULE,
    "retries": POLICY_RULES["retries"],
    "base_url": ValueRule(allowed="text", advice=BASE_URL.advice, read=_read_base_url, parse=str),
    **POLICY_RULES,
}
"""The rules of all values of a service, by key."""
KEYS: Final = tuple(RULES)
"""The values of a service, by which the environment and the file set them."""
