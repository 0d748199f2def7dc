"""The identity of one service: keys, grants, signer and verifier."""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from contextlib import suppress

from bus.contracts.contract import CATALOG, Contract
from bus.errors import ConfigurationError, PermissionDenied
from bus.security.endpoint_guard import EndpointGuard
from bus.security.grants import AccessPolicy, Grants, GrantsSource
from bus.security.keyring import Keyring
from bus.security.signer import Signer
from bus.security.verifier import Verifier

__all__ = ["ServiceIdentity"]

log = logging.getLogger("bus.auth")


class ServiceIdentity:
    """The keys and grants that one service uses to sign and verify messages."""

    is_anonymous = False
    """True if the service neither signs nor verifies messages."""

    def __init__(
        self,
        service: str,
        ring: Keyring,
        grants: GrantsSource,
        *,
        leeway: float = 30,
        direct: bool = True,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Build the identity of a service from its keys and grants.

        Args:
            service: The name that this process signs with.
            ring: The private keys of this service, and the public keys of all services.
            grants: The source of the grants of all services.
            leeway: Seconds by which the clocks of two machines may differ.
            direct: True if this service may send replies to RabbitMQ's direct reply-to.
            clock: Returns seconds since the epoch.
        """
        self._service = service
        self._source = grants
        self._ring = ring
        self._grants: AccessPolicy = Grants({})
        self._contracts = 0
        """The number of contracts in the catalog when the grants were read."""
        self._refreshing: asyncio.Task[None] | None = None
        self.signer = Signer(service, ring, lambda: self._grants, clock=clock)
        self.verifier = Verifier(
            service, ring, lambda: self._grants, clock=clock, leeway=leeway, direct=direct
        )

    @property
    def grants(self) -> AccessPolicy:
        """The permissions of every service."""
        return self._grants

    def read_grants(self) -> None:
        """Read the grants again.

        A permission to publish an event takes effect only if the event's contract is imported.

        Raises:
            ConfigurationError: The grants cannot be read, or have a fault.
        """
        self._grants, self._contracts = self._source.read(), len(CATALOG)

    async def start(self) -> None:
        """Read the grants and keys. Start a task that reads the keys again at intervals.

        Raises:
            ConfigurationError: The keys or grants cannot be read, or have a fault.
        """
        self.read_grants()
        await self._ring.start()
        self._refreshing = asyncio.get_running_loop().create_task(self._ring.run())

    def guard(self, contract: Contract) -> EndpointGuard:
        """Return the guard of the endpoint that serves `contract`."""
        return EndpointGuard(contract, self.verifier)

    def check_send_permission(self, contract: Contract) -> PermissionDenied | None:
        """Return None if this service may send messages of this contract. If not, return an error.

        The grants are read again if they do not contain the permission, and contracts were declared
        after the last read.
        """
        if self._may_send(contract):
            return None
        if len(CATALOG) != self._contracts:
            self.read_grants()
            if self._may_send(contract):
                return None
        verb, permission = "publish" if contract.kind == "event" else "call", contract.permission
        line = f'[services.{self._service}] {verb} = ["{permission}"]'
        return PermissionDenied(
            f"{self._service} has no right to {verb} {permission}. "
            f"Grant it in {self._source.path}: {line}"
        )

    def _may_send(self, contract: Contract) -> bool:
        allowed = self._grants.may_publish if contract.kind == "event" else self._grants.may_call
        return allowed(self._service, contract.permission)

    def check_subscriptions(self, contracts: Iterable[Contract]) -> None:
        """Read the grants again. Check that this service may consume the events in `contracts`.

        Raises:
            ConfigurationError: The service may not consume one of the events.
        """
        self.read_grants()
        for contract in contracts:
            if contract.kind == "event" and not self._grants.may_consume(
                self._service, contract.permission
            ):
                line = f'[services.{self._service}] consume = ["{contract.permission}"]'
                raise ConfigurationError(
                    f"{self._service} may not consume {contract.permission}. "
                    f"Grant it in {self._source.path}: {line}"
                )

    async def close(self) -> None:
        """Stop the task that reads the keys at intervals."""
        if self._refreshing is not None:
            self._refreshing.cancel()
            with suppress(asyncio.CancelledError):
                await self._refreshing
