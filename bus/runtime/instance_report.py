"""The report of one process: its state, its contracts, its measurements and its last messages.

The control channel, `/metrics` and `bus trace` read it. Nothing here runs while no one reads.
"""

import platform
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from time import perf_counter
from typing import Any, Literal

from bus.contracts.contract import Contract
from bus.contracts.digest import schema_digest
from bus.messaging.chaos_info import InstanceChaos
from bus.messaging.escaped_text import one_line
from bus.messaging.instruments import (
    CONSUMERS_PAUSED,
    IN_FLIGHT,
    READY,
    SLOTS,
    SLOTS_FREE,
)
from bus.messaging.policy_info import MAX_BREAKERS, InstanceBreakers
from bus.messaging.ports.meter import Instrument
from bus.messaging.service_info import (
    MAX_LABEL_SETS,
    MAX_MESSAGES,
    MAX_NAME_LENGTH,
    CandidateInfo,
    ContractInfo,
    ErrorInfo,
    HandlerState,
    InstanceInfo,
    InstanceState,
    InstanceStats,
    RememberedMessage,
    RememberedMessages,
    Series,
)
from bus.runtime.breaker_reports import disturbed_breakers
from bus.runtime.endpoint_consumer import EndpointConsumer
from bus.runtime.endpoint_measures import LastError
from bus.runtime.endpoint_state import EndpointState
from bus.runtime.jobs.store_health import STORE_AWAY
from bus.runtime.service_runtime import ServiceRuntime
from bus.storage.memory.message_history import (
    MAX_ID_LENGTH,
    MessageHistory,
    build_record,
    clean_text,
    id_matcher,
)
from bus.storage.memory.meter import MemoryMeter

__all__ = ["InstanceReport", "State"]

State = Literal["starting", "ready", "not-ready", "draining"]
UNKNOWN = "unknown"


class InstanceReport:
    """The answers to questions about one bus. Each method reads the present state, and is fast."""

    def __init__(
        self,
        runtime: ServiceRuntime,
        *,
        started: Callable[[], float | None],
        state: Callable[[], State],
        consumers: Callable[[], Sequence[EndpointConsumer]],
    ) -> None:
        """Create the report of a bus.

        Args:
            runtime: The objects that all parts of the bus share.
            started: Returns when the bus was entered, in seconds since the epoch, or None.
            state: Returns the state of the bus.
            consumers: Returns the consumers of its endpoints.
        """
        self._runtime = runtime
        self._started = started
        self._state = state
        self._consumers = consumers

    @property
    def pauses(self) -> frozenset[str]:
        """The reasons why consumers of this process are paused now."""
        return frozenset(reason for each in self._consumers() for reason in each.pauses)

    @property
    def is_store_away(self) -> bool:
        """True if a consumer of stored jobs could not reach the store at its last call."""
        errors = [each.last_error for each in self._consumers()]
        return any(error is not None and error.startswith(STORE_AWAY) for error in errors)

    def state(self) -> InstanceState:
        """Return the answer to PING."""
        return InstanceState(**self._identity())

    def info(self) -> InstanceInfo:
        """Return the answer to INFO."""
        return InstanceInfo(
            **self._identity(),
            bus_version=_bus_version(),
            python_version=platform.python_version(),
            contracts=tuple(_contract_info(each) for each in self._consumers()),
        )

    def stats(self) -> InstanceStats:
        """Return the answer to STATS. Without measurements, it has only the present state."""
        identity = self._identity()
        handlers = tuple(_handler_state(each) for each in self._consumers())
        chaos, rows = self._runtime.chaos.info(), self._runtime.store_rows
        return InstanceStats(
            **identity,
            breakers=disturbed_breakers(self._runtime.breakers),
            chaos=() if chaos is None else chaos.lines,
            since=identity["started"],
            handlers=handlers,
            series=(
                *self._reported(),
                *_gauges(handlers, self._now(), is_ready=identity["state"] == "ready"),
                *(() if rows is None else rows.series()),
            ),
        )

    def breakers(self) -> InstanceBreakers:
        """Return the answer to BREAKERS."""
        infos = sorted(
            (breaker.info() for breaker in self._runtime.breakers),
            key=lambda info: (info.name, info.kind),
        )
        return InstanceBreakers(
            **self._identity(),
            breakers=tuple(infos[:MAX_BREAKERS]),
            left_out=max(0, len(infos) - MAX_BREAKERS),
        )

    def chaos(self) -> InstanceChaos:
        """Return the answer to CHAOS."""
        return InstanceChaos(**self._identity(), chaos=self._runtime.chaos.info())

    def find(self, text: str) -> RememberedMessages:
        """Return the messages that this process remembers, and those that it handles now.

        Args:
            text: A correlation id or a message id, or at least the first 4 characters of one.
        """
        history, identity = self._runtime.history, self._identity()
        # Without a history, the process remembers nothing until now.
        since, messages = self._now(), tuple(self._running(text))
        if isinstance(history, MessageHistory):
            complete = history.complete_since
            since = identity["started"] if complete is None else int(complete * 1000)
            messages = (*history.find(text), *messages)
        shown = messages[-MAX_MESSAGES:]
        return RememberedMessages(
            **identity,
            left_out=len(messages) - len(shown),
            since=since,
            remembered=len(history) if isinstance(history, MessageHistory) else 0,
            messages=shown,
        )

    def _identity(self) -> dict[str, Any]:
        runtime, started = self._runtime, self._started()
        return {
            "service": runtime.service,
            "instance": runtime.instance,
            "version": _clean_name(runtime.settings.service_version),
            "started": self._now() if started is None else int(started * 1000),
            "state": self._state(),
            "store": runtime.store.id or None if runtime.store else None,
        }

    def _now(self) -> int:
        return int(self._runtime.clock() * 1000)

    def _reported(self) -> tuple[Series, ...]:
        meter = self._runtime.meter
        return meter.snapshot() if isinstance(meter, MemoryMeter) else ()

    def _running(self, text: str) -> Iterator[RememberedMessage]:
        """Yield the messages whose handlers run now, and whose ids match `text`."""
        matches, now = id_matcher(text), self._runtime.clock()
        for consumer in self._consumers():
            state = consumer.state
            for message in [*state.in_flight.open.values()]:
                started, envelope = message.started, message.envelope
                correlation = envelope.correlation_id or envelope.id
                if started is None or not matches(correlation, envelope.id):
                    continue
                seconds = perf_counter() - started
                yield build_record(
                    {
                        "action": "running",
                        "id": envelope.id,
                        "type": envelope.type,
                        "source": envelope.source,
                        "at": int((now - seconds) * 1000),
                        "seconds": seconds,
                        "attempt": envelope.attempt,
                        "correlation_id": correlation,
                        "causation_id": envelope.causation_id,
                        "traceparent": envelope.traceparent,
                        "queue": state.endpoint.queue,
                        "lost_deliveries": message.lost_deliveries,
                    }
                )


