"""The check of an operator's right to an operation, such as the retry of jobs."""

import time
from collections.abc import Callable

from bus.contracts.contract import CATALOG
from bus.errors import ConfigurationError, PermissionDenied
from bus.runtime.security import operator_keyring
from bus.security.grants import REVEAL
from bus.security.grants_file import load_grants
from bus.settings import Settings

__all__ = ["authorized_operator", "authorized_revealer"]

Clock = Callable[[], float]


async def authorized_operator(
    settings: Settings, right: str, action: str, *, clock: Clock = time.time
) -> str | None:
    """Check that the operator has a right.

    Args:
        settings: The settings. `operator_key` and `grants` are required with `BUS_AUTH=on`.
        right: The right, one of `bus.security.grants.OPERATIONS`.
        action: The action that the right permits, for errors: `retry jobs`.
        clock: A function that returns seconds since the epoch.

    Returns:
        The name of the operator. With `BUS_AUTH=dev` the name is "dev", because all operators have
        the same secret. With `BUS_AUTH=off` the result is None.

    Raises:
        PermissionDenied: The grants do not give the right to the operator.
        ConfigurationError: The operator's key or the grants are missing or invalid.
    """
    if settings.auth == "off":
        return None
    ring = await operator_keyring(settings, f"the right to {action}", clock)
    name = ring.signing_key().key.owner
    if name is None:
        return "dev"
    if settings.grants is None:
        raise ConfigurationError(
            f"BUS_GRANTS is not set, so no operator may {action}. "
            "Set it to the path of a grants.toml (see `bus grants --help`)."
        )
    if not load_grants(settings.grants, CATALOG, complete=False).may_operate(name, right):
        line = f'[operators.{name}] may = ["{right}"]'
        raise PermissionDenied(f"{name} may not {action}. Grant it in {settings.grants}: {line}")
    return name


async def authorized_revealer(settings: Settings, *, clock: Clock = time.time) -> str | None:
    """Check that the operator may see the payloads of dead letters, as `authorized_operator`."""
    return await authorized_operator(settings, REVEAL, "see payloads of dead letters", clock=clock)
