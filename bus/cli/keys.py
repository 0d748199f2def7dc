"""`bus keys`: manage the keys that sign and encrypt messages."""

import json
import secrets
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.markup import escape
from rich.table import Table

from bus.cli.options import AsJson, duration, moment, path
from bus.cli.output import print_json, say, table_console
from bus.errors import ConfigurationError
from bus.messaging.escaped_text import one_line
from bus.security.jwe import new_encryption_key
from bus.security.key_directory import KeyDirectory
from bus.security.key_set import read_key_set
from bus.security.keyring import REFRESH_INTERVAL_SECONDS
from bus.security.keys import Key, Role, read_jwk

__all__ = ["command"]

command = typer.Typer(
    no_args_is_help=True,
    help="Create, rotate and revoke the keys that sign and encrypt messages.",
)

LEAD_SECONDS = 2 * REFRESH_INTERVAL_SECONDS
"""Default number of seconds from a key's publication to its first use.

In this time every service reads the public keys again, and the owner reads its key file again.
"""
OVERLAP_SECONDS = 300
"""Seconds from the first use of a new key until the previous key is retired.

In this time the owner may still sign with the previous key, for example if its clock is slow.
"""

Directory = Annotated[
    Path,
    typer.Option(
        "--directory", metavar="DIR", parser=path, help="The directory that holds the keys."
    ),
]
Kid = Annotated[
    str,
    typer.Argument(
        metavar="KID", show_default=False, help="The key's id, as `bus keys list` shows it."
    ),
]
DEFAULT_DIRECTORY = Path("keys")


@command.callback()
def group() -> None:
    """Create, rotate and revoke the keys that sign and encrypt messages.

    The keys are in files of one directory. NAME.key has the private keys of one service, and only
    this service may read it. jwks.json has the public keys of all services, and every service reads
    it. encryption.json has the keys that encrypt payloads. All services that send or read encrypted
    payloads need it.
    """


