"""The reader of `grants.toml`. It checks each entry against the contracts."""

import re
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

from bus.contracts.contract import Contract, check_part
from bus.errors import ConfigurationError, ContractError
from bus.messaging.suggestions import did_you_mean
from bus.security.grants import OPERATIONS, REVEAL, VERBS, Grants, ServiceGrants, Verb
from bus.security.secret_files import read_trusted_file

__all__ = ["load_grants", "parse_grants", "read_grants_text"]

CLIENTS, SERVICES, OPERATORS = "clients", "services", "operators"
MAX_GRANTS_BYTES = 1024 * 1024
"""Maximum size of a grants file. It is sufficient for several thousand services."""
MAX_FAULTS_SHOWN = 5
"""Maximum number of faults that an error lists. The error counts the remaining faults."""


def load_grants(path: Path, contracts: Iterable[Contract], *, complete: bool = True) -> Grants:
    """Return the grants in a file. Check them against the contracts.

    Args:
        path: The file.
        contracts: The contracts that define the permissions.
        complete: True if `contracts` contains all contracts, as in `bus grants check`. False in a
            running service, which has imported only some contracts. If False, unknown permissions
            and services are not faults. A publish permission without a contract is ignored,
            because the owner of the event is unknown.

    Raises:
        ConfigurationError: The file cannot be read, other users can write to it, or it has faults.
            The error names the file, the line and the problem of each fault.
    """
    # `bus grants check` reads the file once, so it also accepts a pipe.
    text = read_grants_text(path, accepts_pipe=complete)
    return parse_grants(text, path, contracts, complete=complete)


def read_grants_text(path: Path, *, accepts_pipe: bool = False) -> str:
    """Return the text of a grants file.

    Args:
        path: The file.
        accepts_pipe: True if a command reads the file only once, so that it can be a named pipe.

    Raises:
        ConfigurationError: The file cannot be read, is not a regular file, is too large, or other
            users can write to it.
    """
    subject = str(path) if accepts_pipe else f"BUS_GRANTS: {path}"
    return read_trusted_file(path, subject, MAX_GRANTS_BYTES, accepts_pipe=accepts_pipe)


def parse_grants(
    text: str, path: Path, contracts: Iterable[Contract], *, complete: bool = True
) -> Grants:
    """Return the grants in the text of a grants file. Check them against the contracts.

    Args:
        text: The text of the file.
        path: The path of the file, for errors.
        contracts: The contracts that define the permissions.
        complete: As in `load_grants`.

    Raises:
        ConfigurationError: The text has faults.
    """
    try:
        content = tomllib.loads(text)
    # tomllib raises ValueError for a number with thousands of digits.
    except (ValueError, RecursionError) as error:
        reason = "its tables or lists are nested too deeply"
        raise ConfigurationError(
            f"{path} is not TOML: {reason if isinstance(error, RecursionError) else error}"
        ) from None
    reader = GrantsReader(text, tuple(contracts), complete=complete)
    services = {service: reader.rights(service, table) for service, table in reader.tables(content)}
    grants = Grants(services, dict(reader.operators(content)))
    if reader.faults:
        more = len(reader.faults) - MAX_FAULTS_SHOWN
        faults = "; ".join(f"{path}:{fault}" for fault in reader.faults[:MAX_FAULTS_SHOWN])
        raise ConfigurationError(faults + (f"; and {more} more" if more > 0 else ""))
    return grants


