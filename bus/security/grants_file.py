"""The reader of `grants.toml`. It checks each entry against the contracts."""

import re
import tomllib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import fields
from itertools import chain
from pathlib import Path
from typing import Any, cast

from bus.contracts.contract import Contract, check_part
from bus.errors import ConfigurationError, ContractError
from bus.messaging.jobs.questions import JOB_RIGHTS
from bus.security.grants import (
    CONTROL_RIGHTS,
    OPERATIONS,
    ORDER,
    REVEAL,
    VERBS,
    Grants,
    ServiceGrants,
    Verb,
)
from bus.security.grants_faults import GrantsFaults
from bus.security.secret_files import read_trusted_file

__all__ = ["load_grants", "parse_grants", "read_grants_text"]

CLIENTS, SERVICES, OPERATORS = "clients", "services", "operators"
CONTROL = "control"
"""Key of a service's rights on the control channel."""
JOBS = "jobs"
"""Key of a service's rights on the jobs that other services submitted."""
MAX_GRANTS_BYTES = 256 * 1024
"""Maximum size of a grants file. It is sufficient for about two thousand services.

A running service reads the file in its event loop. A file of this size takes about 0.2 s.
"""
MAX_KEY_PARTS = 16
"""Maximum number of parts of a dotted key. The longest key that has a meaning has three parts."""
LONG_KEY = re.compile(
    r"""(?m:^)[ \t]*\#.*|(?P<key>(?<![\w-])(?:(?:[\w-]+|"[^"\n]*"|'[^'\n]*')[ \t]*\.[ \t]*)"""
    rf"{{{MAX_KEY_PARTS}}})",
    re.ASCII,
)
"""Pattern of a comment line, or of a dotted key with too many parts.

tomllib needs quadratic time for a long dotted key.
"""


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
    if key := next((match for match in LONG_KEY.finditer(text) if match["key"]), None):
        line = text.count("\n", 0, key.start()) + 1
        raise ConfigurationError(f"{path}:{line}: a key has more than {MAX_KEY_PARTS} parts")
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
        raise ConfigurationError(reader.faults.describe(path))
    return grants