def _contract_info(consumer: EndpointConsumer) -> ContractInfo:
    endpoint = consumer.state.endpoint
    contract = endpoint.contract
    return ContractInfo(
        type=contract.type,
        kind=contract.kind,
        permission=contract.permission,
        queue=endpoint.queue,
        subscription=endpoint.subscription,
        digest=schema_digest(contract.model),
        reply_digest=_reply_digest(contract),
    )


def _reply_digest(contract: Contract) -> str | None:
    if contract.reply is None:
        return None
    return schema_digest(contract.reply, optional=contract.is_reply_optional)


def _handler_state(consumer: EndpointConsumer) -> HandlerState:
    state = consumer.state
    endpoint, measures = state.endpoint, state.measures
    contract, pause = endpoint.contract, consumer.operator_pause
    if measures is not None:
        measures.report()
    last = None if measures is None else measures.last_handled
    now, running = perf_counter(), [*state.in_flight.open.values()]
    ages = [now - each.started for each in running if each.started is not None]
    return HandlerState(
        operation=contract.name,
        version=contract.version,
        kind=contract.kind,
        queue=endpoint.queue,
        subscription=endpoint.subscription,
        slots=state.slots.limit,
        free=state.slots.free,
        in_flight=len(running),
        oldest_seconds=max(ages, default=None),
        full_seconds=min(ages) if len(ages) >= state.slots.limit else None,
        timeout=endpoint.timeout,
        pauses=consumer.pauses,
        operator_pause=None if pause is None else pause.info(),
        candidate=_candidate_info(state),
        ready=consumer.ready,
        last_error=None if measures is None else _error_info(measures.last_error),
        last_handled=None if last is None else int(last * 1000),
    )


def _candidate_info(state: EndpointState) -> CandidateInfo | None:
    """Return the candidate that is processed alone if it is a message of this endpoint."""
    candidate = state.candidates.current
    if candidate is None or candidate.queue != state.spec.queue.name:
        return None
    return CandidateInfo(
        id=clean_text(candidate.id[:MAX_ID_LENGTH]),
        lost_deliveries=candidate.losses,
        running=state.candidates.running is candidate,
    )


def _error_info(error: LastError | None) -> ErrorInfo | None:
    if error is None:
        return None
    return ErrorInfo(code=error.code, at=int(error.at * 1000), place=error.place)


def _gauges(handlers: Sequence[HandlerState], now: int, *, is_ready: bool) -> Iterator[Series]:
    """Yield the series that are not reported, because their present value can be read."""
    for handler in handlers[:MAX_LABEL_SETS]:
        labels = (
            handler.operation,
            str(handler.version),
            handler.kind,
            handler.subscription or "",
        )
        yield _gauge(IN_FLIGHT, labels, handler.in_flight, now)
        yield _gauge(SLOTS, labels, handler.slots, now)
        yield _gauge(SLOTS_FREE, labels, handler.free, now)
        yield _gauge(CONSUMERS_PAUSED, labels, int(handler.operator_pause is not None), now)
    yield _gauge(READY, (), int(is_ready), now)


def _gauge(instrument: Instrument, labels: tuple[str, ...], value: float, now: int) -> Series:
    named = dict(zip(instrument.labels, labels, strict=True))
    return Series(name=instrument.name, labels=named, value=value, last=now)


def _clean_name(name: str | None) -> str | None:
    """Return a name from the settings in the form that other processes accept."""
    return name and one_line(name)[:MAX_NAME_LENGTH]


@cache
def _bus_version() -> str:
    try:
        return version("trunkline")
    except PackageNotFoundError:  # the code runs from a checkout, and the package is not installed
        return UNKNOWN