@command.command()
def new(
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="SERVICE",
            show_default=False,
            help="Names of services, or of operators with --operator.",
        ),
    ],
    *,
    directory: Directory = DEFAULT_DIRECTORY,
    algorithm: Annotated[
        Literal["EdDSA", "ES256"],
        typer.Option(
            "--algorithm", help="EdDSA is Ed25519. ES256 is P-256, for users that must use P-256."
        ),
    ] = "EdDSA",
    operator: Annotated[
        bool,
        typer.Option(
            "--operator",
            help="Create the key of an operator: a person that may see payloads of dead letters, "
            "or extend expired dead letters.",
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Create the first key of each named service. The keys are valid immediately."""
    keys = KeyDirectory(directory)
    role: Role = "operator" if operator else "service"
    owners = list(dict.fromkeys(names))
    for name in owners:
        # Check all names first. If one of the names is invalid, no key is created.
        keys.check_new(name)
    for name in owners:
        key = keys.new(name, key_id(name), role=role, algorithm=algorithm)
        if as_json:
            print_json(
                {
                    "kid": key["kid"],
                    "of": name,
                    "key": str(keys.key_file(name)),
                    "jwks": str(keys.set_file),
                },
                compact=True,
            )
            continue
        say(f"created {key['kid']}")
        setting = "BUS_OPERATOR_KEY" if operator else "BUS_KEY"
        say(f"  {setting}={keys.key_file(name)}    (secret: only {name} may read it)")
    if not as_json:
        say(f"  BUS_JWKS={keys.set_file}    (public: every service reads it)")


@command.command("list")
def list_(*, directory: Directory = DEFAULT_DIRECTORY, as_json: AsJson = False) -> None:
    """List the public keys, with the state of each."""
    jwks = KeyDirectory(directory).public()
    now, shared = time.time(), _shared_ids(jwks)
    if as_json:
        print_json(
            [
                {
                    **{name: jwk.get(name) for name in JSON_MEMBERS},
                    "state": state(jwk, now),
                    "shares_id": jwk.get("kid") in shared,
                }
                for jwk in jwks
            ],
            compact=True,
        )
        return
    if not jwks:
        say(f"{directory} contains no keys. Create the first with `bus keys new SERVICE`.")
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("key", "of", "algorithm"):
        table.add_column(heading, no_wrap=heading == "key", overflow="fold")
    table.add_column("state", overflow="fold")
    for jwk in jwks:
        owner = f"{jwk.get('iss')}{' (operator)' if jwk.get('role') == 'operator' else ''}"
        warning = "; another key has this id" if jwk.get("kid") in shared else ""
        about = f"{state(jwk, now)}{format_times(jwk)}{warning}"
        cells = (str(jwk.get("kid")), owner, str(jwk.get("alg")), about)
        table.add_row(*(escape(one_line(cell)) for cell in cells))
    table_console().print(table)
    for text in read_key_set(json.dumps({"keys": jwks})).copies:
        say(f"warning: {text}")


def _shared_ids(jwks: list[dict[str, Any]]) -> set[object]:
    """Return the ids that several keys have."""
    ids = Counter(str(jwk.get("kid")) for jwk in jwks)
    return {kid for kid, number in ids.items() if number > 1}


JSON_MEMBERS = ("kid", "iss", "role", "alg", "not_before", "retired_at", "compromised_since")
"""Members of a JWK that `bus keys list --json` prints."""


@command.command()
def rotate(
    name: Annotated[
        str, typer.Argument(metavar="SERVICE", show_default=False, help="The key's owner.")
    ],
    *,
    directory: Directory = DEFAULT_DIRECTORY,
    lead: Annotated[
        float | None,
        typer.Option(
            "--lead",
            parser=duration,
            metavar="TIME",
            help="Time until the first use of the new key, for example 90s or 15m. Default: 2m.",
        ),
    ] = None,
    now: Annotated[
        bool,
        typer.Option(
            "--now",
            help="Use the new key now. Services that have not read it yet refuse its messages.",
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Create the next key of a service, publish it now, and use it after the lead time.

    The previous key is retired 5 minutes after the first use of the new key. No restart is needed,
    because services read their key files again. Old public keys stay in jwks.json, because messages
    that the old keys signed may still be in a queue.
    """
    begins = int(time.time() + (0 if now else LEAD_SECONDS if lead is None else lead))
    retires = begins + OVERLAP_SECONDS
    key = KeyDirectory(directory).rotate(name, key_id(name), begins=begins, retires=retires)
    if as_json:
        print_json(
            {
                "kid": key["kid"],
                "of": name,
                "used_from": begins,
                "before_retired_at": retires,
            },
            compact=True,
        )
        return
    say(
        f"created {key['kid']}: it signs from {format_time(begins)}; "
        f"the previous key can sign until {format_time(retires)}"
    )


@command.command()
def retire(kid: Kid, *, directory: Directory = DEFAULT_DIRECTORY) -> None:
    """Stop a key from signing. Messages that it has already signed stay valid until they expire."""
    KeyDirectory(directory).update(kid, retired_at=int(time.time()))
    say(f"{kid} is retired. Every service applies this within {REFRESH_INTERVAL_SECONDS:.0f} s.")


@command.command()
def revoke(
    kid: Kid,
    *,
    directory: Directory = DEFAULT_DIRECTORY,
    since: Annotated[
        int | None,
        typer.Option(
            "--since",
            metavar="TIME",
            parser=moment,
            show_default=False,
            help="Earliest time at which another person may have had the key: 2h (ago).",
        ),
    ] = None,
) -> None:
    """Revoke a stolen key: services then refuse all messages that it signed.

    With --since, services still accept messages with an earlier signing time. A thief can write any
    signing time into a message. Therefore use --since only if you are sure that the key was not
    stolen before that time.
    """
    KeyDirectory(directory).update(kid, compromised_since=max(0, (since or 0) // 1000))
    say(
        f"{kid} is revoked. Every service applies this within {REFRESH_INTERVAL_SECONDS:.0f} s. "
        "Create the next key of its service with `bus keys rotate SERVICE --now`."
    )


@command.command()
def ring(
    *,
    directory: Directory = DEFAULT_DIRECTORY,
    add: Annotated[
        bool,
        typer.Option("--add", help="Create another key. It only decrypts until --use selects it."),
    ] = False,
    use: Annotated[
        str | None,
        typer.Option(
            "--use", metavar="KID", show_default=False, help="Encrypt with this key from now on."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Create the key that encrypts payloads, or show the existing keys.

    All services that send or read encrypted contracts share these keys. To change the key, create
    a new key with --add, restart every service with the new file, and select the new key with
    --use. Delete an old key from the file only when no queue, including the dead-letter queues,
    holds a message that this key encrypted.
    """
    keys = KeyDirectory(directory)
    if use is not None:
        keys.select_encryption_key(use)
    if add or not keys.encryption_keys():
        keys.add_encryption_key(new_encryption_key(key_id("ring")))
        file = keys.encryption_keys_file
        say(f"BUS_ENCRYPTION_KEYS={file}    (secret: it decrypts all payloads)")
    rows = [
        {"kid": key.get("kid"), "encrypts": not number}
        for number, key in enumerate(keys.encryption_keys())
    ]
    if as_json:
        print_json(rows, compact=True)
        return
    for row in rows:
        purpose = "encrypts and decrypts" if row["encrypts"] else "decrypts"
        table_console().print(f"{row['kid']}: {purpose}", markup=False, highlight=False)


@command.command()
def jwks(*, directory: Directory = DEFAULT_DIRECTORY) -> None:
    """Print the public keys of all services. Publish the output at the location in BUS_JWKS.

    The command fails if services would ignore one of the keys.
    """
    file = KeyDirectory(directory).set_file
    keys = KeyDirectory(directory).public()
    if not keys:
        raise ConfigurationError(
            f"{file} contains no keys. Create the first with `bus keys new SERVICE`."
        )
    key_set = {"keys": keys}
    read = read_key_set(json.dumps(key_set))
    if problems := read.faults + read.shared_ids:
        raise ConfigurationError(f"{file}: {'; '.join(problems)}")
    print_json(key_set, compact=False)


def key_id(name: str) -> str:
    """Return a new key id. It consists of the owner, the date and a random suffix."""
    return f"{name}-{datetime.now(UTC):%Y%m%d}-{secrets.token_hex(3)}"


def state(jwk: dict[str, Any], now: float) -> str:
    """Return the state of a public key at the time `now`, such as `signs` or `revoked`."""
    try:
        key: Key = read_jwk(jwk)
    except ConfigurationError as error:
        return f"invalid: {error}"
    if key.compromised_since is not None and key.compromised_since <= now:
        return "revoked"
    if key.retired_at is not None and key.retired_at <= now:
        return "retired: verifies, and does not sign"
    if key.not_before > now:
        return "published: signs later"
    return "signs"


def format_times(jwk: dict[str, Any]) -> str:
    """Return the times at which the key's state changes, each with a semicolon before it."""
    labels = {
        "not_before": "from",
        "retired_at": "retired from",
        "compromised_since": "compromised since",
    }
    return "".join(
        f"; {label} {format_time(jwk.get(name))}" for name, label in labels.items() if jwk.get(name)
    )


def format_time(seconds: object) -> str:
    """Return a date and time in UTC, or an empty string if the time is not set."""
    return (
        f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S}Z"
        if isinstance(seconds, int | float) and seconds
        else ""
    )
