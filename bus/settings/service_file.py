"""The services file, `BUS_SERVICES_FILE`: the configurations of services as TOML."""

import tomllib
from pathlib import Path
from typing import Any

from bus.contracts.names import check_part
from bus.errors import ConfigurationError, ContractError
from bus.security.grants_faults import GrantsFaults
from bus.security.secret_files import read_trusted_file
from bus.settings.service_config import KEYS, check_value
from bus.settings.service_variables import ServiceValues

__all__ = ["read_services_file"]

SERVICES = "services"
MAX_FILE_BYTES = 64 * 1024
"""Maximum size of the file. It is sufficient for about a thousand services."""
SUBJECT = "BUS_SERVICES_FILE"


def read_services_file(path: Path) -> ServiceValues:
    """Return the values in a services file, such as `[services.billing]` with `timeout = 10`.

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

    def read(self, content: dict[str, Any]) -> None:
        """Read the tables `[services.<name>]`."""
        for name in content.keys() - {SERVICES}:
            self._faults.add(
                "",
                name,
                f"unknown key {name!r} (the values of a service belong in [services.<name>])",
                similar=[SERVICES],
            )
        services = content.get(SERVICES, {})
        if isinstance(services, dict):
            for service, table in services.items():
                self._read_service(service, table)
        else:
            self._faults.add("", SERVICES, "services must be tables: [services.<name>]")
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
        values = self._found.values.setdefault(service, {})
        location = f"{SERVICES}.{service}"
        for key, value in table.items():
            if key not in KEYS:
                self._faults.add(
                    location,
                    key,
                    f"unknown key {key!r} (the keys of a service are {', '.join(KEYS)})",
                    similar=KEYS,
                )
                continue
            try:
                values[key] = check_value(key, value)
                self._found.origins[service, key] = str(self._path)
            except ValueError as error:
                self._faults.add(location, key, f"{location}.{key}: {error}")
