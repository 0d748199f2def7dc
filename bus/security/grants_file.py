"""The reader of `grants.toml`: it checks every entry against the contracts, and names file and line of each error."""

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

__all__ = ["load_grants"]

CLIENTS, SERVICES, OPERATORS = "clients", "services", "operators"


MAX_FAULTS_SHOWN = 5


def load_grants(path: Path, contracts: Iterable[Contract], *, complete: bool = True) -> Grants:
    """The grants in a file, checked against the contracts. `ConfigurationError` names file, line and what is wrong.

    `complete`: whether `contracts` are all there are, as in `bus grants check`. A running service knows only those that it imports:
    it says `complete=False`, and a permission or service that it does not know is then no fault. To publish it grants nothing then,
    since its owner is not known.
    """
    try:
        text = path.read_text(encoding="utf-8")
        content = tomllib.loads(text)
    except OSError as error:
        raise ConfigurationError(
            f"{path} cannot be read ({error.strerror}); BUS_GRANTS names the grants, see `bus grants --help`"
        ) from None
    except UnicodeDecodeError:
        raise ConfigurationError(f"{path} is no UTF-8 text") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{path} is no TOML: {error}") from None
    reading = GrantsReader(text, tuple(contracts), complete=complete)
    services = {
        service: reading.rights(service, table) for service, table in reading.tables(content)
    }
    grants = Grants(services, dict(reading.operators(content)))
    if reading.faults:
        more = len(reading.faults) - MAX_FAULTS_SHOWN
        faults = "; ".join(f"{path}:{fault}" for fault in reading.faults[:MAX_FAULTS_SHOWN])
        raise ConfigurationError(faults + (f"; and {more} more" if more > 0 else ""))
    return grants


