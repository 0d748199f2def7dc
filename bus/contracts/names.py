"""Rules for the names of contracts, services, subscriptions and permissions."""

import re

from bus.errors import ContractError

__all__ = [
    "MAX_NAME_LENGTH",
    "MAX_PART_LENGTH",
    "MAX_VERSION",
    "NAME",
    "PART",
    "check_name",
    "check_part",
    "check_permission",
]

PART = re.compile(r"[a-z][a-z0-9-]*")
NAME = re.compile(rf"{PART.pattern}(\.{PART.pattern})+")
PERMISSION = re.compile(r"[a-z][a-z0-9:._-]*")
"""Pattern of a permission. It contains no spaces, because spaces separate the scopes of a token."""
VERSION_PART = re.compile(r"v\d+")
# A queue's name is an AMQP short string (255 bytes). A subscription's dead-letter queue has the
# longest name: <service>.events.<contract>.v<version>.<subscription>.dead
MAX_NAME_LENGTH = 100
MAX_PART_LENGTH = 60
MAX_VERSION = 9999
RESERVED_NAME = "bus"
"""Prefix of the bus's own exchanges and types. No service may have this name."""


def check_part(part: str, what: str) -> None:
    """Check the name of a service or subscription. The name becomes a part of queue names.

    Args:
        part: Name to check.
        what: Kind of the name for the error message, such as "service".

    Raises:
        ContractError: The name contains an invalid character, is too long, or is reserved.
    """
    # These error messages do not end with a full stop, because callers append text to them.
    if not PART.fullmatch(part) or len(part) > MAX_PART_LENGTH:
        raise ContractError(
            f"{part[:MAX_NAME_LENGTH]!r} is not a valid {what} name. Write at most "
            f"{MAX_PART_LENGTH} lower-case letters, digits and dashes, and begin with a letter"
        )
    if part == RESERVED_NAME:
        raise ContractError(
            f"{part!r} is not a valid {what} name, because the bus reserves it. Choose another name"
        )


def check_name(name: str, version: int, path: str) -> None:
    """Check the name and the version of a contract.

    Args:
        name: Name to check.
        version: Version to check.
        path: Import path of the class, for the error message.

    Raises:
        ContractError: The name or the version is invalid.
    """
    if not NAME.fullmatch(name) or len(name) > MAX_NAME_LENGTH:
        raise ContractError(
            f"{path}: {name!r} is not a valid contract name. Write "
            f"'<service>.<operation>' in lower-case letters, digits and dashes, at most "
            f"{MAX_NAME_LENGTH} characters."
        )
    parts = name.split(".")
    check_part(parts[0], "service")
    if any(VERSION_PART.fullmatch(part) for part in parts):
        raise ContractError(
            f"{path}: the name {name!r} contains a version. Write version= instead."
        )
    if not 1 <= version <= MAX_VERSION:
        raise ContractError(f"{path}: version must be from 1 to {MAX_VERSION}, not {version}.")


def check_permission(permission: str | None, path: str) -> None:
    """Check the name of a permission; None is valid.

    Args:
        permission: Name to check.
        path: Import path of the class, for the error message.

    Raises:
        ContractError: The name is invalid.
    """
    if permission is not None and (
        not PERMISSION.fullmatch(permission) or len(permission) > MAX_NAME_LENGTH
    ):
        raise ContractError(
            f"{path}: {permission[:MAX_NAME_LENGTH]!r} is not a valid permission. Write "
            f"lower-case letters, digits and any of ':.-_', at most {MAX_NAME_LENGTH} characters, "
            f"such as 'read:notes'."
        )
