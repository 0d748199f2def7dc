"""The keyring of one service: its private keys and the public keys of all services.

The keyring reads the keys again at intervals.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from itertools import chain

from typing_extensions import override

from bus.errors import ConfigurationError, FailedPrecondition
from bus.messaging.labels import one_line
from bus.messaging.timers import loop_time
from bus.security.jwks_source import PrivateSource, PublicSource
from bus.security.key_set import read_key_set
from bus.security.keys import Algorithm, Key, KeyPair, PrivateKey, Role
from bus.security.private_keys import dev_key

__all__ = ["MIN_REFRESH_SECONDS", "REFRESH_INTERVAL_SECONDS", "Keyring", "shared_secret_keyring"]

log = logging.getLogger("bus.keys")

REFRESH_INTERVAL_SECONDS = 60.0
"""Seconds between two reads of the key set.

A revocation takes effect within this time. A new key must be published at least
`REFRESH_INTERVAL_SECONDS` before its first use.
"""
MIN_REFRESH_SECONDS = 10.0
"""Minimum seconds between two reads.

Messages with unknown key ids must not cause a flood of requests to the source.
"""


class Keyring:
    """The public keys of all services, and the private keys of this service.

    If the source fails or returns an invalid key set, the last valid key set stays in use.
    """

    def __init__(  # noqa: PLR0913 - two sources, the owner and two clocks
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
        """Build a keyring without keys. `start` reads the keys.

        Args:
            owner: The name of this service. If None, the owner of the signing key is not checked.
            source: Reads the public key set.
            private: Reads the private keys.
            role: The role of the key that signs.
            algorithms: The permitted algorithms.
            clock: Returns seconds since the epoch.
            timer: Returns seconds of a monotonic clock. None: the event loop's clock.
        """
        self.owner = owner
        self.role = role
        self.algorithms = algorithms
        self.on_change: list[Callable[[], None]] = []
        """Functions to call after the public keys have changed."""
        self._source = source
        self._read_private = private
        self._clock = clock
        self._timer = timer or loop_time
        self._text = b""
        self._keys: Mapping[str, tuple[Key, ...]] = {}
        self._private: list[PrivateKey] = []
        self._last_read = float("-inf")
        self._refreshing: asyncio.Task[None] | None = None
        self._down = False
        self._signing_key: KeyPair | None = None
        self._signing_key_times = (0.0, 0.0)

    def get(self, kid: str) -> tuple[Key, ...]:
        """Return the keys with this id. Usually there is one, and none if the id is unknown."""
        return self._keys.get(kid, ())

    def signing_key(self) -> KeyPair:
        """Return the newest key of this service that is valid now.

        Raises:
            FailedPrecondition: No key of this service is valid now.
        """
        now = self._clock()
        if (
            self._signing_key is None
            or not self._signing_key_times[0] <= now < self._signing_key_times[1]
        ):
            self._signing_key = self._select_signing_key(now)
        return self._signing_key

    def _select_signing_key(self, now: float) -> KeyPair:
        pairs = self._own_pairs()
        moments = [moment for pair in pairs for moment in pair.key.changes()]
        self._signing_key_times = (
            max((moment for moment in moments if moment <= now), default=0.0),
            min((moment for moment in moments if moment > now), default=float("inf")),
        )
        valid = [pair for pair in pairs if pair.key.check_use(now) is None]
        if not valid:
            raise FailedPrecondition(
                f"{self.owner or f'the {self.role}'} has no key that is valid now. "
                "Inspect the keys with `bus keys list`, and create a new key with "
                f"`bus keys rotate {self.owner or 'NAME'}`."
            )
        return max(valid, key=lambda pair: pair.key.not_before)

    def _own_pairs(self) -> list[KeyPair]:
        owned = [
            key for key in self._all_keys() if self.owner in {None, key.owner} or key.owner is None
        ]
        return [
            KeyPair(key=key, private=private)
            for key in owned
            for private in self._private
            if private.thumbprint == key.thumbprint and key.role == self.role
        ]

    def _all_keys(self) -> Iterator[Key]:
        return chain.from_iterable(self._keys.values())

    async def start(self) -> None:
        """Read the private and public keys.

        Raises:
            ConfigurationError: A source cannot be read, or the key set does not contain the public
                key that belongs to the private key.
        """
        self._private = self._read_private()
        self._last_read = self._timer()
        try:
            text = await self._source()
        except OSError as error:
            raise ConfigurationError(
                f"BUS_JWKS: the key set cannot be read: {_describe_error(error)}"
            ) from None
        self._replace_keys(text)
        if not self._own_pairs():
            raise ConfigurationError(self._explain_missing_pair())

    def _explain_missing_pair(self) -> str:
        is_service = self.role == "service"
        setting = "BUS_KEY" if is_service else "BUS_OPERATOR_KEY"
        thumbprints = {private.thumbprint for private in self._private}
        owners = sorted(
            {
                (key.role, key.owner or "")
                for key in self._all_keys()
                if key.thumbprint in thumbprints
            }
        )
        kind = "a service" if is_service else "an operator"
        if not owners:
            return (
                f"BUS_JWKS has no public key of {self.owner or kind} that matches "
                f"{setting}, so no service could verify the signatures. "
                "Publish the keys that `bus keys jwks` prints."
            )
        named = " and ".join(f"the {role} {owner!r}" for role, owner in owners)
        if not is_service or self.owner is None:
            option = "" if is_service else " --operator"
            return (
                f"{setting} belongs to {named}, but {kind}'s key is required. "
                f"Create one with `bus keys new NAME{option}`."
            )
        services = [owner for role, owner in owners if role == "service"]
        alternative, several = "", ""
        if services:
            alternative = f", or pass `--as {services[0]}` to `bus call`, `publish` or `submit`"
            several = (
                " If the process runs several services, set BUS_KEY to the directory with their "
                "keys."
            )
        return (
            f"{setting} belongs to {named}, but this process runs as {self.owner!r}. "
            f"Create a key with `bus keys new {self.owner}`{alternative}.{several}"
        )

    async def run(self) -> None:
        """Read the keys again every `REFRESH_INTERVAL_SECONDS`, until the task is cancelled."""
        while True:
            await asyncio.sleep(REFRESH_INTERVAL_SECONDS)
            await self.refresh()

    async def refresh(self) -> None:
        """Read the keys again, and wait until the read has ended.

        Concurrent callers wait for the same read. Nothing is read if the last read has ended and
        started less than `MIN_REFRESH_SECONDS` ago.
        """
        if self._refreshing is None:
            if self._timer() - self._last_read < MIN_REFRESH_SECONDS:
                return
            self._last_read = self._timer()
            self._refreshing = asyncio.get_running_loop().create_task(self._fetch())
        await asyncio.shield(self._refreshing)

    async def close(self) -> None:
        """End a read that has not ended yet."""
        if self._refreshing is not None:
            self._refreshing.cancel()
            await asyncio.wait([self._refreshing])

    async def _fetch(self) -> None:
        try:
            text = await self._source()
            self._replace_keys(text)
            self._private = self._read_private()
        except Exception as error:  # noqa: BLE001 - without later reads, no revocation counts
            if not self._down:
                why = _describe_error(error)
                log.warning(
                    "the keys of BUS_JWKS cannot be read (%s); the last valid keys stay in use",
                    why,
                    extra={"why": why},
                )
            self._down = True
        else:
            if self._down:
                log.info("BUS_JWKS can be read again")
            self._down = False
        finally:
            self._signing_key = None
            self._refreshing = None

    def _replace_keys(self, text: bytes) -> None:
        if text == self._text:
            return
        key_set = read_key_set(text)
        for fault in key_set.faults:
            log.error("BUS_JWKS: invalid key ignored: %s", fault, extra={"why": fault})
        for shared in key_set.shared_ids + key_set.copies:
            log.warning("BUS_JWKS: %s", shared, extra={"why": shared})
        if not key_set.keys:
            raise ConfigurationError(
                "BUS_JWKS has no valid key: "
                f"{key_set.faults[0] if key_set.faults else 'the key set is empty'}"
            )
        self._text, self._keys, self._signing_key = text, key_set.keys, None
        for notify in self.on_change:
            notify()


def _describe_error(error: BaseException) -> str:
    """Return the text of an error. The text of an unexpected error could contain a value."""
    is_expected = isinstance(error, OSError | ConfigurationError)
    return (one_line(str(error)) if is_expected else "") or type(error).__name__


def shared_secret_keyring(
    owner: str, secret: str, *, clock: Callable[[], float] = time.time
) -> Keyring:
    """Return the keyring for `BUS_AUTH=dev`. Its only key is the shared secret.

    A process that knows the secret can act as any service.

    Raises:
        ConfigurationError: The secret is too short, or the secret is an asymmetric key.
    """
    return SharedSecretKeyring(owner, secret, clock=clock)


class SharedSecretKeyring(Keyring):
    """A keyring with the shared secret as its only key. `start` and `refresh` do nothing."""

    def __init__(self, owner: str, secret: str, *, clock: Callable[[], float]) -> None:
        pair = dev_key(secret)
        super().__init__(
            owner,
            _empty_key_set,
            lambda: [pair.private],
            algorithms=frozenset({"HS256"}),
            clock=clock,
        )
        self._keys, self._private = {pair.key.id: (pair.key,)}, [pair.private]

    @override
    async def start(self) -> None: ...

    @override
    async def refresh(self) -> None: ...


async def _empty_key_set() -> bytes:
    return b""
