"""`bus keys`: the keys by which services prove who they are."""

import json
import secrets
import time
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.table import Table

from bus.cli.options import duration, moment
from bus.cli.output import print_json, say, table_console
from bus.errors import ConfigurationError
from bus.security.key_directory import KeyDirectory
from bus.security.keyring import REFRESH_INTERVAL_SECONDS
from bus.security.keys import Key, Role, public_keys, read_jwk

__all__ = ["command"]

command = typer.Typer(
    no_args_is_help=True,
    help="Make, rotate and revoke the keys by which services prove who they are.",
)

LEAD = 2 * REFRESH_INTERVAL_SECONDS
"""Seconds from a key's publication to its first use: everyone has looked at the set by then, and the service at its own keys."""
OVERLAP = 300
"""Seconds for which the key before may still sign: a process that was late to look, or whose clock is."""

Directory = Annotated[Path, typer.Option("--directory", metavar="DIR", help="Where the keys are.")]
AsJson = Annotated[bool, typer.Option("--json", help="On one line, for programs.")]
Kid = Annotated[
    str,
    typer.Argument(
        metavar="KID", show_default=False, help="A key's id, as `bus keys list` shows it."
    ),
]
HERE = Path("keys")


@command.callback()
def group() -> None:
    """Make, rotate and revoke the keys by which services prove who they are.

    They are kept in a directory: NAME.key holds the private keys of one service, which it alone may read, and
    jwks.json the public keys of all, which everyone needs. encryption.json holds the keys that encrypt payloads, for all who read them.
    """


