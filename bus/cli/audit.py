"""Audit log of access to messages: the logger `bus.audit`, a line on standard error per action."""

import asyncio
import logging
import os
import pwd
import socket

from bus.errors import PermissionDenied
from bus.operations.logging import configure_logging
from bus.runtime.security import authorized_revealer
from bus.settings import Settings

__all__ = ["audited", "begin_audit", "revealing", "who"]

log = logging.getLogger("bus.audit")
# The audit log does not depend on BUS_LOG_LEVEL.
log.setLevel(logging.INFO)


def begin_audit(settings: Settings) -> None:
    """Log only audit records from now on, because the command itself prints how it ended."""
    configure_logging(settings)
    logging.getLogger("bus").setLevel(logging.CRITICAL)


def audited(action: str, **facts: object) -> None:
    """Log an action, with the user and host that performed it."""
    log.info(action, extra={"who": who(), **facts})


def revealing(settings: Settings) -> dict[str, str]:
    """Check that the operator may see payloads.

    Returns:
        The fields that identify the operator in the audit log, empty with `BUS_AUTH=off`.

    Raises:
        PermissionDenied: The grants do not allow it. The refusal is logged, too.
        ConfigurationError: The operator's key or the grants are not set, or are invalid.
    """
    begin_audit(settings)
    try:
        operator = asyncio.run(authorized_revealer(settings))
    except PermissionDenied as error:
        audited("payload access denied", why=str(error))
        raise
    return {} if operator is None else {"operator": operator}


def who() -> str:
    """Return `user@host`, and after `sudo` also the user that called it."""
    try:
        user = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # a user in a container may have no name
        user = f"uid {os.getuid()}"
    caller = os.environ.get("SUDO_USER")
    return f"{user}@{socket.gethostname()}" + (f" (sudo by {caller})" if caller else "")
