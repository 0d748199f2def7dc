"""The identity with which a command asks: an operator, a service, or neither without keys."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from bus.contracts.names import check_part
from bus.errors import ConfigurationError
from bus.messaging.topology.control import COMMANDS
from bus.runtime.key_owner import find_key_owners
from bus.runtime.security import grants_source, operator_keyring
from bus.security.control_security import ControlGuard, ControlSecurity, Subject
from bus.security.current_grants import CurrentGrants
from bus.security.jwks_source import private_key_source, public_key_source
from bus.security.keyring import Keyring
from bus.security.open_control import OPEN_CONTROL
from bus.settings import Settings

__all__ = ["Asking", "find_asking"]

Clock = Callable[[], float]
OPERATION = "a question to live services"


@dataclass(frozen=True, slots=True)
class Asking:
    """The person or program that asks."""

    name: str
    """Name of the service or the operator, or `COMMANDS`."""
    receiver: str
    """Name in the address of the answers: the service, or `COMMANDS`."""
    guard: ControlGuard
    ring: Keyring | None = None


async def find_asking(
    settings: Settings, service: str | None = None, clock: Clock = time.time
) -> Asking:
    """Return the name, the security and the keys with which a command asks.

    With `BUS_AUTH=on` the command asks with the key of the operator, if it has one. Without it, and
    if the user chooses a service, the command asks with the key of the service.

    Args:
        settings: The settings of the command.
        service: The service that the user chooses. None: the operator, or the owner of `BUS_KEY`.
        clock: A function that returns seconds since the epoch.

    Raises:
        ContractError: `service` is not a valid name.
        ConfigurationError: No key is set, a key is invalid, or `BUS_KEY` names several services.
    """
    if service is not None:
        check_part(service, "service")
    if settings.auth == "off":
        return Asking(service or COMMANDS, service or COMMANDS, OPEN_CONTROL)
    if settings.auth == "on" and (service is not None or settings.operator_key is None):
        service = service or await _only_service(settings)
        ring = await _service_keyring(settings, service, clock)
    else:
        ring = await operator_keyring(settings, OPERATION, clock)
    owner = ring.signing_key().key.owner
    is_operator = ring.role == "operator"
    subject = Subject(
        name=owner or service or COMMANDS,
        role="operator" if is_operator else "service",
        grants_file=settings.grants,
        knows_contracts=False,
    )
    guard = ControlSecurity(
        subject, ring, _grants(settings), clock=clock, leeway=settings.clock_leeway
    )
    return Asking(subject.name, COMMANDS if is_operator else subject.name, guard, ring)


def _grants(settings: Settings) -> CurrentGrants | None:
    if settings.grants is None:
        return None
    grants = CurrentGrants(grants_source(settings.grants))
    grants.read()
    return grants


async def _only_service(settings: Settings) -> str:
    """Return the service to which `BUS_KEY` belongs."""
    owners = await find_key_owners(settings)
    if not owners:
        raise _no_key()
    if len(owners) > 1:
        raise ConfigurationError(
            f"BUS_KEY names a directory with the keys of several services: {', '.join(owners)}. "
            "Choose the service that asks with --as SERVICE, or set BUS_OPERATOR_KEY to the key of "
            "an operator."
        )
    return owners[0]


async def _service_keyring(settings: Settings, service: str, clock: Clock) -> Keyring:
    key = "" if settings.key is None else settings.key.get_secret_value()
    if not key or settings.jwks is None:
        raise _no_key()
    ring = Keyring(
        service,
        public_key_source(settings.jwks),
        private_key_source(key, owner=service),
        clock=clock,
    )
    await ring.start()
    return ring


def _no_key() -> ConfigurationError:
    return ConfigurationError(
        f"{OPERATION} requires a key. Set BUS_OPERATOR_KEY to the key of an operator, or BUS_KEY "
        "to the key of a service. Set BUS_JWKS to the public keys."
    )