class GrantsReader:
    """The reader of one grants file. It collects every fault as `line: problem`."""

    def __init__(self, text: str, contracts: tuple[Contract, ...], *, complete: bool) -> None:
        self.faults: list[str] = []
        self._lines = text.splitlines()
        self._contracts = contracts
        self._owners = {contract.service for contract in contracts}
        self._complete = complete

    def tables(self, content: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
        """Check `clients` and the service names. Yield each valid service name with the table."""
        keys = (CLIENTS, SERVICES, OPERATORS)
        for name in content.keys() - set(keys):
            self._add_fault(
                "",
                name,
                f"unknown key {name!r} (permissions belong in [services.<name>])"
                f"{did_you_mean(name, keys)}",
            )
        services = content.get(SERVICES, {})
        if not isinstance(services, dict):
            self._add_fault("", SERVICES, "services must be tables: [services.<name>]")
            return
        clients = self._names(content, "", CLIENTS)
        for client in clients:
            self._check_client(client, services)
        for service, table in services.items():
            if self._check_service(service, clients) and isinstance(table, dict):
                yield service, table
            elif not isinstance(table, dict):
                self._add_fault(
                    SERVICES, service, f"services.{service} must be a table: [services.{service}]"
                )

    def operators(self, content: dict[str, Any]) -> Iterator[tuple[str, frozenset[str]]]:
        """Yield each operator with the granted operations."""
        tables = content.get(OPERATORS, {})
        if not isinstance(tables, dict) or not all(
            isinstance(table, dict) for table in tables.values()
        ):
            self._add_fault(
                "",
                OPERATORS,
                f'operators must be tables: [operators.<name>] with may = ["{REVEAL}"]',
            )
            return
        for operator, table in tables.items():
            location = f"{OPERATORS}.{operator}"
            for key in table.keys() - {"may"}:
                self._add_fault(
                    location,
                    key,
                    f"unknown key {key!r} (the only key of an operator is may)"
                    f"{did_you_mean(key, ['may'])}",
                )
            names = self._names(table, location, "may")
            for name in sorted(set(names) - set(OPERATIONS)):
                self._add_fault(
                    location,
                    name,
                    f"{location}.may: unknown operation {name!r}{did_you_mean(name, OPERATIONS)}",
                )
            yield operator, frozenset(names)

    def rights(self, service: str, table: dict[str, Any]) -> ServiceGrants:
        """Return the grants in the table of a service."""
        location = f"{SERVICES}.{service}"
        for name in table.keys() - {field.name for field in fields(ServiceGrants)}:
            self._add_fault(
                location,
                name,
                f"unknown key {name!r} (the keys of a service are call, publish and consume)"
                f"{did_you_mean(name, VERBS)}",
            )
        names = {verb: sorted(set(self._names(table, location, verb))) for verb in VERBS}
        return ServiceGrants(
            **{
                verb: frozenset(
                    name for name in names[verb] if self._check_permission(service, verb, name)
                )
                for verb in VERBS
            }
        )

    def _names(self, table: dict[str, Any], location: str, key: str) -> list[str]:
        """Return the names at `key`. If the value is not a list of names, return an empty list."""
        value = table.get(key, [])
        field = f"{location}.{key}" if location else key
        if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
            self._add_fault(
                location, key, f'{field} must be a list of names in quotes, such as {key} = ["…"]'
            )
            return []
        for name in sorted({name for name in value if value.count(name) > 1}):
            self._add_fault(location, name, f"{field} names {name!r} twice")
        return value

    def _check_service(self, service: str, clients: list[str]) -> bool:
        try:
            check_part(service, "service")
        except ContractError as error:
            self._add_fault(SERVICES, service, str(error))
            return False
        if self._complete and service not in self._owners and service not in clients:
            problem = (
                f"unknown service {service!r} (list a service without contracts in {CLIENTS})"
                f"{did_you_mean(service, {*self._owners, *clients})}"
            )
            self._add_fault(f"{SERVICES}.{service}", None, problem)
        return True

    def _check_client(self, client: str, services: dict[str, Any]) -> None:
        if client in self._owners:
            self._add_fault(
                "",
                client,
                f"{CLIENTS} names {client!r}, which owns contracts. Remove it from {CLIENTS}",
            )
        if client not in services:
            self._add_fault(
                "",
                client,
                f"{CLIENTS} names {client!r}, which has no table [services.…]"
                f"{did_you_mean(client, services)}",
            )

    def _check_permission(self, service: str, verb: Verb, permission: str) -> bool:
        """Return True if the service can have this permission. If not, record a fault."""
        contracts = [contract for contract in self._contracts if contract.permission == permission]
        suitable = [
            contract for contract in contracts if (contract.kind == "event") == (verb != "call")
        ]
        other_owners = sorted({contract.service for contract in suitable} - {service})
        if not contracts and not self._complete:
            return verb != "publish"
        if not contracts:
            permissions = {contract.permission for contract in self._contracts}
            problem = f"unknown permission {permission!r}{did_you_mean(permission, permissions)}"
        elif not suitable:
            reason = (
                "an event cannot be called. Grant publish or consume"
                if verb == "call"
                else "a request or job can only be called. Grant call"
            )
            problem = f"{permission!r}: {reason}"
        elif verb == "publish" and other_owners:
            problem = (
                f"{permission!r}: the event belongs to {' and '.join(other_owners)}, "
                "and only its owner may publish it"
            )
        else:
            return True
        self._add_fault(
            f"{SERVICES}.{service}", permission, f"{SERVICES}.{service}.{verb}: {problem}"
        )
        return False

    def _add_fault(self, table: str, name: str | None, problem: str) -> None:
        self.faults.append(f"{self._find_line(table, name)}: {problem}")

    def _find_line(self, table: str, name: str | None) -> int:
        """Return the line number of a name in a table.

        tomllib returns no line numbers, so this method searches the text. If the name is None or
        not found, the result is the line of the table's header. TOML also allows tables without a
        `[header]` line. For these tables, the result is 1.
        """
        current, header_line = "", 1
        for number, line in enumerate(self._lines, 1):
            if header := re.match(r"\s*\[([^\[\]]+)\]\s*(#|$)", line):
                current = re.sub(r"[\s\"']", "", header[1])
                if current == table:
                    header_line = number
                if name is not None and current == f"{table}.{name}".lstrip("."):
                    return number
            elif current == table and name is not None and _mentions(line, name):
                return number
        return header_line


def _mentions(line: str, name: str) -> bool:
    """Return True if the line contains the name in quotes or as a key, but not in a comment."""
    escaped = re.escape(name)
    return re.search(rf"^[^#]*[\"']{escaped}[\"']|^\s*{escaped}\s*[=.]", line) is not None
