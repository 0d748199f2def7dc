"""A directory of keys. `<owner>.key` has the owner's private keys, `jwks.json` all public keys."""

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
from bus.messaging.utf8_text import NotUtf8, decode_utf8
from bus.security.keys import Algorithm, Role, read_jwk
from bus.security.private_keys import generate, read_private

__all__ = ["ENCRYPTION_KEYS_FILENAME", "JWKS_FILENAME", "KeyDirectory"]

JWKS_FILENAME, ENCRYPTION_KEYS_FILENAME = "jwks.json", "encryption.json"
OWNER = re.compile(r"[a-z][a-z0-9-]{0,59}")
Jwk = dict[str, Any]


@dataclass(frozen=True, slots=True)
class KeyDirectory:
    """A directory in which an operator keeps keys.

    Each change locks the directory and replaces the files atomically.
    """

    path: Path

    @property
    def set_file(self) -> Path:
        """The file with the public keys. `BUS_JWKS` is its path, or a URL that serves the file."""
        return self.path / JWKS_FILENAME

    @property
    def encryption_keys_file(self) -> Path:
        """The file with the encryption keys. `BUS_ENCRYPTION_KEYS` is its path."""
        return self.path / ENCRYPTION_KEYS_FILENAME

    def key_file(self, owner: str) -> Path:
        """Return the path of the private keys of `owner`.

        It is the value of `BUS_KEY` for a service, and of `BUS_OPERATOR_KEY` for an operator.
        """
        return self.path / f"{owner}.key"

    def owners(self) -> list[str]:
        """Return the sorted names of the services and operators that have a key file."""
        try:
            stems = [file.stem for file in self.path.glob("*.key")]
        except OSError:  # The user may not read the directory.
            return []
        return sorted(stem for stem in stems if OWNER.fullmatch(stem))

    def public(self) -> list[Jwk]:
        """Return the public keys in the file. If the file does not exist, return an empty list.

        Raises:
            ConfigurationError: The file cannot be read, or is not a JSON Web Key Set.
        """
        return _read_set(self.set_file)

    def check_new(self, owner: str) -> None:
        """Check that `owner` is a valid name and has no key yet.

        Raises:
            ConfigurationError: `owner` is not a valid name.
            AlreadyExists: `owner` already has keys. Use `rotate` to create the next key.
        """
        if not OWNER.fullmatch(owner):
            raise ConfigurationError(
                f"{owner[:60]!r} is not a name of a service or operator. "
                "Use at most 60 lower-case letters, digits and dashes."
            )
        if self.key_file(owner).exists() or any(key.get("iss") == owner for key in self.public()):
            raise AlreadyExists(
                f"{owner} already has keys in {self.path}. "
                f"Create the next key with `bus keys rotate {owner}`."
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
        """Create the first key of `owner`, and return the public key.

        Args:
            owner: The service or operator.
            kid: The id of the key.
            role: The role of the owner.
            algorithm: The algorithm of the key.
            **times: Additional members of the public key, for example `not_before`.

        Raises:
            ConfigurationError: `owner` is not a valid name, or the directory cannot be written.
            AlreadyExists: `owner` already has keys.
        """
        with self._locked():
            self.check_new(owner)
            return self._add(owner, kid, role, algorithm, times)

    def rotate(
        self, owner: str, kid: str, *, begins: int, retires: int, algorithm: Algorithm | None = None
    ) -> Jwk:
        """Create the next key of `owner`, and return the public key.

        Args:
            owner: The service or operator.
            kid: The id of the new key.
            begins: The start of the new key's use, in seconds since the epoch.
            retires: The end of the older keys' use, in seconds since the epoch.
            algorithm: The algorithm. If None, the new key has the algorithm of the previous key.

        Raises:
            NotFound: `owner` has no key.
            ConfigurationError: The directory cannot be read or written.
        """
        with self._locked():
            previous = [key for key in self.public() if key.get("iss") == owner]
            if not previous or not self.key_file(owner).exists():
                meant = did_you_mean(owner, {str(key.get("iss")) for key in self.public()})
                raise NotFound(
                    f"{owner} has no key in {self.path}"
                    f"{meant or f'. Create one with `bus keys new {owner}`.'}"
                )
            key = read_jwk(previous[-1])
            public = self._add(
                owner, kid, key.role, algorithm or key.algorithm, {"not_before": begins}
            )
            self._write_set(
                [
                    {**jwk, "retired_at": retires}
                    if jwk.get("iss") == owner and jwk["kid"] != kid and "retired_at" not in jwk
                    else jwk
                    for jwk in self.public()
                ]
            )
            return public

    def update(self, kid: str, **members: int) -> Jwk:
        """Set members (for example `retired_at`) of a public key, and return the key.

        If several keys have the id, all of them are changed, so that a revocation misses none.

        Raises:
            NotFound: No key has this id.
            ConfigurationError: The directory cannot be read or written.
        """
        with self._locked():
            keys = self.public()
            selected = [key for key in keys if key.get("kid") == kid]
            for key in selected:
                key.update(members)
            if selected:
                self._write_set(keys)
                return selected[0]
        raise NotFound(
            f"{self.set_file} has no key {kid} (list the keys with `bus keys list`)"
            f"{_suggest_keys(kid, keys)}"
        )

    def encryption_keys(self) -> list[Jwk]:
        """Return the encryption keys. If the file does not exist, return an empty list.

        The first key encrypts. Every key decrypts.

        Raises:
            ConfigurationError: The file cannot be read, or is not a JSON Web Key Set.
        """
        return _read_set(self.encryption_keys_file)

    def add_encryption_key(self, key: Jwk) -> None:
        """Add an encryption key at the end of the file. Only the first key encrypts."""
        with self._locked():
            _write(self.encryption_keys_file, {"keys": [*self.encryption_keys(), key]}, 0o600)

    def select_encryption_key(self, kid: str) -> None:
        """Select the key that encrypts: move it to the start of the file.

        Raises:
            NotFound: No encryption key has this id.
        """
        with self._locked():
            keys = self.encryption_keys()
            selected = [key for key in keys if key.get("kid") == kid]
            if not selected:
                raise NotFound(
                    f"{self.encryption_keys_file} has no key {kid} "
                    f"(list the keys with `bus keys ring`){_suggest_keys(kid, keys)}"
                )
            _write(
                self.encryption_keys_file,
                {"keys": selected + [key for key in keys if key not in selected]},
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
        # If the public key is invalid, raise an error before anything is written.
        read_jwk(public)
        file = self.key_file(owner)
        existing = _read_set(file)
        _write(file, {"keys": [*existing, {"kid": kid, **secret}]}, 0o600)
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


def _suggest_keys(kid: str, keys: list[Jwk]) -> str:
    """Return a hint for the error about an unknown key id.

    If `kid` is the name of an owner, the hint lists the owner's keys. If not, it suggests similar
    ids.
    """
    owned = [str(key.get("kid")) for key in keys if key.get("iss") == kid]
    return (
        f"; the keys of {kid} are {', '.join(owned)}"
        if owned
        else did_you_mean(kid, {str(key.get("kid")) for key in keys})
    )


def _read_set(file: Path) -> list[Jwk]:
    """Return the keys of a set, or an empty list if the file does not exist.

    Raises:
        ConfigurationError: The file cannot be read, or is not a JSON Web Key Set.
    """
    try:
        text = decode_utf8(file.read_bytes())
    except FileNotFoundError:
        return []
    except OSError:
        raise ConfigurationError(f"{file} cannot be read. Check that it is a text file.") from None
    except NotUtf8 as error:
        raise ConfigurationError(f"{file} {error}.") from None
    try:
        keys = json.loads(text)["keys"]
    except (ValueError, TypeError, KeyError, RecursionError):
        keys = None
    if not isinstance(keys, list) or not all(isinstance(key, dict) for key in keys):
        raise ConfigurationError(f"{file} is not a JSON Web Key Set. Restore it from a backup.")
    return keys


def _write(path: Path, value: object, mode: int) -> None:
    """Replace a file atomically. A concurrent reader sees either the old or the new content."""
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