class GrantsReader:
    """One reading of a file: what it says, and every fault on the way as `line: place: what is wrong`."""

    def __init__(self, text: str, contracts: tuple[Contract, ...], *, complete: bool) -> None:
        self.faults: list[str] = []
        self._lines = text.splitlines()
        self._contracts = contracts
        self._owners = {contract.service for contract in contracts}
        self._complete = complete

    def tables(self, content: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
        """Each service with its table. `clients` and the services' names are checked."""
        known = (CLIENTS, SERVICES, OPERATORS)
        for name in content.keys() - set(known):
            self._fault(
                "",
                name,
                f"unknown key {name!r}{did_you_mean(name, known)}; rights stand in [services.<name>]",
            )
        services = content.get(SERVICES, {})
        if not isinstance(services, dict):
            self._fault("", SERVICES, "services has to be tables: [services.<name>]")
            return
        clients = self._names(content, "", CLIENTS)
        for client in clients:
            self._check_client(client, services)
        for service, table in services.items():
            if self._service(service, clients) and isinstance(table, dict):
                yield service, table
            elif not isinstance(table, dict):
                self._fault(
                    SERVICES, service, f"services.{service} has to be a table: [services.{service}]"
                )

    def operators(self, content: dict[str, Any]) -> Iterator[tuple[str, frozenset[str]]]:
        """Each operator with what they may do."""
        tables = content.get(OPERATORS, {})
        if not isinstance(tables, dict) or not all(
            isinstance(each, dict) for each in tables.values()
        ):
            self._fault(
                "",
                OPERATORS,
                f'operators have to be tables: [operators.<name>] with may = ["{REVEAL}"]',
            )
            return
        for operator, table in tables.items():
            place = f"{OPERATORS}.{operator}"
            for key in table.keys() - {"may"}:
                self._fault(
                    place,
                    key,
                    f"unknown key {key!r}{did_you_mean(key, ['may'])}; an operator has may",
                )
            named = self._names(table, place, "may")
            for each in sorted(set(named) - set(OPERATIONS)):
                self._fault(
                    place,
                    each,
                    f"{place}.may: unknown operation {each!r}{did_you_mean(each, OPERATIONS)}",
                )
            yield operator, frozenset(named)

    def rights(self, service: str, table: dict[str, Any]) -> ServiceGrants:
        """What a service's table grants."""
        place = f"{SERVICES}.{service}"
        for name in table.keys() - {each.name for each in fields(ServiceGrants)}:
            self._fault(
                place,
                name,
                f"unknown key {name!r}{did_you_mean(name, VERBS)}; a service has call, publish and consume",
            )
        named = {verb: sorted(set(self._names(table, place, verb))) for verb in VERBS}
        return ServiceGrants(
            **{
                verb: frozenset(each for each in named[verb] if self._holds(service, verb, each))
                for verb in VERBS
            }
        )

    def _names(self, table: dict[str, Any], place: str, key: str) -> list[str]:
        """The names in a list; empty where it is none."""
        value = table.get(key, [])
        where = f"{place}.{key}" if place else key
        if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
            self._fault(
                place, key, f'{where} has to be a list of names in quotes, such as {key} = ["…"]'
            )
            return []
        for each in sorted({each for each in value if value.count(each) > 1}):
            self._fault(place, each, f"{where} names {each!r} twice")
        return value

    def _service(self, service: str, clients: list[str]) -> bool:
        try:
            check_part(service, "service")
        except ContractError as error:
            self._fault(SERVICES, service, str(error))
            return False
        if self._complete and service not in self._owners and service not in clients:
            meant = did_you_mean(service, {*self._owners, *clients})
            fault = f"unknown service {service!r}{meant}; one that owns no contract is named in {CLIENTS}"
            self._fault(f"{SERVICES}.{service}", None, fault)
        return True

    def _check_client(self, client: str, services: dict[str, Any]) -> None:
        if client in self._owners:
            self._fault(
                "", client, f"{CLIENTS} names {client!r}, which owns contracts; leave it out there"
            )
        if client not in services:
            self._fault(
                "",
                client,
                f"{CLIENTS} names {client!r}, which has no table [services.…]{did_you_mean(client, services)}",
            )

    def _holds(self, service: str, verb: Verb, permission: str) -> bool:
        """Whether it is granted; where it cannot be, that is a fault."""
        bearing = [contract for contract in self._contracts if contract.permission == permission]
        fitting = [
            contract for contract in bearing if (contract.kind == "event") == (verb != "call")
        ]
        strangers = sorted({contract.service for contract in fitting} - {service})
        if not bearing and not self._complete:
            return verb != "publish"
        if not bearing:
            fault = f"unknown permission {permission!r}{did_you_mean(permission, {each.permission for each in self._contracts})}"
        elif not fitting:
            meant = (
                "it is an event's; publish or consume it"
                if verb == "call"
                else "it is no event's; it can only be called"
            )
            fault = f"{permission!r}: {meant}"
        elif verb == "publish" and strangers:
            fault = f"{permission!r}: only its owner publishes an event, which is {' and '.join(strangers)}"
        else:
            return True
        self._fault(f"{SERVICES}.{service}", permission, f"{SERVICES}.{service}.{verb}: {fault}")
        return False

    def _fault(self, table: str, name: str | None, what: str) -> None:
        self.faults.append(f"{self._line(table, name)}: {what}")

    def _line(self, table: str, name: str | None) -> int:
        """The line of a name in a table, or of the table's head: tomllib keeps none. 1 where it is written in another way."""
        current, head = "", 1
        for number, line in enumerate(self._lines, 1):
            if found := re.match(r"\s*\[([^\[\]]+)\]\s*(#|$)", line):
                current = re.sub(r"[\s\"']", "", found[1])
                if current == table:
                    head = number
                if name is not None and current == f"{table}.{name}".lstrip("."):
                    return number
            elif current == table and name is not None and _mentions(line, name):
                return number
        return head


def _mentions(line: str, name: str) -> bool:
    """Whether the name stands in the line, in quotes or as a key, and not in its comment."""
    escaped = re.escape(name)
    return re.search(rf"^[^#]*[\"']{escaped}[\"']|^\s*{escaped}\s*[=.]", line) is not None
