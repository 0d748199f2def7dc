"""The bodies of answers: a report as JSON, cut if it would be too large."""

from collections.abc import Callable
from time import perf_counter

from bus.messaging.control import (
    FindMessages,
    GetBreakers,
    GetChaos,
    GetInfo,
    GetStats,
    Ping,
    Question,
)
from bus.messaging.service_info import InstanceState
from bus.runtime.discovery.report import Report

__all__ = ["AnswerBodies", "encode_record"]

QUICK_SECONDS = 0.01
"""Maximum seconds to build an answer to STATS that is not kept."""
MAX_SHARE = 0.1
"""Maximum share of the time in which the process builds answers to STATS that take longer.

An instance with thousands of series needs a tenth of a second. Its handlers wait in that time.
"""
LISTS = ("series", "messages", "contracts", "handlers", "breakers")
"""Fields of the records that can be cut, in this order."""


def encode_record(record: InstanceState, max_bytes: int) -> bytes:
    """Return a record as JSON. Leave entries of its lists out until it fits.

    The field `left_out` of the result has the number of these entries.
    """
    body = _to_json(record)
    for name in LISTS:
        entries = getattr(record, name, ())
        while entries and len(body) > max_bytes:
            kept = min(len(entries) - 1, len(entries) * max_bytes // len(body))
            left_out = record.left_out + len(entries) - kept
            entries = entries[:kept]
            record = record.model_copy(update={name: entries, "left_out": left_out})
            body = _to_json(record)
    return body


def _to_json(record: InstanceState) -> bytes:
    return record.model_dump_json().encode()


class AnswerBodies:
    """The bodies of one process's answers. The answer to INFO is kept as bytes."""

    def __init__(
        self,
        report: Report,
        max_bytes: int,
        *,
        is_flooded: Callable[[], bool] = lambda: False,
        timer: Callable[[], float] = perf_counter,
    ) -> None:
        """Create the bodies.

        Args:
            report: The content of the answers.
            max_bytes: Maximum number of bytes of one body.
            is_flooded: Returns True if questions could be lost in the last minute.
            timer: Function that returns seconds of a monotonic clock.
        """
        self._report, self._max_bytes = report, max_bytes
        self._is_flooded, self._timer = is_flooded, timer
        self._info: tuple[InstanceState, bytes] | None = None
        self._stats: tuple[InstanceState, bytes] | None = None
        self._stats_end = 0.0
        """Time until which the last answer to STATS is sent again."""

    def forget_info(self) -> None:
        """Build the next answer to INFO again, because the contracts have changed."""
        self._info = None

    def body_of(self, question: Question[InstanceState]) -> bytes:
        """Return the answer to a question as JSON.

        Raises:
            NotImplementedError: This version of the bus has no answer to the question.
        """
        match question:
            case Ping():
                record: InstanceState = self._report.state()
            case GetInfo():
                return self._info_body()
            case GetStats():
                return self._stats_body()
            case GetBreakers():
                record = self._report.breakers()
            case GetChaos():
                record = self._report.chaos()
            case FindMessages(correlation_id=correlation_id):
                record = self._report.find(correlation_id)
            case _:
                raise NotImplementedError(question.name)
        return encode_record(self._marked(record), self._max_bytes)

    def _marked(self, record: InstanceState) -> InstanceState:
        return record.model_copy(update={"flooded": True}) if self._is_flooded() else record

    def _info_body(self) -> bytes:
        """Return the answer to INFO. Its contracts change only with the state or the router."""
        state = self._report.state()
        if self._info is None or self._info[0] != state:
            self._info = (state, encode_record(self._report.info(), self._max_bytes))
        return self._info[1]

    def _stats_body(self) -> bytes:
        """Return the answer to STATS. If it took long, the next questions receive the same."""
        state, begun = self._report.state(), self._timer()
        if self._stats is not None and self._stats[0] == state and begun < self._stats_end:
            return self._stats[1]
        body = encode_record(self._marked(self._report.stats()), self._max_bytes)
        seconds = self._timer() - begun
        self._stats = None if seconds <= QUICK_SECONDS else (state, body)
        self._stats_end = begun + seconds / MAX_SHARE
        return body