class GrantsReader:
    """The reader of one grants file. It collects the faults."""

    def __init__(self, text: str, contracts: tuple[Contract, ...], *, complete: bool) -> None:
        self.faults = GrantsFaults(text)
        self._contracts: defaultdict[str, list[Contract]] = defaultdict(list)
        for contract in contracts:
            self._contracts[contract.permission].append(contract)
        self._jobs = sorted({each.name for each in contracts if each.kind == "job"})
        self._owners = {contract.service for contract in contracts}
        self._complete = complete

    def tables(self, content: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
        """Check `clients` and the service names. Yield each valid service name with the table."""
        keys = (CLIENTS, SERVICES, OPERATORS)
        for name in content.keys() - set(keys):
            self.faults.add(
                "",
                name,
                f"unknown key {name!r} (permissions belong in [services.<name>])",
                similar=keys,
            )
        services = content.get(SERVICES, {})
        if not isinstance(services, dict):
            self.faults.add("", SERVICES, "services must be tables: [services.<name>]")
            return
        clients = frozenset(self._names(content, "", CLIENTS))
        for client in sorted(clients):
            self._check_client(client, services)
        for service, table in services.items():
            if self._check_service(service, clients) and isinstance(table, dict):
                yield service, table
            elif not isinstance(table, dict):
                self.faults.add(
                    SERVICES, service, f"services.{service} must be a table: [services.{service}]"
                )

    def operators(self, content: dict[str, Any]) -> Iterator[tuple[str, frozenset[str]]]:
        """Yield each operator with the granted operations."""
        tables = content.get(OPERATORS, {})
        if not isinstance(tables, dict) or not all(
            isinstance(table, dict) for table in tables.values()
        ):
            self.faults.add(
                "",
                OPERATORS,
                f'operators must be tables: [operators.<name>] with may = ["{REVEAL}"]',
            )
            return
        for operator, table in tables.items():
            location = f"{OPERATORS}.{operator}"
            for key in table.keys() - {"may"}:
                self.faults.add(
                    location,
                    key,
                    f"unknown key {key!r} (the only key of an operator is may)",
                    similar=["may"],
                )
            names = self._names(table, location, "may")
            for name in sorted(set(names) - set(OPERATIONS)):
                self.faults.add(
                    location,
                    name,
                    f"{location}.may: unknown operation {name!r}",
                    similar=OPERATIONS,
                )
            yield operator, frozenset(names)

    def rights(self, service: str, table: dict[str, Any]) -> ServiceGrants:
        """Return the grants in the table of a service."""
        location = f"{SERVICES}.{service}"
        for name in table.keys() - {field.name for field in fields(ServiceGrants)}:
            self.faults.add(
                location,
                name,
                f"unknown key {name!r} (the keys of a service are call, publish, consume, control "
                "and jobs)",
                similar=(*VERBS, CONTROL, JOBS),
            )
        names = {verb: sorted(set(self._names(table, location, verb))) for verb in VERBS}
        return ServiceGrants(
            **{
                verb: frozenset(
                    name for name in names[verb] if self._check_permission(service, verb, name)
                )
                for verb in VERBS
            },
            control=self._control_rights(table, location),
            jobs=self._job_rights(table, location),
        )

    def _job_rights(self, table: dict[str, Any], location: str) -> frozenset[str]:
        names = sorted(set(self._names(table, location, JOBS)))
        return frozenset(name for name in names if self._check_job_right(name, location))

    def _check_job_right(self, name: str, location: str) -> bool:
        """Return True if a right names a job. If not, record a fault."""
        right, _, job = name.partition(":")
        similar = [f"{right}:{each}" for each in self._jobs]
        if right not in JOB_RIGHTS:
            similar = [f"{each}:{job or right}" for each in JOB_RIGHTS]
        elif job in self._jobs or (job and not self._complete):
            return True
        self.faults.add(
            location,
            name,
            f"{location}.{JOBS}: unknown right {name!r} (write read: or cancel:, and the name of a "
            "job without its version)",
            similar=similar,
        )
        return False

    def _control_rights(self, table: dict[str, Any], location: str) -> frozenset[str]:
        names = sorted(set(self._names(table, location, CONTROL)))
        for name in names:
            if name not in CONTROL_RIGHTS:
                hint = " (only an operator can have it)" if name in {"order", ORDER} else ""
                self.faults.add(
                    location,
                    name,
                    f"{location}.{CONTROL}: unknown right {name!r}{hint}",
                    similar=CONTROL_RIGHTS,
                )
        return frozenset(names)

    def _names(self, table: dict[str, Any], location: str, key: str) -> list[str]:
        """Return the names at `key`. If the value is not a list of names, return an empty list."""
        value = table.get(key, [])
        field = f"{location}.{key}" if location else key
        if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
            self.faults.add(
                location, key, f'{field} must be a list of names in quotes, such as {key} = ["…"]'
            )
            return []
        for name in sorted(name for name, count in Counter(value).items() if count > 1):
            self.faults.add(location, name, f"{field} names {name!r} twice")
        return value

    def _check_service(self, service: str, clients: frozenset[str]) -> bool:
        try:
            check_part(service, "service")
        except ContractError as error:
            self.faults.add(SERVICES, service, str(error))
            return False
        if self._complete and service not in self._owners and service not in clients:
            self.faults.add(
                SERVICES,
                service,
                f"unknown service {service!r} (list a service without contracts in {CLIENTS})",
                similar=chain(self._owners, (name for name in clients if name not in self._owners)),
            )
        return True

    def _check_client(self, client: str, services: dict[str, Any]) -> None:
        if client in self._owners:
            self.faults.add(
                "",
                client,
                f"{CLIENTS} names {client!r}, which owns contracts. Remove it from {CLIENTS}",
            )
        if client not in services:
            self.faults.add(
                "",
                client,
                f"{CLIENTS} names {client!r}, which has no table [services.…]",
                similar=services,
            )

    def _check_permission(self, service: str, verb: Verb, permission: str) -> bool:
        """Return True if the service can have this permission. If not, record a fault."""
        contracts, similar = self._contracts.get(permission, ()), cast("Iterable[str]", ())
        suitable = [
            contract for contract in contracts if (contract.kind == "event") == (verb != "call")
        ]
        other_owners = sorted({contract.service for contract in suitable} - {service})
        if not contracts and not self._complete:
            return verb != "publish"
        if not contracts:
            problem, similar = f"unknown permission {permission!r}", self._contracts
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
        self.faults.add(
            f"{SERVICES}.{service}",
            permission,
            f"{SERVICES}.{service}.{verb}: {problem}",
            similar=similar,
        )
        return False