@command.command()
def new(
    names: Annotated[
        list[str],
        typer.Argument(metavar="SERVICE", show_default=False, help="Services, or an operator."),
    ],
    *,
    directory: Directory = HERE,
    algorithm: Annotated[
        Literal["EdDSA", "ES256"],
        typer.Option("--algorithm", help="Ed25519, or P-256 for those who need it."),
    ] = "EdDSA",
    operator: Annotated[
        bool,
        typer.Option(
            "--operator",
            help="An operator's, who sees payloads of dead letters, or gives expired ones more time.",
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Make the first key of a service, valid now."""
    keys = KeyDirectory(directory)
    role: Role = "operator" if operator else "service"
    owners = list(dict.fromkeys(names))
    for name in owners:
        keys.check_new(name)  # before the first is made: all, or none
    for name in owners:
        made = keys.new(name, key_id(name), role=role, algorithm=algorithm)
        if as_json:
            print_json(
                {
                    "kid": made["kid"],
                    "of": name,
                    "key": str(keys.key_file(name)),
                    "jwks": str(keys.set_file),
                },
                compact=True,
            )
            continue
        say(f"made {made['kid']}")
        say(
            f"  {'BUS_OPERATOR_KEY' if operator else 'BUS_KEY'}={keys.key_file(name)}    (keep it secret: {name} alone reads it)"
        )
    if not as_json:
        say(f"  BUS_JWKS={keys.set_file}    (public: everyone reads it)")


@command.command("list")
def list_(*, directory: Directory = HERE, as_json: AsJson = False) -> None:
    """List the public keys, and what each is good for now."""
    jwks = KeyDirectory(directory).public()
    now = time.time()
    if as_json:
        print_json(
            [
                {**{name: each.get(name) for name in SHOWN}, "state": state(each, now)}
                for each in jwks
            ],
            compact=True,
        )
        return
    if not jwks:
        say(f"there are no keys in {directory}; `bus keys new SERVICE` makes the first")
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("key", "of", "algorithm"):
        table.add_column(heading, no_wrap=heading == "key", overflow="fold")
    table.add_column("state", overflow="fold")
    for each in jwks:
        owner = f"{each.get('iss')}{' (operator)' if each.get('role') == 'operator' else ''}"
        table.add_row(
            str(each.get("kid")), owner, str(each.get("alg")), f"{state(each, now)}{times(each)}"
        )
    table_console().print(table)


SHOWN = ("kid", "iss", "role", "alg", "not_before", "retired_at", "compromised_since")


@command.command()
def rotate(
    name: Annotated[str, typer.Argument(metavar="SERVICE", show_default=False, help="Whose.")],
    *,
    directory: Directory = HERE,
    lead: Annotated[
        float | None,
        typer.Option(
            "--lead",
            parser=duration,
            metavar="TIME",
            show_default="2m",
            help="From now to the new key's first use: 90s, 15m.",
        ),
    ] = None,
    now: Annotated[
        bool,
        typer.Option(
            "--now", help="Use it at once; what it signs may be refused until everyone has it."
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Make the next key of a service: published now, used in a while, and the one before retired a little later.

    The service looks at its key file by itself, and nothing has to be restarted. Old keys stay in the set, since what they
    signed may still wait in a queue.
    """
    begins = int(time.time() + (0 if now else LEAD if lead is None else lead))
    made = KeyDirectory(directory).rotate(
        name, key_id(name), begins=begins, retires=begins + OVERLAP
    )
    if as_json:
        print_json(
            {
                "kid": made["kid"],
                "of": name,
                "used_from": begins,
                "before_retired_at": begins + OVERLAP,
            },
            compact=True,
        )
        return
    say(
        f"made {made['kid']}: used from {shown(begins)} on; the key before signs nothing after {shown(begins + OVERLAP)}"
    )


@command.command()
def retire(kid: Kid, *, directory: Directory = HERE) -> None:
    """Let a key sign nothing from now on. What it signed before stays good until that expires."""
    KeyDirectory(directory).update(kid, retired_at=int(time.time()))
    say(f"{kid} is retired; everyone knows in {REFRESH_INTERVAL_SECONDS:.0f} s")


@command.command()
def revoke(
    kid: Kid,
    *,
    directory: Directory = HERE,
    since: Annotated[
        int | None,
        typer.Option(
            "--since",
            metavar="TIME",
            parser=moment,
            show_default=False,
            help="Since when it may be known to others: 2h (ago).",
        ),
    ] = None,
) -> None:
    """Refuse what a stolen key signed: all of it, or with --since what says that it was signed then or later.

    A thief can write any time into what he signs. So --since is for a key of which you know that nobody had it before, and
    whose older messages you want.
    """
    KeyDirectory(directory).update(kid, compromised_since=0 if since is None else since // 1000)
    say(
        f"{kid} is revoked; everyone knows in {REFRESH_INTERVAL_SECONDS:.0f} s. Give its service another: bus keys rotate SERVICE --now"
    )


@command.command()
def ring(
    *,
    directory: Directory = HERE,
    add: Annotated[
        bool,
        typer.Option("--add", help="Make another key, which decrypts and does not encrypt yet."),
    ] = False,
    use: Annotated[
        str | None,
        typer.Option(
            "--use", metavar="KID", show_default=False, help="Let this key encrypt from now on."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make the key that encrypts payloads, or show which there are.

    Whoever sends or reads encrypted contracts has the same ring. A new key is added first, and used when every service has been
    started with it. A key can be deleted from the ring when nothing that it encrypted waits any more, dead letters included.
    """
    keys = KeyDirectory(directory)
    if use is not None:
        keys.select_encryption_key(use)
    if add or not keys.encryption_keys():
        keys.add_encryption_key(_new_encryption_key(key_id("ring")))
        say(
            f"BUS_ENCRYPTION_KEYS={keys.encryption_keys_file}    (keep it secret: who has it reads what is encrypted)"
        )
    held = [
        {"kid": each.get("kid"), "encrypts": not number}
        for number, each in enumerate(keys.encryption_keys())
    ]
    if as_json:
        print_json(held, compact=True)
        return
    for key in held:
        use_ = "encrypts and decrypts" if key["encrypts"] else "decrypts"
        table_console().print(f"{key['kid']}: {use_}", markup=False, highlight=False)


def _new_encryption_key(kid: str) -> dict[str, str]:
    try:
        made: dict[str, str] = import_module("bus.security.jwe").new_encryption_key(kid)
    except ModuleNotFoundError:
        raise ConfigurationError(
            "encryption needs joserfc; pip install 'trunkline[encryption]'"
        ) from None
    return made


@command.command()
def jwks(*, directory: Directory = HERE) -> None:
    """Print the public keys, to be published where BUS_JWKS looks. A key that would not count is an error."""
    text = KeyDirectory(directory).set_file
    listed = KeyDirectory(directory).public()
    if not listed:
        raise ConfigurationError(
            f"there are no keys in {text}; `bus keys new SERVICE` makes the first"
        )
    whole = {"keys": listed}
    _, faults = public_keys(as_text(whole))
    if faults:
        raise ConfigurationError(f"{text}: {'; '.join(faults)}")
    print_json(whole, compact=False)


def as_text(value: object) -> str:
    """As the file has it."""
    return json.dumps(value)


def key_id(name: str) -> str:
    """Whose, when it was made, and which."""
    return f"{name}-{datetime.now(UTC):%Y%m%d}-{secrets.token_hex(3)}"


def state(jwk: dict[str, Any], now: float) -> str:
    """What a key is good for now."""
    try:
        key: Key = read_jwk(jwk)
    except ConfigurationError as error:
        return f"does not count: {error}"
    if key.compromised_since is not None and key.compromised_since <= now:
        return "revoked"
    if key.retired_at is not None and key.retired_at <= now:
        return "retired: checks, and signs no more"
    if key.not_before > now:
        return "published: signs later"
    return "signs"


def times(jwk: dict[str, Any]) -> str:
    """What changes what a key is good for, and when."""
    words = {"not_before": "from", "retired_at": "retired", "compromised_since": "compromised"}
    return "".join(
        f"; {word} {shown(jwk.get(name))}" for name, word in words.items() if jwk.get(name)
    )


def shown(moment_: object) -> str:
    """A time of day in UTC, or nothing."""
    return (
        f"{datetime.fromtimestamp(moment_, UTC):%Y-%m-%d %H:%M:%S}Z"
        if isinstance(moment_, int | float) and moment_
        else ""
    )
