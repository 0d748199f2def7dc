"""The security objects of a service, built from its settings: its identity, its payload cipher, and its operator."""

import logging
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from bus.contracts.contract import CATALOG
from bus.errors import ConfigurationError, PermissionDenied
from bus.messaging.envelope import Envelope
from bus.security.anonymous import ANONYMOUS, AnonymousIdentity
from bus.security.encryption import NO_ENCRYPTION, PayloadCipher
from bus.security.grants import REVEAL, AccessPolicy, AllowAll, GrantsSource
from bus.security.grants_file import load_grants
from bus.security.identity import ServiceIdentity
from bus.security.jwks_source import private_key_source, public_key_source
from bus.security.keyring import Keyring, shared_secret_keyring
from bus.security.message_security import MessageSecurity
from bus.security.proofs import (
    MAX_EXPIRY_OVERRIDES,
    MAX_PROOF_LIFETIME_SECONDS,
    Countersign,
    count_expiry_overrides,
    expiry_override,
)
from bus.security.secret_files import read_private_file
from bus.settings import Settings

__all__ = [
    "authorized_revealer",
    "cipher_from_settings",
    "identity_from_settings",
    "operator_signer",
    "security_from_settings",
]

log = logging.getLogger("bus.auth")

Clock = Callable[[], float]
WITHOUT = "BUS_AUTH=off runs without, and anyone can then speak for anyone"
VARIABLE = "BUS_ENCRYPTION_KEYS"


def security_from_settings(
    service: str, settings: Settings, *, clock: Clock = time.time
) -> MessageSecurity:
    """Return the security of a service's messages by its settings. Raise `ConfigurationError`."""
    return MessageSecurity(
        identity=identity_from_settings(service, settings, clock=clock),
        cipher=cipher_from_settings(settings),
    )


def identity_from_settings(
    service: str, settings: Settings, *, clock: Callable[[], float] = time.time
) -> ServiceIdentity | AnonymousIdentity:
    """Return the identity of a service by its settings; `ANONYMOUS` with `BUS_AUTH=off`, which is logged.

    Raises:
        ConfigurationError: A setting that authentication needs is invalid or missing.
    """
    if settings.auth == "off":
        log.warning(
            "BUS_AUTH=off: nothing is signed or checked, and anyone who reaches the broker can speak for any service"
        )
        return ANONYMOUS
    if settings.message_ttl >= MAX_PROOF_LIFETIME_SECONDS:
        raise ConfigurationError(
            f"BUS_MESSAGE_TTL is to be less than {MAX_PROOF_LIFETIME_SECONDS} (31 days): what was proven for longer all would refuse"
        )
    key = settings.key.get_secret_value() if settings.key else ""
    if not key:
        raise ConfigurationError(
            f"BUS_KEY is not set, so {service} cannot prove who it is; `bus keys new {service}` makes a key and says what to set; {WITHOUT}"
        )
    if settings.auth == "dev":
        log.warning("BUS_AUTH=dev: every service has the same secret, and can speak for any other")
        return _identity(service, shared_secret_keyring(service, key, clock=clock), settings, clock)
    if settings.jwks is None:
        raise ConfigurationError(
            f"BUS_JWKS is not set, so {service} cannot know who the others are; "
            f"set it to the jwks.json that `bus keys new` has written beside the key; {WITHOUT}"
        )
    if settings.grants is None:
        raise ConfigurationError(
            f"BUS_GRANTS is not set, so nobody may do anything; set it to a grants.toml (`bus grants --help` says what is in it); {WITHOUT}"
        )
    return _identity(
        service,
        Keyring(service, public_key_source(settings.jwks), private_key_source(key), clock=clock),
        settings,
        clock,
    )


def _identity(service: str, ring: Keyring, settings: Settings, clock: Clock) -> ServiceIdentity:
    return ServiceIdentity(
        service,
        ring,
        GrantsSource(lambda: _grants(settings), settings.grants),
        leeway=settings.clock_leeway,
        direct=settings.topology
        == "declare",  # otherwise the broker user has no right to the default exchange
        clock=clock,
    )


