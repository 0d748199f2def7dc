"""The environment variables of single services, such as `BUS_SERVICES__BILLING__TIMEOUT`.

The variables of the defaults for all services, such as `BUS_SERVICE_DEFAULTS__RETRIES`, are here,
too.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bus.contracts.names import check_part
from bus.errors import ConfigurationError, ContractError
from bus.messaging.variable_values import strip_value
from bus.settings.misspelled_prefixes import DEFAULTS_VARIABLE, VARIABLE, find_misspelled
from bus.settings.service_config import KEYS, RULES
from bus.settings.service_defaults import POLICY_KEYS
from bus.settings.unknown_keys import nearest_keys, other_place

__all__ = [
    "DEFAULTS",
    "DEFAULTS_PREFIX",
    "DEFAULTS_VARIABLE",
    "MAX_NAME_LENGTH",
    "PREFIX",
    "VARIABLE",
    "ServiceValues",
    "read_variables",
    "unknown_default",
    "variable_of",
]

PREFIX, DEFAULTS_PREFIX = f"{VARIABLE}__", f"{DEFAULTS_VARIABLE}__"
EXAMPLE = f"{PREFIX}BILLING__TIMEOUT=10"
JOINED = re.compile(rf"(?P<service>\w+?)_(?P<key>{'|'.join(KEYS).upper()})", re.ASCII)
"""Service and key of a variable that has one underscore before the key."""
DEFAULTS = ""
"""Key of the defaults among the names of services. No service has this name."""
MAX_NAME_LENGTH = 100
"""Maximum number of characters of a name that an error shows."""


@dataclass(slots=True)
class ServiceValues:
    """The values that one source sets, and the faults of the source."""

    values: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Checked values by service and key. A service can have no values.

    The values of `DEFAULTS` are those of all services.
    """
    origins: dict[tuple[str, str], str] = field(default_factory=dict)
    """Variable or file that has set a value, by service and key."""
    faults: list[str] = field(default_factory=list)
    locate: Callable[[str, str], str] = lambda service, key: f"{service}.{key}"
    """Function that returns the place of a value for an error, of a service and a key."""


def read_variables(environment: Mapping[str, str]) -> ServiceValues:
    """Return the values of the variables of services, and of those of the defaults.

    Their names are `BUS_SERVICES__<SERVICE>__<KEY>` and `BUS_SERVICE_DEFAULTS__<KEY>`. The name of
    the service is in capitals, with `_` or `-` for `-`. An empty variable is not set. A variable
    with a misspelled beginning is a fault.

    Args:
        environment: The environment variables.

    Raises:
        ConfigurationError: The name of a variable is not in capitals.
    """
    found = ServiceValues()
    found.locate = lambda service, key: found.origins[service, key]
    if strip_value(environment.get(VARIABLE, "")):
        found.faults.append(
            f"{VARIABLE}: a service has one variable for each value. Write {EXAMPLE}, or set "
            "BUS_SERVICES_FILE"
        )
    if strip_value(environment.get(DEFAULTS_VARIABLE, "")):
        found.faults.append(
            f"{DEFAULTS_VARIABLE}: each value has one variable. Write {DEFAULTS_PREFIX}RETRIES=3, "
            "or set BUS_SERVICES_FILE"
        )
    for name, right in find_misspelled(environment).items():
        if strip_value(environment[name]):
            found.faults.append(
                f"{_shown(name)}: the bus does not read this name. Write {_shown(right)}, or "
                "remove the variable"
            )
    names = sorted(
        name for name in environment if name.upper().startswith((PREFIX, DEFAULTS_PREFIX))
    )
    _check_capitals(names)
    for name in names:
        text = strip_value(environment[name])
        if text and name.startswith(DEFAULTS_PREFIX):
            _read_default(name, text, found)
        elif text:
            _read_variable(name, text, found)
    return found


def variable_of(service: str, key: str) -> str:
    """Return the name of the variable that sets a value of a service."""
    return f"{PREFIX}{service}__{key}".upper().replace("-", "_")


def unknown_default(key: str) -> str:
    """Return the instruction for a key that the defaults do not have, or an empty text."""
    if key == "timeout":
        return "the timeout of all services is BUS_REQUEST_TIMEOUT. Set that variable instead"
    if key == "base_url":
        return "each service has its own address. Set base_url of a service"
    return other_place(key)


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
        joined = JOINED.fullmatch(last)
        meant = f"{PREFIX}{joined['service']}__{joined['key']}" if joined else f"{name}__TIMEOUT"
        found.faults.append(
            f"{_shown(name)}: the name must end with two underscores and a key. Write "
            f"{_shown(meant)}, or remove the variable"
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
        instead = other_place(key) or _describe_key(last, "a service", KEYS)
        found.faults.append(f"{_shown(name)}: {instead}")
        return
    if (service, key) in found.origins:
        found.faults.append(
            f"{_shown(name)}: {found.origins[service, key]} sets the same value. Remove one of "
            "the two"
        )
        return
    _add_value((service, key), name, text, found)


def _read_default(name: str, text: str, found: ServiceValues) -> None:
    """Add the value of one variable of the defaults, or its fault."""
    last = name.removeprefix(DEFAULTS_PREFIX)
    key = last.lower()
    if key in POLICY_KEYS:
        _add_value((DEFAULTS, key), name, text, found)
        return
    instead = unknown_default(key) or _describe_key(last, "the defaults", POLICY_KEYS)
    found.faults.append(f"{_shown(name)}: {instead}")


def _describe_key(written: str, subject: str, keys: Sequence[str]) -> str:
    """Return the text about an unknown key, with the nearest keys, or else with all keys."""
    capitals = [key.upper() for key in keys]
    meant = nearest_keys(written, capitals) or f" ({', '.join(capitals)})."
    return f"{_shown(written)} is not a key of {subject}{meant} Correct or remove the variable"


def _add_value(place: tuple[str, str], name: str, text: str, found: ServiceValues) -> None:
    """Add the value of a variable, or its fault.

    Args:
        place: Service and key.
        name: Name of the variable.
        text: Its value.
        found: The values of all variables.
    """
    service, key = place
    found.origins[place] = _shown(name)
    try:
        found.values.setdefault(service, {})[key] = RULES[key].check(RULES[key].parse_text(text))
    except ValueError as error:
        found.faults.append(f"{_shown(name)}: {error}")


def _shown(name: str) -> str:
    return ascii(name[:MAX_NAME_LENGTH])[1:-1] + "…" * (len(name) > MAX_NAME_LENGTH)
