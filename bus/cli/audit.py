"""Audit log of the operators' access to messages.

The logger is `bus.audit`. It writes one line per action to standard error.
"""

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
    """Log only audit records from now on.

    The bus's other log records are suppressed, because the command prints its result itself.
    """
    # The audit log does not depend on BUS_LOG_FORMAT=none, which is for services.
    is_unset = settings.log_format == "none"
    configure_logging(settings.model_copy(update={"log_format": "auto"}) if is_unset else settings)
    logging.getLogger("bus").setLevel(logging.CRITICAL)


def audited(action: str, **facts: object) -> None:
    """Log an action, the user that performed it, and the host."""
    log.info(action, extra={"who": who(), **facts})


def revealing(settings: Settings) -> dict[str, str]:
    """Check that the operator may see payloads.

    Returns:
        Fields for the audit log that identify the operator. Empty if `BUS_AUTH` is `off`.

    Raises:
        PermissionDenied: The grants do not allow the operator to see payloads. The audit log
            records the refusal.
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
    """Return `user@host` of this process. If `sudo` started it, add the user that ran `sudo`."""
    try:
        user = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # a user in a container may have no name
        user = f"uid {os.getuid()}"
    caller = os.environ.get("SUDO_USER")
    return f"{user}@{socket.gethostname()}" + (f" (sudo by {caller})" if caller else "")
