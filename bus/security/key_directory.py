"""A directory of keys: `<owner>.key` with the private ones of each owner, and `jwks.json` with everybody's public ones."""

import json
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from fcntl import LOCK_EX, flock
from pathlib import Path
from typing import Any

from bus.errors import AlreadyExists, ConfigurationError, NotFound
from bus.messaging.suggestions import did_you_mean
from bus.security.keys import Algorithm, Role, read_jwk
from bus.security.private_keys import generate, read_private

__all__ = ["ENCRYPTION_KEYS_FILENAME", "JWKS_FILENAME", "KeyDirectory"]

JWKS_FILENAME, ENCRYPTION_KEYS_FILENAME = "jwks.json", "encryption.json"
OWNER = re.compile(r"[a-z][a-z0-9-]{0,59}")
Jwk = dict[str, Any]


@dataclass(frozen=True, slots=True)
class KeyDirectory:
    """Where an operator keeps keys. Each change is whole or not at all, and of two at a time one waits for the other."""

    path: Path

    @property
    def set_file(self) -> Path:
        """The public keys: what `BUS_JWKS` names, or what is put where that looks."""
        return self.path / JWKS_FILENAME

    @property
    def encryption_keys_file(self) -> Path:
        """The keys that encrypt payloads: what `BUS_ENCRYPTION_KEYS` names."""
        return self.path / ENCRYPTION_KEYS_FILENAME

    def key_file(self, owner: str) -> Path:
        """The private keys of `owner`: what `BUS_KEY` names."""
        return self.path / f"{owner}.key"

    def public(self) -> list[Jwk]:
        """The public keys as they are written; none where there is no set yet. `ConfigurationError` where it is none."""
        try:
            text = self.set_file.read_text(encoding="utf-8")
        except FileNotFoundError:
            return []
        except (OSError, UnicodeDecodeError):
            raise ConfigurationError(f"{self.set_file} cannot be read") from None
        try:
            keys = json.loads(text)["keys"]
            if not isinstance(keys, list) or not all(isinstance(each, dict) for each in keys):
                raise TypeError  # noqa: TRY301 - as what it is when it is no object
        except (ValueError, TypeError, KeyError):
            raise ConfigurationError(f"{self.set_file} is no JSON Web Key Set") from None
        return keys

    def check_new(self, owner: str) -> None:
        """`ConfigurationError` for what is no name, `AlreadyExists` for who has keys: those are rotated."""
        if not OWNER.fullmatch(owner):
            raise ConfigurationError(
                f"{owner[:60]!r} is no name of a service or operator; write lower-case letters, digits and dashes, at most 60"
            )
        if self.key_file(owner).exists() or any(each.get("iss") == owner for each in self.public()):
            raise AlreadyExists(
                f"{owner} has keys in {self.path}; `bus keys rotate {owner}` makes the next"
            )

    def new(
        self,
        owner: str,
        kid: str,
        *,
        role: Role = "service",
        algorithm: Algorithm = "EdDSA",
        **times: int,
    ) -> Jwk:
        """A first key of `owner`; its public half. Raises as `check_new` does."""
        with self._locked():
            self.check_new(owner)
            return self._add(owner, kid, role, algorithm, times)

    def rotate(
        self, owner: str, kid: str, *, begins: int, retires: int, algorithm: Algorithm | None = None
    ) -> Jwk:
        """The next key of `owner`, valid from `begins`; those before it sign nothing from `retires` on (seconds since the epoch)."""
        with self._locked():
            before = [each for each in self.public() if each.get("iss") == owner]
            if not before or not self.key_file(owner).exists():
                meant = did_you_mean(owner, {str(each.get("iss")) for each in self.public()})
                raise NotFound(
                    f"{owner} has no key in {self.path}{meant or f'; `bus keys new {owner}` makes one'}"
                )
            key = read_jwk(before[-1])
            made = self._add(
                owner, kid, key.role, algorithm or key.algorithm, {"not_before": begins}
            )
            self._write_set(
                [
                    {**each, "retired_at": retires}
                    if each.get("iss") == owner and each["kid"] != kid and "retired_at" not in each
                    else each
                    for each in self.public()
                ]
            )  # fmt: skip - one change, one expression
            return made

    def update(self, kid: str, **members: int) -> Jwk:
        """Other times for one key. `NotFound`."""
        with self._locked():
            keys = self.public()
            for each in keys:
                if each.get("kid") == kid:
                    each.update(members)
                    self._write_set(keys)
                    return each
        raise NotFound(
            f"there is no key {kid} in {self.set_file}{_meant(kid, keys)}; `bus keys list` shows those that are"
        )

    def encryption_keys(self) -> list[Jwk]:
        """The keys that encrypt payloads, the one that does so now first; none where there is no ring yet."""
        try:
            keys: list[Jwk] = json.loads(self.encryption_keys_file.read_text(encoding="utf-8"))[
                "keys"
            ]
        except FileNotFoundError:
            return []
        except (OSError, ValueError, TypeError, KeyError):
            raise ConfigurationError(
                f"{self.encryption_keys_file} is no ring of keys, or cannot be read"
            ) from None
        return keys

    def add_encryption_key(self, key: Jwk) -> None:
        """A key that decrypts from now on, and encrypts where it is the first."""
        with self._locked():
            _write(self.encryption_keys_file, {"keys": [*self.encryption_keys(), key]}, 0o600)

    def select_encryption_key(self, kid: str) -> None:
        """Let this key of the ring be the one that encrypts. `NotFound`."""
        with self._locked():
            keys = self.encryption_keys()
            chosen = [key for key in keys if key.get("kid") == kid]
            if not chosen:
                raise NotFound(
                    f"there is no key {kid} in {self.encryption_keys_file}{_meant(kid, keys)}; `bus keys ring` shows those that are"
                )
            _write(
                self.encryption_keys_file,
                {"keys": chosen + [key for key in keys if key not in chosen]},
                0o600,
            )

    def _add(
        self, owner: str, kid: str, role: Role, algorithm: Algorithm, times: Mapping[str, int]
    ) -> Jwk:
        secret = generate(algorithm)
        (private,) = read_private(json.dumps(secret))
        public: Jwk = {
            "kid": kid,
            "iss": owner,
            **({"role": role} if role != "service" else {}),
            "alg": algorithm,
            "use": "sig",
            **private.public,
        }
        public |= times
        read_jwk(public)  # what could not be read must not be written
        file = self.key_file(owner)
        held = json.loads(file.read_text(encoding="utf-8"))["keys"] if file.exists() else []
        _write(file, {"keys": [*held, {"kid": kid, **secret}]}, 0o600)
        self._write_set([*self.public(), public])
        return public

    def _write_set(self, keys: list[Jwk]) -> None:
        _write(self.set_file, {"keys": keys}, 0o644)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            self.path.mkdir(mode=0o755, parents=True, exist_ok=True)
            descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            raise ConfigurationError(f"{self.path} cannot be written: {error.strerror}") from None
        try:
            flock(descriptor, LOCK_EX)
            yield
        except OSError as error:
            raise ConfigurationError(f"{self.path} cannot be written: {error.strerror}") from None
        finally:
            os.close(descriptor)


def _meant(kid: str, keys: list[Jwk]) -> str:
    """Which key a wrong id may have meant: all of an owner's where it is his name."""
    owned = [str(each.get("kid")) for each in keys if each.get("iss") == kid]
    return (
        f"; the keys of {kid} are {', '.join(owned)}"
        if owned
        else did_you_mean(kid, {str(each.get("kid")) for each in keys})
    )


def _write(path: Path, value: object, mode: int) -> None:
    """Put a file where it belongs as a whole: who reads it meanwhile sees the old one."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        os.fchmod(descriptor, mode)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(json.dumps(value, indent=2) + "\n")
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
