"""Functions that create the security objects of a service or an operator from the settings."""

import logging
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from bus.contracts.contract import CATALOG
from bus.errors import ConfigurationError
from bus.messaging.envelope import Envelope
from bus.security.anonymous import ANONYMOUS, AnonymousIdentity
from bus.security.encryption import NO_ENCRYPTION, PayloadCipher
from bus.security.grants import AllowAll, GrantsSource
from bus.security.grants_file import parse_grants, read_grants_text
from bus.security.identity import ServiceIdentity
from bus.security.jwe import read_encryption_keys
from bus.security.jwks_source import private_key_source, public_key_source
from bus.security.keyring import Keyring, shared_secret_keyring
from bus.security.message_security import MessageSecurity
from bus.security.private_keys import MIN_SECRET_BYTES
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
    "cipher_from_settings",
    "grants_source",
    "identity_from_settings",
    "operator_keyring",
    "operator_signer",
    "security_from_settings",
]

log = logging.getLogger("bus.auth")

Clock = Callable[[], float]
AUTH_OFF_HINT = (
    "Or set BUS_AUTH=off to run without authentication: any client can then act as any service."
)
"""The last sentence of each error about a missing authentication setting."""
VARIABLE = "BUS_ENCRYPTION_KEYS"
"""The name of the environment variable that sets the encryption keys."""


def security_from_settings(
    service: str, settings: Settings, *, clock: Clock = time.time
) -> MessageSecurity:
    """Return the identity and the payload cipher of a service, as its settings specify.

    Args:
        service: The name of the service.
        settings: The settings of the service.
        clock: A function that returns seconds since the epoch.

    Raises:
        ConfigurationError: A setting of authentication or encryption is invalid or missing.
    """
    if settings.debug:
        _check_debug_is_allowed(settings)
    return MessageSecurity(
        identity=identity_from_settings(service, settings, clock=clock),
        cipher=cipher_from_settings(settings),
    )


def _check_debug_is_allowed(settings: Settings) -> None:
    # `Settings` refuses the two values, but `model_copy` does not check them.
    if settings.auth == "on":
        raise ConfigurationError(
            "BUS_DEBUG must not be set with BUS_AUTH=on, because the texts of exceptions can "
            "contain confidential data. Remove BUS_DEBUG, or set BUS_AUTH=dev or BUS_AUTH=off on a "
            "development machine."
        )
    log.warning(
        "BUS_DEBUG is set: the log contains texts and tracebacks of exceptions, which can be "
        "confidential"
    )


def identity_from_settings(
    service: str, settings: Settings, *, clock: Callable[[], float] = time.time
) -> ServiceIdentity | AnonymousIdentity:
    """Return the identity of a service, as its settings specify.

    Args:
        service: The name of the service.
        settings: The settings of the service.
        clock: A function that returns seconds since the epoch.

    Returns:
        The identity. With `BUS_AUTH=off` it is `ANONYMOUS`, and a warning is logged.

    Raises:
        ConfigurationError: A setting that authentication requires is invalid or missing.
    """
    if settings.auth == "off":
        log.warning(
            "BUS_AUTH=off: messages are neither signed nor verified, "
            "and any client of the broker can act as any service"
        )
        return ANONYMOUS
    if settings.message_ttl >= MAX_PROOF_LIFETIME_SECONDS:
        raise ConfigurationError(
            f"BUS_MESSAGE_TTL must be less than {MAX_PROOF_LIFETIME_SECONDS} s (31 days), not "
            f"{settings.message_ttl:.0f} s, because receivers reject proofs of a longer lifetime. "
            "Set a lower value."
        )
    key = settings.key.get_secret_value() if settings.key else ""
    if not key:
        advice = (
            f"Set it to the same secret text of at least {MIN_SECRET_BYTES} bytes for all services"
            if settings.auth == "dev"
            else f"Create a key with `bus keys new {service}`, and set the variables that it prints"
        )
        raise ConfigurationError(
            f"BUS_KEY is not set, so {service} cannot sign messages. {advice}. {AUTH_OFF_HINT}"
        )
    if settings.auth == "dev":
        log.warning(
            "BUS_AUTH=dev: every service has the same secret, and can act as any other service"
        )
        return _build_identity(
            service, shared_secret_keyring(service, key, clock=clock), settings, clock
        )
    if settings.jwks is None:
        raise ConfigurationError(
            f"BUS_JWKS is not set, so {service} cannot verify the messages of other services. "
            "Set it to the path of the jwks.json that `bus keys new` writes beside the key. "
            f"{AUTH_OFF_HINT}"
        )
    if settings.grants is None:
        raise ConfigurationError(
            "BUS_GRANTS is not set, so no service has a permission. "
            f"Set it to the path of a grants.toml (see `bus grants --help`). {AUTH_OFF_HINT}"
        )
    return _build_identity(
        service,
        Keyring(
            service,
            public_key_source(settings.jwks),
            private_key_source(key, owner=service),
            clock=clock,
        ),
        settings,
        clock,
    )


