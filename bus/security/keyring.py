"""Where keys come from, and how they stay fresh: a file or an https URL, fetched again in time, and one fetch at a time."""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from http.client import HTTPException

from typing_extensions import override

from bus.errors import ConfigurationError, FailedPrecondition
from bus.security.jwks_source import FETCH_TIMEOUT_SECONDS, PrivateSource, PublicSource
from bus.security.keys import Algorithm, Key, KeyPair, PrivateKey, Role, public_keys
from bus.security.private_keys import dev_key

__all__ = ["MIN_REFRESH_SECONDS", "REFRESH_INTERVAL_SECONDS", "Keyring", "shared_secret_keyring"]

log = logging.getLogger("bus.keys")

REFRESH_INTERVAL_SECONDS = 60.0
"""Seconds between two looks at the key set: a revocation can go unnoticed so long. New keys are published that much before their use."""
MIN_REFRESH_SECONDS = 10.0
"""Seconds between two looks, at least: a flood of unknown key ids must not become a flood at the source."""


class Keyring:
    """The public keys of everyone that count now, and the private ones of this service.

    A source that is down, or that answers with what is no key set, takes nothing away: the last good set stays.
    """

    def __init__(  # noqa: PLR0913 - where from, whose and by which clocks
        self,
        owner: str | None,
        source: PublicSource,
        private: PrivateSource,
        *,
        role: Role = "service",
        algorithms: frozenset[Algorithm] = frozenset({"EdDSA", "ES256"}),
        clock: Callable[[], float] = time.time,
        timer: Callable[[], float] | None = None,
    ) -> None:
        """`owner` is this service; None: whose the private key is. `clock`: seconds since the epoch; `timer`: seconds; else the loop's."""
        self.owner = owner
        self.role = role
        self.algorithms = algorithms
        self.on_change: list[Callable[[], None]] = []
        """Called when the public keys are others than before."""
        self._source = source
        self._read_private = private
        self._clock = clock
        self._timer = timer or _loop_time
        self._text = b""
        self._keys: Mapping[str, Key] = {}
        self._private: list[PrivateKey] = []
        self._looked = float("-inf")
        self._looking: asyncio.Task[None] | None = None
        self._down = False
        self._chosen: KeyPair | None = None
        self._good = (0.0, 0.0)

    def get(self, kid: str) -> Key | None:
        """The key of this id, where it is known."""
        return self._keys.get(kid)

    def signing_key(self) -> KeyPair:
        """The newest key of this service that is valid now. `FailedPrecondition` where there is none."""
        now = self._clock()
        if self._chosen is None or not self._good[0] <= now < self._good[1]:
            self._chosen = self._choose(now)
        return self._chosen

    def _choose(self, now: float) -> KeyPair:
        mine = self._mine()
        moments = [moment for pair in mine for moment in pair.key.changes()]
        self._good = (
            max((m for m in moments if m <= now), default=0.0),
            min((m for m in moments if m > now), default=float("inf")),
        )
        valid = [pair for pair in mine if pair.key.check_use(now) is None]
        if not valid:
            raise FailedPrecondition(
                f"no key of {self.owner} is valid now; look at `bus keys list`, and make one with `bus keys rotate {self.owner}`"
            )
        return max(valid, key=lambda pair: pair.key.not_before)

    def _mine(self) -> list[KeyPair]:
        owned = [
            key
            for key in self._keys.values()
            if self.owner in {None, key.owner} or key.owner is None
        ]
        return [
            KeyPair(key=key, private=private)
            for key in owned
            for private in self._private
            if private.thumbprint == key.thumbprint and key.role == self.role
        ]

    async def start(self) -> None:
        """Read everything. Raises `ConfigurationError` where that cannot be, or the own key is not among the public ones."""
        self._private = self._read_private()
        self._looked = self._timer()
        try:
            async with asyncio.timeout(FETCH_TIMEOUT_SECONDS):
                text = await self._source()
        except (OSError, HTTPException, TimeoutError) as error:
            raise ConfigurationError(
                f"BUS_JWKS: the key set cannot be read: {_why(error)}"
            ) from None
        self._replace_keys(text)
        if not self._mine():
            raise ConfigurationError(self._why_not_mine())

    def _why_not_mine(self) -> str:
        held = {private.thumbprint for private in self._private}
        needed = self.owner or f"an {self.role}"
        others = sorted(
            f"the {key.role} {key.owner}" for key in self._keys.values() if key.thumbprint in held
        )
        if others:
            new = f"{self.owner}" if self.role == "service" else "NAME --operator"
            return (
                f"the private key is that of {' and '.join(others)}, and not of {needed}: `bus keys new {new}` makes one; "
                "`bus call`, publish and submit speak as its owner by --as"
            )
        return (
            f"the public half of the private key is not in BUS_JWKS as that of {needed}, "
            "so nobody could check what it signs; `bus keys jwks` shows what to publish"
        )

    async def run(self) -> None:
        """Look again every so often, for ever."""
        while True:
            await asyncio.sleep(REFRESH_INTERVAL_SECONDS)
            await self.refresh()

    async def refresh(self) -> None:
        """Look again now, unless that was a moment ago; who comes meanwhile waits for the same look."""
        if self._looking is None:
            if self._timer() - self._looked < MIN_REFRESH_SECONDS:
                return
            self._looked = self._timer()
            self._looking = asyncio.get_running_loop().create_task(self._fetch())
        await asyncio.shield(self._looking)

    async def _fetch(self) -> None:
        try:
            async with asyncio.timeout(FETCH_TIMEOUT_SECONDS):
                text = await self._source()
            self._replace_keys(text)
            self._private = self._read_private()
        except (OSError, HTTPException, TimeoutError, ConfigurationError) as error:
            if not self._down:
                log.warning(
                    "keys cannot be read again; the last good ones stay", extra={"why": _why(error)}
                )
            self._down = True
        else:
            self._down = False
        finally:
            self._chosen = None
            self._looking = None

    def _replace_keys(self, text: bytes) -> None:
        if text == self._text:
            return
        keys, faults = public_keys(text)
        for fault in faults:
            log.error("a key does not count", extra={"why": fault})
        if not keys:
            raise ConfigurationError(
                f"BUS_JWKS: no key in it is good: {faults[0] if faults else 'there is none'}"
            )
        self._text, self._keys, self._chosen = text, keys, None
        for tell in self.on_change:
            tell()


def _loop_time() -> float:
    return asyncio.get_running_loop().time()


def _why(error: BaseException) -> str:
    return str(error) or type(error).__name__


def shared_secret_keyring(
    owner: str, secret: str, *, clock: Callable[[], float] = time.time
) -> Keyring:
    """One shared secret instead of keys: `BUS_AUTH=dev`. Anyone who knows it speaks for everyone."""
    return SharedSecretKeyring(owner, secret, clock=clock)


class SharedSecretKeyring(Keyring):
    def __init__(self, owner: str, secret: str, *, clock: Callable[[], float]) -> None:
        pair = dev_key(secret)
        super().__init__(
            owner, _nothing, lambda: [pair.private], algorithms=frozenset({"HS256"}), clock=clock
        )
        self._keys, self._private = {pair.key.id: pair.key}, [pair.private]

    @override
    async def start(self) -> None: ...

    @override
    async def refresh(self) -> None: ...


async def _nothing() -> bytes:
    return b""


# --- sources -------------------------------------------------------------------------------------------------------
