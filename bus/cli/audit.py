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
from bus.runtime.operator_rights import authorized_operator
from bus.security.grants import REVEAL
from bus.settings import Settings

__all__ = ["audited", "authorize", "begin_audit", "revealing", "who"]

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
    """Check that the operator may see payloads of dead letters, as `authorize` does."""
    return authorize(settings, REVEAL, "see payloads of dead letters", "payload access denied")


def authorize(settings: Settings, right: str, action: str, refusal: str) -> dict[str, str]:
    """Check that the operator has a right.

    Args:
        settings: The settings.
        right: The right, such as `jobs.retry`.
        action: The action that the right permits, for errors: `retry jobs`.
        refusal: Text of the audit log if the operator does not have the right.

    Returns:
        Fields for the audit log that identify the operator. Empty if `BUS_AUTH` is `off`.

    Raises:
        PermissionDenied: The grants do not give the right to the operator. The audit log records
            the refusal.
        ConfigurationError: The operator's key or the grants are not set, or are invalid.
    """
    begin_audit(settings)
    try:
        operator = asyncio.run(authorized_operator(settings, right, action))
    except PermissionDenied as error:
        audited(refusal, why=str(error))
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
