"""What a bus needs to speak for its service and to know the others: keys, grants, and who signs and checks with them."""

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import suppress

from bus.contracts.contract import CATALOG, Contract
from bus.errors import ConfigurationError, PermissionDenied
from bus.runtime.router import Router
from bus.security.access_policy import Rights
from bus.security.grants import Grants, load_grants
from bus.security.keyring import Keyring, dev_ring, private_keys, public_source
from bus.security.tokens import LONGEST_LIFE
from bus.security.verifier import Gate, Signer, Verifier
from bus.settings import Settings

__all__ = ["Trust", "trust_of"]

log = logging.getLogger("bus.auth")

WITHOUT = "BUS_AUTH=off runs without, and anyone can then speak for anyone"


class Trust:
    """One service's keys and grants, while its bus is open."""

    def __init__(self, service: str, ring: Keyring, grants: Callable[[], Rights], settings: Settings, clock: Callable[[], float]) -> None:
        self._service = service
        self._file = settings.grants
        self._ring = ring
        self._load = grants
        self._grants: Rights = Grants({})
        self._contracts = 0
        """How many were known when they were read."""
        self._refreshing: asyncio.Task[None] | None = None
        direct = settings.topology == "declare"  # else its user has no right to the default exchange
        self.signer = Signer(service, ring, lambda: self._grants, clock=clock)
        self.verifier = Verifier(service, ring, lambda: self._grants, clock=clock, leeway=settings.clock_leeway, direct=direct)

    @property
    def grants(self) -> Rights:
        """Who may do what."""
        return self._grants

    def read_grants(self) -> None:
        """Read them, again: a file grants no more than the contracts that are known allow. Raises `ConfigurationError`."""
        self._grants, self._contracts = self._load(), len(CATALOG)

    async def start(self) -> None:
        """Read keys and grants, and look at the keys again from time to time. Raises `ConfigurationError`."""
        self.read_grants()
        await self._ring.start()
        self._refreshing = asyncio.get_running_loop().create_task(self._ring.run())

    def gate(self, contract: Contract) -> Gate:
        """The way in of an endpoint."""
        return Gate(contract, self.verifier, self.signer)

    def refusal_to_send(self, contract: Contract) -> PermissionDenied | None:
        """Why this service must not send a message of this contract; None where it may. Contracts that came since the start count."""
        if self._may_send(contract):
            return None
        if len(CATALOG) != self._contracts:
            self.read_grants()
            if self._may_send(contract):
                return None
        verb, permission = "publish" if contract.kind == "event" else "call", contract.permission
        line = f'[services.{self._service}] {verb} = ["{permission}"]'
        return PermissionDenied(f"{self._service} has no right to {verb} {permission}; grant it in {self._file}: {line}")

    def _may_send(self, contract: Contract) -> bool:
        allowed = self._grants.may_publish if contract.kind == "event" else self._grants.may_call
        return allowed(self._service, contract.permission)

    def admit(self, router: Router) -> None:
        """Refuse to serve what this service may not hear: `ConfigurationError`. Contracts that came since the start count."""
        self.read_grants()
        for endpoint in router.endpoints.values():
            contract = endpoint.contract
            if contract.kind == "event" and not self._grants.may_consume(router.name, contract.permission):
                line = f'[services.{router.name}] consume = ["{contract.permission}"]'
                raise ConfigurationError(f"{router.name} may not consume {contract.permission}; grant it in {self._file}: {line}")

    async def close(self) -> None:
        """Look no more."""
        if self._refreshing is not None:
            self._refreshing.cancel()
            with suppress(asyncio.CancelledError):
                await self._refreshing


def trust_of(service: str, settings: Settings, *, clock: Callable[[], float] = time.time) -> Trust | None:
    """By the settings; None with `BUS_AUTH=off`, of which the log is told. Raises `ConfigurationError` where one is missing."""
    if settings.auth == "off":
        log.warning("BUS_AUTH=off: nothing is signed or checked, and anyone who reaches the broker can speak for any service")
        return None
    if settings.message_ttl >= LONGEST_LIFE:
        raise ConfigurationError(
            f"BUS_MESSAGE_TTL is to be less than {LONGEST_LIFE} (31 days): what was proven for longer all would refuse"
        )
    key = settings.key.get_secret_value() if settings.key else ""
    if not key:
        raise ConfigurationError(
            f"BUS_KEY is not set, so {service} cannot prove who it is; `bus keys new {service}` makes a key and says what to set; {WITHOUT}"
        )
    if settings.auth == "dev":
        log.warning("BUS_AUTH=dev: every service has the same secret, and can speak for any other")
        return Trust(service, dev_ring(service, key, clock=clock), lambda: _grants(settings), settings, clock)
    if settings.jwks is None:
        raise ConfigurationError(
            f"BUS_JWKS is not set, so {service} cannot know who the others are; "
            f"set it to the jwks.json that `bus keys new` has written beside the key; {WITHOUT}"
        )
    if settings.grants is None:
        raise ConfigurationError(
            f"BUS_GRANTS is not set, so nobody may do anything; set it to a grants.toml (`bus grants --help` says what is in it); {WITHOUT}"
        )
    ring = Keyring(service, public_source(settings.jwks), private_keys(key), clock=clock)
    return Trust(service, ring, lambda: _grants(settings), settings, clock)


def _grants(settings: Settings) -> Rights:
    """By the file. A process knows the contracts that it imports, and grants of others are no fault to it."""
    return load_grants(settings.grants, CATALOG, complete=False) if settings.grants is not None else Everything()


class Everything:
    """With `dev` and without a file everyone may do everything."""

    def may_call(self, service: str, permission: str) -> bool:  # noqa: ARG002 - the shape of `Rights`
        """Yes."""
        return True

    may_publish = may_consume = may_call

    def knows(self, service: str) -> bool:  # noqa: ARG002 - as above
        """Yes."""
        return True

    def scope(self, service: str) -> frozenset[str]:  # noqa: ARG002 - as above
        """Everything that is known here."""
        return frozenset(contract.permission for contract in CATALOG if contract.kind != "event")
