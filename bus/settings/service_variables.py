"""The environment variables of single services, such as `BUS_SERVICES__BILLING__TIMEOUT`."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from bus.contracts.names import check_part
from bus.errors import ConfigurationError, ContractError
from bus.messaging.suggestions import did_you_mean
from bus.messaging.variable_values import strip_value
from bus.settings.service_config import KEYS, check_value

__all__ = ["PREFIX", "VARIABLE", "ServiceValues", "read_variables", "variable_of"]

VARIABLE = "BUS_SERVICES"
PREFIX = f"{VARIABLE}__"
EXAMPLE = f"{PREFIX}BILLING__TIMEOUT=10"
MAX_NAME_LENGTH = 100
"""Maximum number of characters of a name that an error shows."""


@dataclass(slots=True)
class ServiceValues:
    """The values that one source sets, and the faults of the source."""

    values: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Checked values by service and key. A service can have no values."""
    origins: dict[tuple[str, str], str] = field(default_factory=dict)
    """Variable or file that has set a value, by service and key."""
    faults: list[str] = field(default_factory=list)


def read_variables(environment: Mapping[str, str]) -> ServiceValues:
    """Return the values in the variables `BUS_SERVICES__<SERVICE>__<KEY>`.

    The name of the service is in capitals, with `_` or `-` for `-`. An empty variable is not set.

    Args:
        environment: The environment variables.

    Raises:
        ConfigurationError: The name of a variable is not in capitals.
    """
    found = ServiceValues()
    if strip_value(environment.get(VARIABLE, "")):
        found.faults.append(
            f"{VARIABLE}: a service has one variable for each value. Write {EXAMPLE}, or set "
            "BUS_SERVICES_FILE"
        )
    names = sorted(name for name in environment if name.upper().startswith(PREFIX))
    _check_capitals(names)
    for name in names:
        text = strip_value(environment[name])
        if text:
            _read_variable(name, text, found)
    return found


def variable_of(service: str, key: str) -> str:
    """Return the name of the variable that sets a value of a service."""
    return f"{PREFIX}{service}__{key}".upper().replace("-", "_")


def _check_capitals(names: Iterable[str]) -> None:
    wrong = [name for name in names if name != name.upper()]
    if wrong:
        raise ConfigurationError(
            "settings: "
            + "; ".join(
                f"{_shown(name)}: the name must be in capitals. Write {_shown(name.upper())}, and "
                f"remove {_shown(name)}"
                for name in wrong
            )
        )


def _read_variable(name: str, text: str, found: ServiceValues) -> None:
    """Add the value of one variable, or its fault."""
    written, delimiter, last = name.removeprefix(PREFIX).rpartition("__")
    service, key = written.lower().replace("_", "-"), last.lower()
    if not (written if delimiter else last).strip("_"):  # such as BUS_SERVICES____TIMEOUT
        found.faults.append(
            f"{_shown(name)}: the name has no service. Write {EXAMPLE}, or remove the variable"
        )
        return
    if not delimiter:
        found.faults.append(
            f"{_shown(name)}: the name must end with a key. Write {_shown(name)}__TIMEOUT, or "
            "remove the variable"
        )
        return
    try:
        check_part(service, "service")
    except ContractError:
        found.faults.append(
            f"{_shown(name)}: {_shown(written)} is not the name of a service. Write {EXAMPLE}, or "
            "remove the variable"
        )
        return
    if key not in KEYS:
        meant = did_you_mean(last, map(str.upper, KEYS)) or f" ({', '.join(KEYS).upper()})."
        found.faults.append(
            f"{_shown(name)}: {_shown(last)} is not a key of a service{meant} Correct or remove "
            "the variable"
        )
        return
    if (service, key) in found.origins:
        found.faults.append(
            f"{_shown(name)}: {found.origins[service, key]} sets the same value. Remove one of "
            "the two"
        )
        return
    found.origins[service, key] = _shown(name)
    try:
        found.values.setdefault(service, {})[key] = check_value(key, PARSERS[key](text))
    except ValueError as error:
        found.faults.append(f"{_shown(name)}: {error}")


def _shown(name: str) -> str:
    return ascii(name[:MAX_NAME_LENGTH])[1:-1] + "…" * (len(name) > MAX_NAME_LENGTH)


def _parse(kind: Callable[[str], Any]) -> Callable[[str], Any]:
    """Return a parser that returns None, which no check accepts, for text of another type."""

    def parse(text: str) -> Any:
        try:
            return kind(text)
        except ValueError:
            return None

    return parse


PARSERS: Mapping[str, Callable[[str], Any]] = {
    "timeout": _parse(float),
    "retries": _parse(int),
    "base_url": str,
}
"""Functions that convert the text of a variable to a value of the key."""