def _build_identity(
    service: str, ring: Keyring, settings: Settings, clock: Clock
) -> ServiceIdentity:
    return ServiceIdentity(
        service,
        ring,
        grants_source(settings.grants),
        leeway=settings.clock_leeway,
        # A reply to RabbitMQ's direct reply-to is published to the default exchange. With
        # `topology=verify` the broker does not allow the service's user to publish to the default
        # exchange.
        direct=settings.topology == "declare",
        clock=clock,
    )


def grants_source(path: Path | None) -> GrantsSource:
    """Return the source of the grants in a file. Without a file, allow everything.

    The file may have grants for contracts that this process has not imported.
    """
    if path is None:
        return GrantsSource(lambda: "", lambda _: AllowAll())
    return GrantsSource(
        partial(read_grants_text, path),
        lambda text: parse_grants(text, path, CATALOG, complete=False),
        path,
    )


def cipher_from_settings(settings: Settings) -> PayloadCipher:
    """Return the cipher of a service's payloads, as its settings specify.

    Raises:
        ConfigurationError: The encryption keys are invalid, or other users can read the key file.
            Or `BUS_ENCRYPT=everything` is set without keys.
    """
    everything = settings.encrypt == "everything"
    if settings.encryption_keys is None:
        if everything:
            raise ConfigurationError(
                "BUS_ENCRYPT=everything requires encryption keys. "
                f"Create a key file with `bus keys ring`, and set {VARIABLE} to its path."
            )
        return NO_ENCRYPTION
    setting = settings.encryption_keys.get_secret_value()
    text = (
        setting if setting.lstrip().startswith("{") else read_private_file(Path(setting), VARIABLE)
    )
    return PayloadCipher(read_encryption_keys(text), everything=everything)


async def operator_signer(
    settings: Settings, *, actor: str, reason: str | None, clock: Clock = time.time
) -> Countersign | None:
    """Return a function that signs expiry overrides with the operator's key.

    An expiry override allows services to handle a message that has expired.

    Args:
        settings: The settings. `operator_key` is required.
        actor: The name of the operator or process. Each override records this name.
        reason: The reason for the overrides. Each override records this reason.
        clock: A function that returns seconds since the epoch.

    Returns:
        A function. It returns the override of one message, or None if the message already has three
        overrides. With `BUS_AUTH=off`, None is returned instead of a function, because no override
        is needed.

    Raises:
        ConfigurationError: `reason` is empty. Or the operator's key is missing or invalid.
    """
    if settings.auth == "off":
        return None
    if not (reason and reason.strip()):
        raise ConfigurationError(
            "the extension of expired messages requires a reason, which each message records. "
            "Pass `reason`, or `--reason` to `bus dead replay`."
        )
    ring = await operator_keyring(settings, "the extension of expired messages", clock)

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


async def operator_keyring(settings: Settings, operation: str, clock: Clock) -> Keyring:
    """Return the keyring with the operator's private key.

    The public key set must list the key as the key of an operator.

    Args:
        settings: The settings.
        operation: The operation that requires the key. The error message contains this text.
        clock: A function that returns seconds since the epoch.

    Raises:
        ConfigurationError: The operator's key is missing or invalid.
    """
    setting = settings.key if settings.auth == "dev" else settings.operator_key
    secret = "" if setting is None else setting.get_secret_value()
    if not secret or (settings.auth == "on" and settings.jwks is None):
        advice = (
            "With BUS_AUTH=dev, set BUS_KEY to the secret of all services."
            if settings.auth == "dev"
            else "Create one with `bus keys new NAME --operator`, and set BUS_OPERATOR_KEY and "
            "BUS_JWKS."
        )
        raise ConfigurationError(f"{operation} requires an operator's key. {advice}")
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
