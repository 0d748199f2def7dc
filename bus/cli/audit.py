"""Who looked at, moved or deleted messages: the logger `bus.audit`, a line on standard error for each."""

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
log.setLevel(logging.INFO)  # whatever BUS_LOG_LEVEL says of the rest


def begin_audit(settings: Settings) -> None:
    """From now on what is audited is logged, and of the rest of the bus nothing: a command's own words say how it ended."""
    configure_logging(settings)
    logging.getLogger("bus").setLevel(logging.CRITICAL)


def audited(action: str, **facts: object) -> None:
    """Note what was done, by whom and where."""
    log.info(action, extra={"who": who(), **facts})


def revealing(settings: Settings) -> dict[str, str]:
    """Let nobody see payloads who may not; for the record the operator in whose name, where there is one.

    Raises `PermissionDenied`, of which there is a record, too, and `ConfigurationError`.
    """
    begin_audit(settings)
    try:
        operator = asyncio.run(authorized_revealer(settings))
    except PermissionDenied as error:
        audited("payloads refused", why=str(error))
        raise
    return {} if operator is None else {"operator": operator}


def who() -> str:
    """`user@host`, as the operating system knows them, and who was that user before sudo."""
    try:
        user = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # a container's user that has no name
        user = f"uid {os.getuid()}"
    caller = os.environ.get("SUDO_USER")
    return f"{user}@{socket.gethostname()}" + (f" (sudo by {caller})" if caller else "")
