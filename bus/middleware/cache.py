"""A cache of replies: equal requests within `cache=` seconds share one reply.

Concurrent equal requests share one call. Source: `singleflight` of the Go project, package
`golang.org/x/sync`.
"""

import asyncio
import copy
import hashlib
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

from bus.contracts.contract import CATALOG, Catalog, Contract
from bus.errors import BusError, ConfigurationError, DeadlineExceeded, NotServed, Unavailable
from bus.messaging.call_limits import timeout_advice
from bus.messaging.criticality import CRITICALITY
from bus.messaging.envelope import Envelope
from bus.messaging.handler import Handler, Middleware
from bus.messaging.instruments import CACHE_LOOKUPS
from bus.messaging.ports.reply_store import ReplyKey, ReplyStore
from bus.messaging.resends import on_resend
from bus.messaging.resilience.destinations import Destination
from bus.messaging.timers import format_seconds

__all__ = ["CacheAccess", "cache"]


FlightKey = tuple[ReplyKey, str | int | None, bool]
"""Key of the reply, criticality of the request, and True if the request waits for the service.

A service that has too much load can reject a less critical call, which the others must not share.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheAccess:
    """The store of the replies, and the functions that decide who may read a reply."""

    store: ReplyStore
    refusal: Callable[[Contract], BusError | None]
    """Function that returns the error to raise if this service may not call the contract."""
    rights: Callable[[], frozenset[str]]
    """Function that returns the permissions of this service now."""
    is_valid: Callable[[Contract, Envelope], bool]
    """Function that returns True if a reply matches its contract."""
    waits: Callable[[str], bool] = lambda _: False
    """Function that returns True if the request with this message id waits for its service."""


def cache(
    destination: Destination, access: CacheAccess, *, catalog: Catalog = CATALOG
) -> Middleware:
    """Return a kept reply to an equal request, or join the call of an equal request.

    Requests are equal if they have the same payload and headers, and this service has the same
    rights. The permission is checked before each lookup, because a hit passes no inner layer. So a
    revoked right takes effect at once.

    Each caller keeps its own deadline, and can be cancelled alone. A shared call ends if no caller
    waits for it any more. An error is not kept, and reaches each caller as an object of its own.

    Args:
        destination: The called operation. Its contract must have the option `cache`.
        access: The store, and the functions that decide who may read a reply.
        catalog: Contracts of this process.
    """
    contract = catalog.get(destination.type)
    if contract is None or contract.cache is None:
        raise ConfigurationError(
            f"{destination.type}: its contract has no cache. Declare it with cache=<seconds>."
        )
    seconds = contract.cache
    return lambda inner: _CachedCalls(destination, contract, seconds, access, inner).call


class _CachedCalls:
    """The calls of one operation, and the replies that are kept for them."""

    def __init__(
        self,
        destination: Destination,
        contract: Contract,
        seconds: float,
        access: CacheAccess,
        inner: Handler,
    ) -> None:
        self._contract, self._seconds = contract, seconds
        self._access = access
        self._inner = inner
        self._clock = destination.clock
        self._count = destination.meter.count
        self._hit, self._joined, self._miss = (
            (*destination.labels, outcome) for outcome in ("hit", "joined", "miss")
        )
        self._flights: dict[FlightKey, _Flight] = {}
        """The calls that equal requests can join."""

    async def call(self, envelope: Envelope) -> Envelope | None:
        """Return the kept reply, the reply of an equal request, or the reply to this request."""
        access = self._access
        error = access.refusal(self._contract)
        if error is not None:
            raise error
        key = _key_of(envelope, access.rights())
        reply = access.store.find(key)
        if reply is not None:
            self._count(CACHE_LOOKUPS, self._hit)
            return _for_caller(reply, envelope, "hit")
        waits = access.waits(envelope.id)
        shared = key, envelope.headers.get(CRITICALITY), waits
        flight = self._flights.get(shared)
        self._count(CACHE_LOOKUPS, self._miss if flight is None else self._joined)
        request = envelope
        while flight is not None:
            try:
                return await flight.wait(envelope, self._clock)
            except (DeadlineExceeded, NotServed) as error:
                # The caller that began the call can have less time than this one.
                is_late = waits or isinstance(error, DeadlineExceeded)
                if not is_late or not flight.ended_before(envelope):
                    raise
            request = envelope.replace(deadline=flight.latest)
            flight = self._flights.get(shared)
        return await self._begin(shared, request).wait(envelope, self._clock)

    def _begin(self, key: FlightKey, request: Envelope) -> "_Flight":
        """Start the call of a request."""
        flight = self._flights[key] = _Flight(key, request, self._flights)
        flight.start(self._send(key[0], request))
        return flight

    async def _send(self, key: ReplyKey, request: Envelope) -> Envelope | None:
        reply = await self._inner(request)
        if reply is not None and self._access.is_valid(self._contract, reply):
            self._access.store.add(key, _kept(reply), self._seconds)
        return reply


class _Flight:
    """A call that all callers with equal requests share. It runs in a task of its own."""

    __slots__ = (
        *("_error", "_flights", "_is_starter_gone", "_key", "_reply", "_task", "_waiting"),
        *("deadline", "has_ended", "latest", "request"),
    )

    def __init__(
        self, key: FlightKey, request: Envelope, flights: dict[FlightKey, "_Flight"]
    ) -> None:
        """Create the call, which removes itself from `flights` when it ends."""
        self._key, self._flights = key, flights
        self.request = request
        self.deadline = self.latest = request.deadline
        """`deadline` ends the call. `latest` is the latest deadline of its callers."""
        self.has_ended = False
        self._is_starter_gone = False
        self._waiting = 0
        self._reply: Envelope | None = None
        self._error: BaseException | None = None

    def start(self, call: Coroutine[Any, Any, Envelope | None]) -> None:
        """Start the task of the call."""
        self._task = asyncio.get_running_loop().create_task(self._run(call))

    async def _run(self, call: Coroutine[Any, Any, Envelope | None]) -> None:
        notify = on_resend.get()
        if notify is not None:
            # The span of the caller that began the call ends with that caller.
            on_resend.set(lambda error: None if self._is_starter_gone else notify(error))
        try:
            self._reply = await call
        except asyncio.CancelledError:
            if self._waiting:
                self._error = Unavailable(
                    f"{self.request.type}: the call was cancelled. Send the request again.",
                    maybe_executed=True,
                )
        except Exception as error:  # noqa: BLE001 - each caller raises it
            self._error = error if self._waiting else None
        finally:
            self.has_ended = True
            self._leave()

    def ended_before(self, envelope: Envelope) -> bool:
        """Return True if the call has ended, and its deadline is earlier than that of a caller."""
        return self.has_ended and _is_before(self.deadline, envelope.deadline)

    def _leave(self) -> None:
        """Let no further caller join the call."""
        if self._flights.get(self._key) is self:
            del self._flights[self._key]

    async def wait(self, envelope: Envelope, clock: Callable[[], float]) -> Envelope | None:
        """Return the reply for one caller, or raise the error of the call.

        Raises:
            DeadlineExceeded: The deadline of this caller has passed. The call continues for others.
        """
        seconds = None
        if _is_before(envelope.deadline, self.deadline):
            seconds = max(0.0, (envelope.deadline or 0) / 1000 - clock())
        elif _is_before(self.latest, envelope.deadline):
            self.latest = envelope.deadline
        is_own = self.request.id == envelope.id
        self._waiting += 1
        try:
            await asyncio.wait([self._task], timeout=seconds)
            if not self.has_ended:
                raise _no_reply(envelope, seconds or 0.0)
            if self._error is not None:
                raise self._error_of_caller()
        finally:
            self._waiting -= 1
            self._is_starter_gone |= is_own
            if not self._waiting:
                self._leave()
                self._task.cancel()
                self._error = None  # its traceback refers to this object
        return self._reply if is_own else _for_caller(self._reply, envelope, "joined")

    def _error_of_caller(self) -> BaseException:
        """Return the error for one caller. A caller can change its error, so each has a copy."""
        error = self._error
        assert error is not None  # noqa: S101 - the only caller has checked it
        try:
            if self._waiting == 1:
                return error
            with suppress(Exception):  # an application's class that cannot be copied
                fresh = copy.copy(error).with_traceback(error.__traceback__)
                fresh.__cause__ = error.__cause__
                return fresh
            return error
        finally:
            del error  # a reference cycle, as in `wait`


def _key_of(envelope: Envelope, rights: frozenset[str]) -> ReplyKey:
    headers = envelope.headers
    others = tuple(sorted((key, headers[key]) for key in headers if key != CRITICALITY))
    digest = hashlib.sha256(envelope.body).digest()
    return ReplyKey(envelope.type, digest, envelope.source, rights, others)


def _kept(reply: Envelope) -> Envelope:
    """Return the part of a reply that does not depend on its request."""
    return Envelope(
        id=reply.id, type=reply.type, role=reply.role, source=reply.source, body=reply.body
    )


def _for_caller(
    reply: Envelope | None, request: Envelope, cached: Literal["hit", "joined"]
) -> Envelope | None:
    """Return the reply with the ids of the caller's own request."""
    if reply is None:
        return None
    return reply.replace(
        correlation_id=request.correlation_id or request.id,
        causation_id=request.id,
        in_reply_to=request.id,
        traceparent=request.traceparent,
        tracestate=request.tracestate,
        authorization=None,
        cached=cached,
    )


def _is_before(deadline: int | None, other: int | None) -> bool:
    """Return True if a deadline is earlier than another one. None is later than all others."""
    return deadline is not None and (other is None or deadline < other)


def _no_reply(envelope: Envelope, seconds: float) -> DeadlineExceeded:
    error = DeadlineExceeded(
        f"{envelope.type}: no reply within {format_seconds(seconds)}. Check that the service runs "
        f"and is not overloaded, or {timeout_advice(envelope.limits)}.",
        maybe_executed=True,
    )
    error.origin = "service"
    return error