def _grants(settings: Settings) -> AccessPolicy:
    """By the file. A process knows the contracts that it imports, and grants of others are no fault to it."""
    return (
        load_grants(settings.grants, CATALOG, complete=False)
        if settings.grants is not None
        else AllowAll()
    )


def cipher_from_settings(settings: Settings) -> PayloadCipher:
    """By the settings. `ConfigurationError` where keys are none, are open to others, or are missing for `BUS_ENCRYPT=everything`."""
    everything = settings.encrypt == "everything"
    if settings.encryption_keys is None:
        if everything:
            raise ConfigurationError(
                f"BUS_ENCRYPT=everything takes keys; `bus keys ring` makes them, and {VARIABLE} says where they are"
            )
        return NO_ENCRYPTION
    setting = settings.encryption_keys.get_secret_value()
    text = (
        setting if setting.lstrip().startswith("{") else read_private_file(Path(setting), VARIABLE)
    )
    try:
        jwe = import_module(
            "bus.security.jwe"
        )  # loaded where it is used alone: its library takes as long as half of the bus
    except ModuleNotFoundError:
        raise ConfigurationError(
            f"{VARIABLE}: encryption needs joserfc; pip install 'trunkline[encryption]'"
        ) from None
    return PayloadCipher(jwe.read_encryption_keys(text), everything=everything)


async def operator_signer(
    settings: Settings, *, actor: str, reason: str | None, clock: Clock = time.time
) -> Countersign | None:
    """Who gives expired messages more time, by `BUS_OPERATOR_KEY`; None with `BUS_AUTH=off`. Raises `ConfigurationError`.

    `actor` and `reason`: who and why, for the record on each message.
    """
    if settings.auth == "off":
        return None
    if not (reason and reason.strip()):
        raise ConfigurationError(
            "giving expired messages more time takes a reason, which stays with them"
        )
    ring = await _operator_keyring(settings, "giving expired messages more time", clock)

    def countersign(envelope: Envelope, queue: str, expires: int) -> str | None:
        count = count_expiry_overrides(envelope) + 1
        if count > MAX_EXPIRY_OVERRIDES:
            return None
        return expiry_override(
            ring.signing_key(),
            envelope,
            queue=queue,
            actor=actor,
            reason=reason,
            expires=expires,
            count=count,
            now=clock(),
        )

    return countersign


async def authorized_revealer(settings: Settings, *, clock: Clock = time.time) -> str | None:
    """The operator who may see payloads of dead letters; None with `BUS_AUTH=off`, and with `dev` whoever has the secret.

    Raises `PermissionDenied` where the grants do not say so of them, and `ConfigurationError`.
    """
    if settings.auth == "off":
        return None
    ring = await _operator_keyring(settings, "seeing payloads", clock)
    name = ring.signing_key().key.owner
    if name is None:
        return "dev"
    if settings.grants is None:
        raise ConfigurationError(
            "BUS_GRANTS is not set, so nobody may see payloads; it names grants.toml, see `bus grants --help`"
        )
    if not load_grants(settings.grants, CATALOG, complete=False).may_operate(name, REVEAL):
        line = f'[operators.{name}] may = ["{REVEAL}"]'
        raise PermissionDenied(
            f"{name} may not see payloads of dead letters; grant it in {settings.grants}: {line}"
        )
    return name


async def _operator_keyring(settings: Settings, what: str, clock: Clock) -> Keyring:
    """The operator's keys, of which one is in the public set as an operator's."""
    setting = settings.key if settings.auth == "dev" else settings.operator_key
    secret = "" if setting is None else setting.get_secret_value()
    if not secret or (settings.auth == "on" and settings.jwks is None):
        raise ConfigurationError(
            f"{what} takes an operator's key: set BUS_OPERATOR_KEY and BUS_JWKS; `bus keys new NAME --operator` makes it"
        )
    if settings.auth == "dev":
        ring = shared_secret_keyring("", secret, clock=clock)
    else:
        ring = Keyring(
            None,
            public_key_source(settings.jwks or ""),
            private_key_source(secret, "BUS_OPERATOR_KEY"),
            role="operator",
            clock=clock,
        )
    await ring.start()
    return ring
