"""Options of `bus broker`, and the checks of their values."""

import sys
from codecs import BOM_UTF8
from pathlib import Path
from typing import Annotated

import typer

from bus.cli.options import path
from bus.errors import ConfigurationError
from bus.messaging.utf8_text import NotUtf8, decode_utf8
from bus.operations.brokers.broker_options import (
    MAX_PASSWORD_LENGTH,
    MAX_PORT,
    MIN_PORT,
    is_password,
)
from bus.security.secret_files import read_trusted_file

__all__ = [
    "Keep",
    "ManagementPort",
    "Password",
    "PasswordFile",
    "Port",
    "check_ports",
    "select_password",
]

STDIN = "-"
MAX_LINE_BYTES = len(BOM_UTF8) + MAX_PASSWORD_LENGTH + len("\r\n")
"""Maximum bytes of the line with a password. A longer line has a longer password."""

Port = Annotated[
    int | None,
    typer.Option(
        min=MIN_PORT,
        max=MAX_PORT,
        metavar="PORT",
        show_default=False,
        help="Port for AMQP. Default: a free port, or with --keep the port of the last run.",
    ),
]
ManagementPort = Annotated[
    int | None,
    typer.Option(
        min=MIN_PORT,
        max=MAX_PORT,
        metavar="PORT",
        show_default=False,
        help="Port of the management UI and API. Default: as for --port.",
    ),
]
Password = Annotated[
    str | None,
    typer.Option(
        metavar="PASSWORD",
        show_default=False,
        help="Password of the user 'bus'. Other users of this machine can see it in the list of "
        "processes. With '-', the password is read from standard input. Default: a random "
        "password, or with --keep the password of the last run.",
    ),
]
PasswordFile = Annotated[
    Path | None,
    typer.Option(
        metavar="PATH",
        parser=path,
        show_default=False,
        help="Read the password from the only line of a file.",
    ),
]
Keep = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        parser=path,
        show_default=False,
        help="Keep queues, messages, ports and password in this directory for the next start. "
        "Only one broker can use a directory at a time. A container cannot keep its data.",
    ),
]


def check_ports(port: int | None, management_port: int | None) -> None:
    """Refuse the same port for AMQP and for the management API."""
    if port is not None and port == management_port:
        raise typer.BadParameter("--port and --management-port must be different ports.")


def select_password(password: str | None, file: Path | None) -> str | None:
    """Return the password in the options, in the file, or on standard input.

    Raises:
        typer.BadParameter: Two passwords are given, or the password cannot be used.
        ConfigurationError: The file cannot be read, or standard input is not UTF-8 text.
    """
    if password is not None and file is not None:
        raise typer.BadParameter("--password and --password-file cannot be used together.")
    if file is not None:
        text = read_trusted_file(file, str(file), MAX_LINE_BYTES, accepts_pipe=True)
        return check_password(text.removesuffix("\n").removesuffix("\r"), "--password-file")
    if password != STDIN:
        return password if password is None else check_password(password, "--password")
    if sys.stdin.isatty():
        return check_password(typer.prompt("password", hide_input=True, err=True), "--password")
    try:
        line = decode_utf8(sys.stdin.buffer.readline(MAX_LINE_BYTES))
    except NotUtf8 as error:
        raise ConfigurationError(f"standard input {error}.") from None
    return check_password(line.removesuffix("\n").removesuffix("\r"), "--password")


def check_password(password: str, option: str) -> str:
    """Return the password, if a URL and the broker can represent it."""
    if is_password(password):
        return password
    raise typer.BadParameter(
        f"{option}: the password must have 1 to {MAX_PASSWORD_LENGTH} letters, digits, spaces and "
        "punctuation of ASCII. Choose another password."
    )
