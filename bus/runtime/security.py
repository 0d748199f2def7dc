"""Operators: who they are, by `BUS_OPERATOR_KEY`, and what they do in that name."""

import time
from collections.abc import Callable

from bus.contracts.contract import CATALOG
from bus.errors import ConfigurationError, PermissionDenied
from bus.messaging.envelope import Envelope
from bus.operations.dead_letters.replay import Countersign
from bus.security.grants import REVEAL, load_grants
from bus.security.keyring import Keyring, dev_ring, private_keys, public_source
from bus.security.tokens import MOST_REPLAYS, counter_proof, counter_proofs_so_far
from bus.settings import Settings

__all__ = ["operator_of", "revealer_of"]

Clock = Callable[[], float]


async def operator_of(settings: Settings, *, actor: str, reason: str | None, clock: Clock = time.time) -> Countersign | None:
    """Who gives expired messages more time, by `BUS_OPERATOR_KEY`; None with `BUS_AUTH=off`. Raises `ConfigurationError`.

    `actor` and `reason`: who and why, for the record on each message.
    """
    if settings.auth == "off":
        return None
    if not (reason and reason.strip()):
        raise ConfigurationError("giving expired messages more time takes a reason, which stays with them")
    ring = await _ring(settings, "giving expired messages more time", clock)

    def countersign(envelope: Envelope, queue: str, expires: int) -> str | None:
        count = counter_proofs_so_far(envelope) + 1
        if count > MOST_REPLAYS:
            return None
        return counter_proof(ring.signing(), envelope, queue=queue, actor=actor, reason=reason, expires=expires, count=count, now=clock())

    return countersign


async def revealer_of(settings: Settings, *, clock: Clock = time.time) -> str | None:
    """The operator who may see payloads of dead letters; None with `BUS_AUTH=off`, and with `dev` whoever has the secret.

    Raises `PermissionDenied` where the grants do not say so of them, and `ConfigurationError`.
    """
    if settings.auth == "off":
        return None
    ring = await _ring(settings, "seeing payloads", clock)
    name = ring.signing().key.owner
    if name is None:
        return "dev"
    if settings.grants is None:
        raise ConfigurationError("BUS_GRANTS is not set, so nobody may see payloads; it names grants.toml, see `bus grants --help`")
    if not load_grants(settings.grants, CATALOG, complete=False).may_operate(name, REVEAL):
        line = f'[operators.{name}] may = ["{REVEAL}"]'
        raise PermissionDenied(f"{name} may not see payloads of dead letters; grant it in {settings.grants}: {line}")
    return name


async def _ring(settings: Settings, what: str, clock: Clock) -> Keyring:
    """The operator's keys, of which one is in the public set as an operator's."""
    setting = settings.key if settings.auth == "dev" else settings.operator_key
    secret = "" if setting is None else setting.get_secret_value()
    if not secret or (settings.auth == "on" and settings.jwks is None):
        raise ConfigurationError(
            f"{what} takes an operator's key: set BUS_OPERATOR_KEY and BUS_JWKS; `bus keys new NAME --operator` makes it"
        )
    if settings.auth == "dev":
        ring = dev_ring("", secret, clock=clock)
    else:
        ring = Keyring(None, public_source(settings.jwks or ""), private_keys(secret, "BUS_OPERATOR_KEY"), role="operator", clock=clock)
    await ring.start()
    return ring
