"""The services file, `BUS_SERVICES_FILE`: the configurations of services as TOML."""

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bus.contracts.names import check_part
from bus.errors import ConfigurationError, ContractError
from bus.security.grants_faults import GrantsFaults
from bus.security.secret_files import read_trusted_file
from bus.settings.service_config import KEYS, RULES
from bus.settings.service_defaults import POLICY_KEYS
from bus.settings.service_variables import (
    DEFAULTS,
    MAX_NAME_LENGTH,
    ServiceValues,
    unknown_default,
)
from bus.settings.unknown_keys import nearest_keys, other_place

__all__ = ["read_services_file"]

SERVICES, DEFAULTS_TABLE = "services", "defaults"
MAX_FILE_BYTES = 64 * 1024
"""Maximum size of the file. It is sufficient for about a thousand services."""
SUBJECT = "BUS_SERVICES_FILE"


def read_services_file(path: Path) -> ServiceValues:
    """Return the values in a services file, such as `[services.billing]` with `timeout = 10`.

    The table `[defaults]` has the values of all services.

    Other users must not be able to write to the file, because it has addresses of services.

    Args:
        path: The file. A relative path begins at the working directory.
    """
    found = ServiceValues()
    try:
        text = read_trusted_file(path, f"{SUBJECT}: {path}", MAX_FILE_BYTES)
        content = tomllib.loads(text)
    except ConfigurationError as error:
        found.faults.append(str(error))
        return found
    # tomllib raises ValueError for a number with thousands of digits.
    except (ValueError, RecursionError) as error:
        reason = "its tables are nested too deeply" if isinstance(error, RecursionError) else error
        found.faults.append(f"{SUBJECT}: {path} is not TOML: {reason}. Correct the file")
        return found
    _FileReader(text, path, found).read(content)
    return found


class _FileReader:
    """The reader of the tables of one file. It collects values and faults."""

    def __init__(self, text: str, path: Path, found: ServiceValues) -> None:
        self._path, self._found = path, found
        self._faults = GrantsFaults(text)
        found.locate = self._locate

    def read(self, content: dict[str, Any]) -> None:
        """Read the tables `[services.<name>]`, and the table `[defaults]`."""
        for name in content.keys() - {SERVICES, DEFAULTS_TABLE}:
            self._faults.add(
                "",
                name,
                f"unknown key {name!r} (the values of a service belong in [services.<name>], and "
                "those of all services in [defaults])",
                similar=[SERVICES, DEFAULTS_TABLE],
            )
        services = content.get(SERVICES, {})
        if isinstance(services, dict):
            for service, table in services.items():
                self._read_service(service, table)
        else:
            self._faults.add("", SERVICES, "services must be tables: [services.<name>]")
        defaults = content.get(DEFAULTS_TABLE, {})
        if isinstance(defaults, dict):
            self._read_defaults(defaults)
        else:
            self._faults.add("", DEFAULTS_TABLE, "defaults must be a table: [defaults]")
        if self._faults:
            self._found.faults.append(f"{SUBJECT}: {self._faults.describe(self._path)}")

    def _read_service(self, service: str, table: Any) -> None:
        try:
            check_part(service, "service")
        except ContractError as error:
            self._faults.add(SERVICES, service, str(error))
            return
        if not isinstance(table, dict):
            self._faults.add(
                SERVICES, service, f"services.{service} must be a table: [services.{service}]"
            )
            return
        self._found.values.setdefault(service, {})
        for key, value in table.items():
            if key in KEYS:
                self._read_value(service, key, value)
            elif instead := other_place(key):
                self._faults.add(
                    f"{SERVICES}.{service}", key, f"{SERVICES}.{service}.{key}: {instead}"
                )
            else:
                self._faults.add(
                    f"{SERVICES}.{service}", key, _describe_key(key, "a service", KEYS)
                )

    def _read_defaults(self, table: dict[str, Any]) -> None:
        for key, value in table.items():
            if key in POLICY_KEYS:
                self._read_value(DEFAULTS, key, value)
            elif instead := unknown_default(key):
                self._faults.add(DEFAULTS_TABLE, key, f"{DEFAULTS_TABLE}.{key}: {instead}")
            else:
                self._faults.add(
                    DEFAULTS_TABLE, key, _describe_key(key, "the defaults", POLICY_KEYS)
                )

    def _read_value(self, service: str, key: str, value: Any) -> None:
        table = _table_of(service)
        try:
            self._found.values.setdefault(service, {})[key] = RULES[key].check(value)
        except ValueError as error:
            self._faults.add(table, key, f"{table}.{key}: {error}")
        else:
            self._found.origins[service, key] = str(self._path)

    def _locate(self, service: str, key: str) -> str:
        """Return the file, the line and the name of a value. The search for the line takes time."""
        table = _table_of(service)
        line = self._faults.find_line(table, key)
        return f"{SUBJECT}: {self._path}:{line}: {table}.{key}"


def _describe_key(key: str, subject: str, keys: Sequence[str]) -> str:
    """Return the text about an unknown key: first the nearest keys, and then all keys."""
    nearest = nearest_keys(key, keys) if len(key) <= MAX_NAME_LENGTH else ""
    return f"unknown key {key!r}{nearest or '.'} The keys of {subject} are {', '.join(keys)}"


def _table_of(service: str) -> str:
    return DEFAULTS_TABLE if service == DEFAULTS else f"{SERVICES}.{service}"
